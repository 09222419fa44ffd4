"""Whether this machine can run the platform, asked before anything is started.

In: `Layout`. Out: findings, each with what was found and, unless it is fine, what to do about it.
Next: `tollgate doctor` lists them, `tollgate up` refuses to start on a failure.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from tollgate.errors import TollgateError
from tollgate.local import environments, jars
from tollgate.local import java as javas
from tollgate.local.layout import HOST, OFFSETS, Layout
from tollgate.local.lock import running_pid
from tollgate.local.process import leftovers

_GIB = 2**30
_FIRST_RUN_DISK, _LATER_DISK = 5 * _GIB, 1 * _GIB
_ENOUGH_MEMORY, _LEAST_MEMORY = 6 * _GIB, 3 * _GIB
_PYTHONS = ((3, 11), (3, 12))
_ON_DEMAND = ("model_canary", "model_canary_grpc")
"""Ports that only a rollout needs."""


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result."""

    level: Level
    what: str
    do: str = ""


def examine(layout: Layout) -> list[Finding]:
    """All checks, in the order in which they matter. Changes nothing but creating an empty home."""
    running = running_pid(layout)
    if running is not None:
        return [
            Finding(
                Level.FAIL,
                f"Tollgate already runs on {layout.home} (pid {running})",
                "`tollgate status` shows it, `tollgate down` stops it",
            )
        ]
    checks: list[Callable[[Layout], Finding]] = [_python, _home, _disk, _memory, _uv, _java]
    return [check(layout) for check in checks] + _ports(layout)


def _python(_: Layout) -> Finding:
    here = ".".join(str(one) for one in sys.version_info[:3])
    if sys.version_info[:2] in _PYTHONS:
        return Finding(Level.OK, f"Python {here}")
    return Finding(Level.FAIL, f"Python {here}", "use Python 3.11 or 3.12: make up PYTHON=/path/to/python3.11")


def _home(layout: Layout) -> Finding:
    try:
        layout.create()
        probe = layout.run / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        return Finding(
            Level.FAIL,
            f"{layout.home} cannot be written: {error.strerror}",
            "set TOLLGATE_HOME to a folder of yours",
        )
    return Finding(Level.OK, f"home {layout.home}")


def _disk(layout: Layout) -> Finding:
    first = not jars.is_complete(layout.jars / jars.KAFKA.name, jars.KAFKA)
    needed = _FIRST_RUN_DISK if first else _LATER_DISK
    folder = next(one for one in (layout.home, *layout.home.parents) if one.exists())
    free = shutil.disk_usage(folder).free
    what = f"{free / _GIB:.1f} GiB free below {folder}"
    if free >= needed:
        return Finding(Level.OK, what)
    why = "the first run downloads and installs" if first else "Kafka and Postgres need room to write"
    return Finding(
        Level.FAIL,
        f"{what}, {needed / _GIB:.0f} GiB needed ({why})",
        "free some space, or set TOLLGATE_HOME to a bigger disk",
    )


def _memory(_: Layout) -> Finding:
    available = psutil.virtual_memory().available
    limit = _container_limit()
    if limit is not None:
        available = min(available, limit)
    what = f"{available / _GIB:.1f} GiB of memory available"
    if available >= _ENOUGH_MEMORY:
        return Finding(Level.OK, what)
    level = Level.WARN if available >= _LEAST_MEMORY else Level.FAIL
    return Finding(level, f"{what}, {_ENOUGH_MEMORY / _GIB:.0f} GiB wanted", "close other programs")


def _container_limit() -> int | None:
    """What a container's limit leaves (cgroup v2), or None without one."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return max(0, int(limit) - used) if limit.isdigit() else None


def _uv(layout: Layout) -> Finding:
    if all(environments.is_complete(layout, extra) for extra in ("serving", "functions")):
        return Finding(Level.OK, "the parts' Python environments are installed")
    try:
        return Finding(Level.OK, f"uv is {environments.find_uv()}")
    except TollgateError as error:
        return Finding(Level.FAIL, "uv is missing", str(error))


def _java(_: Layout) -> Finding:
    try:
        java = javas.find()
    except TollgateError as error:
        return Finding(Level.FAIL, "no Java", str(error))
    return Finding(Level.OK, f"Java {java.major}: {java.executable}")


def _ports(layout: Layout) -> list[Finding]:
    if left := leftovers(layout):
        # They hold our own ports; nothing to do for the user.
        return [Finding(Level.WARN, f"{', '.join(left)} of a killed run still run", "`tollgate up` ends them first")]
    taken = []
    for name in OFFSETS:
        port = layout.port(name)
        if not _free(port):
            level = Level.WARN if name in _ON_DEMAND else Level.FAIL
            do = "end it, or set TOLLGATE_PORT_BASE to move all ports"
            taken.append(Finding(level, f"port {port} ({name}) is taken by {_holder(port)}", do))
    low, high = layout.port_base + min(OFFSETS.values()), layout.port_base + max(OFFSETS.values())
    return taken or [Finding(Level.OK, f"ports {low} to {high} are free")]


def _free(port: int) -> bool:
    with socket.socket() as listener:
        # What Postgres, Kafka and Envoy set too: a port in TIME_WAIT is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    """Who listens, as far as this user may know."""
    try:
        for one in psutil.net_connections("tcp"):
            if one.laddr and one.laddr[1] == port and one.status == psutil.CONN_LISTEN and one.pid:
                return f"{psutil.Process(one.pid).name()} (pid {one.pid})"
    except (psutil.Error, OSError):
        pass
    return "another program" if os.getuid() == 0 else "a program of another user"
