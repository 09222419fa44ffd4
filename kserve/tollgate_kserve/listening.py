"""The SDK's two servers, on an address of our choice and with our HTTP route in front.

In: what the SDK's `ModelServer` gives its REST and gRPC servers. Out: the same servers. The SDK has no argument for
the address: it listens on every interface, which suits a pod and not a computer on somebody's network. Nor has it a
place before its own middlewares. Next: `edge` answers.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import kserve.model_server
from grpc import aio  # type: ignore[import-untyped]
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor, LoggingInterceptor
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.rest.server import RESTServer

from tollgate_kserve.edge import App


def use(app: App, host: str | None) -> None:
    """Have `ModelServer.start` serve `app` on `host` (None: every interface, as the SDK does).

    It makes its servers by these names of its module; replacing them spares a copy of all of `start`.
    """
    kserve.model_server.RESTServer = partial(_Rest, front=app, host=host)
    if host is not None:
        kserve.model_server.GRPCServer = partial(_Grpc, host=host)


class _Rest(RESTServer):  # type: ignore[misc]
    def __init__(self, *arguments: Any, front: App, host: str | None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.config.app = front
        if host is not None:
            self.config.host = host
        self.config.proxy_headers = False  # nothing here looks at who the client is


class _Grpc(GRPCServer):  # type: ignore[misc]
    def __init__(self, *arguments: Any, host: str, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._host = f"[{host}]" if ":" in host else host

    async def start(self, max_workers: int) -> None:
        """As the SDK's, but for the address, which is a constant in there."""
        limits = ("grpc_max_send_message_length", "grpc_max_receive_message_length")
        self._server = aio.server(
            ThreadPoolExecutor(max_workers),
            interceptors=(LoggingInterceptor(), ExceptionToStatusInterceptor()),
            options=[(name.replace("_", ".", 1), self._kwargs[name]) for name in limits],
        )
        servicer = InferenceServicer(self._data_plane, self._model_repository_extension)
        grpc_predict_v2_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, self._server)
        self._server.add_insecure_port(f"{self._host}:{self._port}")
        await self._server.start()
        await self._server.wait_for_termination()
