"""label: what a transaction turned out to be enters the store.

In: a KafkaSource's event of stream `labels` (chargebacks, analysts' verdicts). Out: the label in Postgres and
`dev.tollgate.transaction.labelled` with the verdict that stands. Delivered again, nothing changes; of two verdicts of
one source the later stands, whatever order they come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tollgate.errors import Reason, Rejected
from tollgate.events import KAFKA_EVENT, LABELLED, SOURCE_LABEL, CloudEvent
from tollgate.settings import Settings
from tollgate.store import labels
from tollgate.transaction import Label, parse_label
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
        self._lanes: Lanes[Label, Label] = Lanes(settings.database_url.reveal(), "label", labels.write_many)

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
        """Answer one label event with the labelled event, or with why not."""
        await answer(send.http, self._label(scope))

    async def _label(self, scope: dict[str, Any]) -> CloudEvent:
        event = received(scope["event"])
        if event.type != KAFKA_EVENT or event.extensions.get("stream") != "labels":
            raise Rejected(Reason.UNKNOWN_EVENT_TYPE, "label handles the stream of labels only")
        label = parse_label(event.data)
        with stage("label"):
            standing = await self._lanes.submit(label)
        return CloudEvent(
            id=f"{standing.transaction_id}/{standing.source}",
            source=SOURCE_LABEL,
            type=LABELLED,
            subject=standing.transaction_id,
            time=standing.labelled_at.isoformat(),
            datacontenttype="application/json",
            extensions=carried(event, standing.transaction_id),
            data=msgspec.json.encode(standing),
        )
