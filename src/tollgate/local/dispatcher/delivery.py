"""How hard to try: which answers are worth another attempt, how long to wait, when to give up. Pure.

In: the `delivery` of a Trigger, KafkaSource or Broker and a subscriber's HTTP status. Out: `Verdict` and seconds to
wait, followed by `courier`. The rules are Knative's: 2xx is done; 5xx, 404, 408, 409 and 429 (and no answer at all)
are retried; any other status goes to the dead-letter sink at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Literal

from tollgate.errors import ConfigurationError

_RETRIED = frozenset((404, 408, 409, 429))
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_UNITS = (86_400, 3_600, 60, 1)
_LONGEST_WAIT = 3_600.0


class Verdict(Enum):
    """What a status means for the event."""

    DELIVERED = "delivered"
    RETRY = "retry"
    HOPELESS = "hopeless"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery spec without its sink; durations in seconds, defaults are Knative's for Brokers."""

    retry: int = 10
    policy: Literal["exponential", "linear"] = "exponential"
    delay: float = 0.2
    timeout: float = 30.0
    retry_after_max: float = 60.0

    def wait(self, attempt: int, retry_after: float | None = None) -> float:
        """Seconds before retry number `attempt` (0 is the first); a Retry-After can only lengthen it."""
        factor = attempt + 1.0 if self.policy == "linear" else 2.0 ** min(attempt, 60)
        planned = min(self.delay * factor, _LONGEST_WAIT)
        return max(planned, min(retry_after or 0.0, self.retry_after_max))


def verdict(status: int) -> Verdict:
    """What an HTTP status means. Redirects are not followed and count as hopeless."""
    if 200 <= status < 300:
        return Verdict.DELIVERED
    if status >= 500 or status in _RETRIED:
        return Verdict.RETRY
    return Verdict.HOPELESS


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (a number or an HTTP date); None when absent or unreadable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


def parse_duration(name: str, text: object) -> float:
    """Seconds of an ISO 8601 duration (PT0.2S, PT1M, P1D). Raises `ConfigurationError`."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None or not any(found.groups()):
        raise ConfigurationError(f"{name}: {text!r} is not an ISO 8601 duration such as PT0.2S")
    return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part)
