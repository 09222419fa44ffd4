"""Commands that run once and end (backfill, training, the storage initializer), with their progress passed on.

In: a command. Out: its stdout; every line it says on stderr goes to its log and to the stage that runs it.
An interrupt ends it with its whole group.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from tollgate.errors import TollgateError
from tollgate.local import child
from tollgate.local.layout import Layout
from tollgate.local.process import environment, kill_group, tail
from tollgate.local.stages import Reporter

_STOP_CHECK_S = 0.2
_LOG_PREFIX = re.compile(r"^\d{4}-\d\d-\d\d \S+ [A-Z]+ [\w.]+: ")


def run(
    layout: Layout,
    name: str,
    command: Sequence[str],
    env: Mapping[str, str],
    report: Reporter,
    stop: threading.Event,
) -> str:
    """Run it to its end and give its stdout. Raises `TollgateError` with the end of its log when it fails."""
    log = layout.log(name)
    starter = [sys.executable, "-I", "-S", child.__file__, str(os.getpid()), str(os.getuid()), str(os.getgid())]
    with log.open("a", encoding="utf-8") as out:
        process = subprocess.Popen(
            [*starter, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment(layout, env),
            cwd=layout.home,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.append(process.stdout.read()), daemon=True)  # type: ignore[union-attr]
        reader.start()
        watcher = threading.Thread(target=_end_on, args=(stop, process), daemon=True)
        watcher.start()
        for line in process.stderr:
            out.write(line)
            out.flush()
            if text := _LOG_PREFIX.sub("", line).strip():
                report(text[:160])
        code = process.wait()
        reader.join()
        kill_group(process.pid)
    if stop.is_set():
        raise TollgateError(f"{name} was interrupted")
    if code != 0:
        raise TollgateError(f"{name} failed with exit code {code}. Its log ({log}) ends with:\n{tail(log)}")
    return said[0]


def _end_on(stop: threading.Event, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        if stop.wait(_STOP_CHECK_S):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            return
