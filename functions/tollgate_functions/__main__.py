"""`python -m tollgate_functions decide`: serve one function's folder until SIGTERM.

In: the folder's name, LISTEN_ADDRESS (func-python's, like 127.0.0.1:8080) and TOLLGATE_* settings. Out: the function
on HTTP, its metrics on TOLLGATE_METRICS_PORT. A missing or wrong setting ends it at once with the setting's name.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path

from prometheus_client import start_http_server

from tollgate.errors import ConfigurationError
from tollgate.settings import Settings
from tollgate_functions.application import Application

FOLDERS = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Serve; returns the exit code: 0 after an orderly stop, 1 for a setting or a port, 2 for usage."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    known = sorted(path.parent.name for path in FOLDERS.glob("*/func.yaml"))
    if len(arguments) != 1 or arguments[0] not in known:
        print(f"usage: python -m tollgate_functions {' | '.join(known)}", file=sys.stderr)  # noqa: T201
        return 2
    try:
        sys.path.insert(0, str(FOLDERS / arguments[0]))
        instance = importlib.import_module("function").new()
        port = Settings.read().metrics_port
        if port:
            start_http_server(port, addr=_host())
        Application(instance).serve()
    except (ConfigurationError, OSError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _host() -> str:
    """Metrics are served where events are: on loopback only when LISTEN_ADDRESS is."""
    first = os.environ.get("LISTEN_ADDRESS", "").partition(",")[0].rpartition(":")[0]
    return first if first and not first.startswith("[") else "0.0.0.0"  # noqa: S104 - a pod is scraped from outside


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
