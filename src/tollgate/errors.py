"""What can go wrong, in one small tree that decides what happens next.

In: whoever finds a problem raises one of these. Out: the edge (a function, the dispatcher, the command line)
turns `Retryable` into "try again" (503, back-off) and `Rejected` into "dead letter with a reason" (422).
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an event can never succeed; the closed list behind `tollgate_dead_letters_total{reason}`."""

    MALFORMED_JSON = "malformed_json"
    MISSING_FIELD = "missing_field"
    INVALID_FIELD = "invalid_field"
    CARD_NUMBER = "card_number"
    OVERSIZE = "oversize"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    CONFLICT = "conflict"
    EXHAUSTED = "exhausted"


class TollgateError(Exception):
    """The root: every error Tollgate raises on purpose. Its text says what was wrong and what to do."""


class Retryable(TollgateError):  # noqa: N818 - named after what to do with it
    """Temporary trouble (a database restarting, a model server loading): the same event may succeed later."""


class Rejected(TollgateError):  # noqa: N818 - named after what to do with it
    """A hopeless event: retrying cannot help. It goes to the dead letter with `reason` and `detail`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ConfigurationError(TollgateError):
    """A setting is missing or wrong; the text names the setting."""
