"""The first moments of a part's process: its own session, the right user, and death with the supervisor.

In: `python child.py PARENT UID GID COMMAND...`, run by `tollgate.local.process`. Out: it becomes COMMAND.
It is run as a file and imports only the standard library, so that it starts in milliseconds and for any user.
Linux forgets PR_SET_PDEATHSIG when the user changes, therefore the order below.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Never returns: replaces this process by the command."""
    parent, uid, gid = (int(text) for text in arguments[:3])
    command = arguments[3:]
    os.setsid()
    if uid != os.getuid():
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # the supervisor died in between, and the signal with it
        sys.exit("the supervisor is gone")
    try:
        os.execvp(command[0], command)  # noqa: S606 - a fixed command line, no shell
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
