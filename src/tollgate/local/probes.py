"""Questions that tell whether something is ready: each answers None, or what is missing.

In: ports and URLs. Out: probes for `Part.ready`; short time limits, because the supervisor asks often.
"""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

_TIMEOUT = 2.0


def tcp(port: int, host: str = "127.0.0.1") -> str | None:
    """Whether something accepts connections."""
    try:
        socket.create_connection((host, port), _TIMEOUT).close()
    except OSError as error:
        return f"port {port}: {error.strerror or error}"
    return None


def http(url: str) -> str | None:
    """Whether a GET answers 2xx."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy: it is local
    try:
        with opener.open(url, timeout=_TIMEOUT) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        return f"{url} answers {error.code}"
    except OSError as error:
        return f"{url}: {getattr(error, 'reason', error)}"
    return None
