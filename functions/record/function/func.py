"""record: a decision enters the ledger, once for each transaction.

In: `dev.tollgate.transaction.decided` from the Broker. Out: `dev.tollgate.transaction.recorded` with the decision as
the ledger holds it, which the KafkaSink writes to topic `decisions`. Delivered again, the stored decision is the
answer again, byte for byte; another body under the same id is a conflict (dead letter).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tollgate.decision import Decided
from tollgate.errors import Reason, Rejected
from tollgate.events import DECIDED, RECORDED, SOURCE_RECORD, CloudEvent
from tollgate.settings import Settings
from tollgate.store import ledger
from tollgate.transaction import check_moment, parse_transaction
from tollgate_functions.answer import answer
from tollgate_functions.incoming import carried, received
from tollgate_functions.lanes import Lanes
from tollgate_functions.metrics import stage


def new() -> Function:
    """The function, its settings read. Raises `ConfigurationError` naming what is missing."""
    return Function(Settings.read("database_url"))


class Function:
    """Served by func-python, which calls `start` once, then `handle` for each event."""

    def __init__(self, settings: Settings) -> None:
        self._lanes: Lanes[Decided, ledger.Recorded] = Lanes(
            settings.database_url.reveal(), "record", ledger.record_many
        )

    def start(self, cfg: Mapping[str, str]) -> None:
        """Nothing to do: connections are opened when they are needed."""

    def stop(self) -> None:
        """Commit what is under way and close the connections."""
        self._lanes.close()

    def alive(self) -> tuple[bool, str]:
        """The process answers."""
        return True, "alive"

    def ready(self) -> tuple[bool, str]:
        """Always: while Postgres is away events are answered with 503, one by one."""
        return True, "ready"

    async def handle(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one decided event with the recorded event, or with why not."""
        await answer(send.http, self._record(scope))

    async def _record(self, scope: dict[str, Any]) -> CloudEvent:
        event = received(scope["event"])
        if event.type != DECIDED:
            raise Rejected(Reason.UNKNOWN_EVENT_TYPE, f"record handles {DECIDED} only")
        with stage("record"):
            recorded = await self._lanes.submit(_decided(event.data))
        decision = recorded.decision
        return CloudEvent(
            id=decision.transaction_id,
            source=SOURCE_RECORD,
            type=RECORDED,
            subject=decision.transaction_id,
            time=decision.decided_at.isoformat(),
            datacontenttype="application/json",
            extensions=carried(event, decision.transaction_id),
            data=msgspec.json.encode(decision),
        )


def _decided(body: bytes) -> Decided:
    """Anybody can post to the Broker: what enters the ledger is checked as at the edge."""
    try:
        decided = msgspec.json.decode(body, type=Decided)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        wrong = isinstance(error, msgspec.ValidationError)
        raise Rejected(Reason.INVALID_FIELD if wrong else Reason.MALFORMED_JSON, f"not a decision: {error}") from None
    if b"\\u0000" in body:
        raise Rejected(Reason.INVALID_FIELD, "a text holds the character NUL, which Postgres cannot store")
    parse_transaction(msgspec.json.encode(decided.transaction))
    decision = decided.decision
    if decision.transaction_id != decided.transaction.transaction_id:
        raise Rejected(Reason.INVALID_FIELD, "decision.transaction_id is not that of the transaction beside it")
    if not 0.0 <= decision.probability <= 1.0:
        raise Rejected(Reason.INVALID_FIELD, "decision.probability: expected a number from 0 to 1")
    for name in ("requested_at", "decided_at", "features_as_of"):
        moment = getattr(decision, name)
        if moment is not None:
            check_moment(name, moment)
    return decided
