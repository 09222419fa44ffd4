"""Settings: environment variables, one documented class, read once when a process starts.

In: TOLLGATE_* variables (in a cluster from ConfigMaps and Secrets, embedded from the supervisor). Out: `Settings`.
A part names what it needs; a missing or wrong value stops it at the start with the variable's name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

from tollgate.errors import ConfigurationError


class Secret(str):
    """A text that does not show itself: `repr` and logs print stars, `reveal()` gives the value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def reveal(self) -> str:
        """The value itself, for the one call that needs it."""
        return "".join(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Each field is the environment variable TOLLGATE_<FIELD IN CAPITALS>."""

    database_url: Secret = field(default_factory=lambda: Secret(""))
    """Postgres: postgresql://user:password@host:port/database."""
    kafka_bootstrap: str = ""
    """Kafka: host:port, several separated by commas."""
    model_url: str = ""
    """The InferenceService's base URL; /v2/models/... is added."""
    model_name: str = "fraud"
    """The V2 model that answers transactions; <name>-features answers feature matrices."""
    model_timeout_ms: int = 2_000
    """How long `decide` waits for the model server before it answers 503."""
    policy_file: Path | None = None
    """The decision policy; without it the one that ships with Tollgate."""
    reasons: int = 4
    """How many reasons a review or a decline carries at most."""
    metrics_port: int = 0
    """Where Prometheus metrics are served; 0 serves none."""

    @classmethod
    def read(cls, *needed: str, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the environment. `needed` names fields that must be set. Raises `ConfigurationError`."""
        values: dict[str, object] = {}
        for each in fields(cls):
            name = f"TOLLGATE_{each.name.upper()}"
            text = environ.get(name, "").strip()
            if text:
                values[each.name] = _convert(name, each.name, text)
            elif each.name in needed:
                raise ConfigurationError(f"{name} is not set: {_WHAT[each.name]}")
        return cls(**values)  # type: ignore[arg-type]


_WHAT = {
    "database_url": "the Postgres URL, postgresql://user:password@host:port/database",
    "kafka_bootstrap": "the Kafka brokers, host:port[,host:port]",
    "model_url": "the model server's base URL, http://host:port",
    "policy_file": "the decision policy's TOML file",
}


def _convert(name: str, field: str, text: str) -> object:
    match field:
        case "database_url":
            return Secret(_url(name, text, ("postgresql", "postgres"), secret=True))
        case "model_url":
            return _url(name, text, ("http", "https")).rstrip("/")
        case "kafka_bootstrap":
            for pair in text.split(","):
                host, _, port = pair.rpartition(":")
                if not host or not port.isdigit():
                    raise ConfigurationError(f"{name}: {pair!r} is not host:port")
            return text
        case "policy_file":
            return Path(text)
        case "metrics_port" | "model_timeout_ms" | "reasons":
            if not text.isdigit():
                raise ConfigurationError(f"{name}: {text!r} is not a whole number")
            return int(text)
        case _:
            return text


def _url(name: str, text: str, schemes: tuple[str, ...], *, secret: bool = False) -> str:
    parts = urlsplit(text)
    if parts.scheme not in schemes or not parts.hostname:
        shown = "its value" if secret else repr(text)
        raise ConfigurationError(f"{name}: {shown} is not a URL that starts with {schemes[0]}://host")
    return text
