"""Ports for what a test starts: free now, and not given to anybody's outgoing connection meanwhile.

Asking the kernel for port 0 gives one of the ephemeral range, which the next connection of any process may take before
the test's own process listens on it. These are from below that range (Linux: 32768 and up).
"""

from __future__ import annotations

import random
import socket

from tollgate.local.layout import OFFSETS

_SINGLE = (10_000, 16_000)
_BASES = (24_000, 31_900)
_TRIES = 200
_random = random.Random()  # its own: a test that seeds `random` must not make two runs choose alike


def free_port() -> int:
    """A port nobody listens on at this moment."""
    for _ in range(_TRIES):
        port = _random.randrange(*_SINGLE)
        if _free(port):
            return port
    raise OSError(f"no free port from {_SINGLE[0]} to {_SINGLE[1]}")


def free_base() -> int:
    """A port base for a platform of its own: every port it may use is free at this moment."""
    for _ in range(_TRIES):
        base = _random.randrange(*_BASES, 50)
        if all(_free(base + offset) for offset in OFFSETS.values()):
            return base
    raise OSError(f"no free port base from {_BASES[0]} to {_BASES[1]}")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
