"""The dispatcher's settings: environment variables and one option, read once at the start.

In: TOLLGATE_* variables from the supervisor. Out: `Settings` for `__main__`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from tollgate.errors import ConfigurationError

_HOST = "127.0.0.1"
_GRACE = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the dispatcher needs to know besides the manifests."""

    kafka_bootstrap: str
    """TOLLGATE_KAFKA_BOOTSTRAP: host:port of Kafka; takes the place of the manifests' bootstrap servers."""
    services: Mapping[str, str]
    """TOLLGATE_SERVICES: JSON, the URL of each Knative Service that the manifests name."""
    ingress_port: int
    """TOLLGATE_INGRESS_PORT: where events are POSTed (/NAMESPACE/BROKER)."""
    metrics_port: int
    """TOLLGATE_METRICS_PORT: /metrics, /healthz, /readyz."""
    host: str = _HOST
    """TOLLGATE_LISTEN_HOST: the address both ports listen on."""
    grace: float = _GRACE
    """TOLLGATE_GRACE_SECONDS: how long a stop waits for events under way."""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the environment. Raises `ConfigurationError` with the variable's name."""
        try:
            services = msgspec.json.decode(_need(environ, "TOLLGATE_SERVICES"), type=dict[str, str])
        except msgspec.DecodeError as error:
            raise ConfigurationError(f"TOLLGATE_SERVICES is not a JSON object of name to URL: {error}") from error
        try:
            return cls(
                kafka_bootstrap=_need(environ, "TOLLGATE_KAFKA_BOOTSTRAP"),
                services=services,
                ingress_port=int(_need(environ, "TOLLGATE_INGRESS_PORT")),
                metrics_port=int(_need(environ, "TOLLGATE_METRICS_PORT")),
                host=environ.get("TOLLGATE_LISTEN_HOST", _HOST),
                grace=float(environ.get("TOLLGATE_GRACE_SECONDS", _GRACE)),
            )
        except ValueError as error:
            raise ConfigurationError(
                f"TOLLGATE_INGRESS_PORT, TOLLGATE_METRICS_PORT, TOLLGATE_GRACE_SECONDS take numbers: {error}"
            ) from error


def _need(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise ConfigurationError(f"{name} is not set")
    return value
