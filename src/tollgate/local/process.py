"""One process of a part: started in a session of its own, remembered in a pid file, ended with its whole group.

In: a `Part`. Out: `Process`; and `end_leftovers`, which ends what an earlier supervisor left behind without
ever touching a process that only happens to have the same pid. Next: `tollgate.local.supervisor`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from tollgate.local import child
from tollgate.local.layout import Layout
from tollgate.local.part import Part

_LOG_LIMIT = 10_000_000
_LOGS_KEPT = 3
_UNKILLABLE = 10.0
"""Seconds after which a process that survives SIGKILL (stuck in the kernel) is left alone."""


class Process:
    """A running (or just ended) process of a part."""

    def __init__(self, layout: Layout, part: Part) -> None:
        """Start it. Raises OSError when the log cannot be written or there is no more room for processes.

        The calling thread must live as long as the process: Linux ties "death with the parent" to the thread.
        """
        self.part = part
        self._pid_file = layout.run / f"{part.name}.pid"
        log = layout.log(part.name)
        rotate(log)
        uid, gid = (part.user.uid, part.user.gid) if part.user else (os.getuid(), os.getgid())
        starter = [sys.executable, "-I", "-S", child.__file__, str(os.getpid()), str(uid), str(gid)]
        with log.open("ab") as out:
            out.write(f"--- {time.strftime('%Y-%m-%dT%H:%M:%S%z')} start {part.name}\n".encode())
            out.flush()
            self._popen = subprocess.Popen(
                [*starter, *part.command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment(layout, part.env),
                cwd=part.cwd or layout.home if part.user is None else "/",
            )
        self.pid = self._popen.pid
        _write_pid(self._pid_file, self.pid)

    def exit_reason(self) -> str | None:
        """None while it runs, else why it ended."""
        code = self._popen.poll()
        if code is None:
            return None
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def wait(self, timeout: float) -> str | None:
        """Wait for its end; the reason, or None when it still runs after `timeout` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout)
        return self.exit_reason()

    def end(self, *, orderly: bool = True) -> None:
        """End it and everything it started: its stop signal and `grace` seconds first, then SIGKILL."""
        if orderly and self._popen.poll() is None:
            self._popen.send_signal(self.part.stop_signal)
            self.wait(self.part.grace)
        kill_group(self.pid)
        self._popen.wait()
        self._pid_file.unlink(missing_ok=True)


def environment(layout: Layout, added: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and `added`, with Python's bytecode kept in env/.pycache.

    MLflow alone spends 5 s of CPU on compiling itself at every start where bytecode is not kept.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(layout.env / ".pycache"), **added}


def kill_group(group: int, patience: float = 1.0) -> None:
    """SIGKILL what is left in a process group, after `patience` seconds to go by itself if its leader is gone."""
    deadline = time.monotonic() + (0 if psutil.pid_exists(group) else patience)
    while _group_lives(group) and time.monotonic() < deadline + _UNKILLABLE:
        if time.monotonic() >= deadline:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        time.sleep(0.02)


def end_leftovers(layout: Layout, grace: float = 10.0) -> list[str]:
    """End the parts a killed supervisor left behind (SIGTERM, then SIGKILL). Returns their names."""
    found = leftovers(layout)
    for group in found.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
    deadline = time.monotonic() + grace
    for group in found.values():
        while _group_lives(group) and time.monotonic() < deadline:
            time.sleep(0.05)
        kill_group(group, patience=0)
    for file in layout.run.glob("*.pid"):
        file.unlink(missing_ok=True)
    return list(found)


def leftovers(layout: Layout) -> dict[str, int]:
    """Parts (and their process groups) that still run by their pid files. Ask when no supervisor runs."""
    groups = {file.stem: _live_group(file) for file in sorted(layout.run.glob("*.pid"))}
    return {name: group for name, group in groups.items() if group is not None}


def rotate(log: Path) -> None:
    """Move a log that grew over 10 MB aside (.1 is the newest of three) before the next start writes on."""
    if not log.exists() or log.stat().st_size < _LOG_LIMIT:
        return
    for number in range(_LOGS_KEPT, 1, -1):
        older = log.with_name(f"{log.name}.{number - 1}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number}"))
    log.replace(log.with_name(f"{log.name}.1"))


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, or "" when there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 64_000))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def _write_pid(file: Path, pid: int) -> None:
    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"pid": pid, "started": started}))
    partial.replace(file)


def _live_group(file: Path) -> int | None:
    """The process group a pid file names, if that very group still lives.

    A pid cannot be given out again while a group has its number, so a group whose leader is gone is the old
    one; a leader with another start time is somebody else's process.
    """
    try:
        noted = json.loads(file.read_text())
        pid, started = int(noted["pid"]), float(noted["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        leader = psutil.Process(pid)
        same = abs(leader.create_time() - started) < 2
    except psutil.NoSuchProcess:
        same = all(one.create_time() >= started - 2 for one in _members(pid))
    return pid if same and _group_lives(pid) else None


def _members(group: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getpgid(process.pid) == group:
                members.append(process)
    return members


def _group_lives(group: int) -> bool:
    """Whether a process of the group still runs (one that ended and waits for its parent does not count)."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    for process in _members(group):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False
