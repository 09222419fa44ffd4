"""The model server process: `python -m tollgate_kserve --model_dir DIR`, with the KServe SDK's own arguments.

In: the model folder, TOLLGATE_DATABASE_URL, TOLLGATE_REASONS, K_REVISION or TOLLGATE_REVISION. Out: V2 over HTTP and
gRPC until SIGTERM, then what is under way is finished. The models are loaded before a port opens.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

import kserve.logging
import uvloop
from kserve.model_server import ModelServer, app
from kserve.model_server import parser as sdk_arguments

from tollgate.errors import TollgateError
from tollgate.settings import Settings
from tollgate_kserve import artifact, listening
from tollgate_kserve.edge import Edge
from tollgate_kserve.models import FixedModels, ServedDataPlane, ServedModel, handle_errors
from tollgate_kserve.predictor import Predictor
from tollgate_kserve.reader import FeatureReader
from tollgate_kserve.serving import Fraud, FraudFeatures, Service

_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "filters": {"faults": {"()": "tollgate_kserve.models.OnlyFaults"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["faults"]}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    # The SDK logs a line a gRPC call and two an HTTP request, uvicorn one: none of them tells what metrics do not.
    "loggers": {
        **{name: {"level": "INFO"} for name in ("tollgate", "uvicorn.error")},
        "uvicorn.access": {"propagate": False},  # without a handler uvicorn does not even make the line
    },
}
_log = logging.getLogger("tollgate.model")


def main() -> int:
    """Serve until SIGTERM. Exit code 1 when the model folder or a setting is wrong."""
    arguments = argparse.ArgumentParser("tollgate_kserve", parents=[sdk_arguments])
    arguments.add_argument("--model_dir", type=Path, required=True, help="folder with model.ubj and tollgate.json")
    arguments.add_argument("--host", help="address to listen on, HTTP and gRPC (default: every interface)")
    options = arguments.parse_args()
    kserve.logging.configure_logging(options.log_config_file or _LOGGING)
    try:
        services = _services(options.model_dir)
    except TollgateError as error:
        _log.error("%s", error)
        return 1
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    # The SDK asks for "the" loop before it starts one of its own; uvloop's policy does not make one up.
    asyncio.set_event_loop(asyncio.new_event_loop())
    handle_errors(app)
    listening.use(Edge(app, {each.name: each for each in services}), options.host)
    server = ModelServer(enable_latency_logging=False)
    server.dataplane = ServedDataPlane(server.registered_models)
    server.model_repository_extension = FixedModels(server.registered_models)
    server.start([ServedModel(each) for each in services])
    return 0


def _services(folder: Path) -> list[Service]:
    settings = Settings.read("database_url")
    manifest = artifact.load(folder)
    revision = os.environ.get("K_REVISION") or os.environ.get("TOLLGATE_REVISION") or "local"
    predictor = Predictor(manifest)
    _log.info("model %s version %s, revision %s", manifest.name, manifest.version, revision)
    reader = FeatureReader(settings.database_url)
    return [
        Fraud(predictor, reader, revision=revision, most_reasons=settings.reasons),
        FraudFeatures(predictor, revision=revision, most_reasons=settings.reasons),
    ]


if __name__ == "__main__":
    sys.exit(main())
