"""Waits for the supervisor's death and then ends whatever parts it left.

In: `python -m tollgate.local.undertaker HOME`, with the read end of a pipe the supervisor holds as standard
input. Out: no process outlives the supervisor, not even a part's own children, which the kernel's
death signal does not reach. Started by `tollgate.local.supervisor`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from tollgate.local.layout import Layout
from tollgate.local.lock import AlreadyRunning, RunLock
from tollgate.local.process import end_leftovers


def main() -> None:
    """Block until standard input ends; then, unless a new supervisor took over already, end the leftovers."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the supervisor does, not before
    layout = Layout(Path(sys.argv[1]))
    os.read(sys.stdin.fileno(), 1)
    if not layout.run.is_dir():  # purged
        return
    with contextlib.suppress(AlreadyRunning), RunLock(layout, cleaning=True):
        end_leftovers(layout)


if __name__ == "__main__":
    main()
