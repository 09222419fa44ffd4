"""What flows, kept for the page: a `Watch` that is there as soon as Kafka is, the ring, the last flagged and dead.

In: Kafka's address. Out: `Flow`, from which `state` makes its document. `Watch` reconnects by itself once it stands;
before that (Kafka or its topics not there yet) `keep` tries again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, deque

from tollgate.dead_letters import DeadLetter
from tollgate.decision import Decision, Model, Outcome
from tollgate.errors import Retryable
from tollgate.local.console.ring import Ring
from tollgate.local.watch import Snapshot, Watch

log = logging.getLogger(__name__)

FLAGGED = 12
DEAD = 6
_SERVING = 500
_RETRY_S = 2.0
_EMPTY = Snapshot({}, {}, 0.0, None, None, [], {}, None)


class Flow:
    """The flow since this process began; a `Listener` of its own `Watch`."""

    def __init__(self, bootstrap: str) -> None:
        self.ring = Ring()
        self.began_at = time.time()
        self._bootstrap = bootstrap
        self._lock = threading.Lock()
        self._flagged: deque[Decision] = deque(maxlen=FLAGGED)
        self._dead: deque[DeadLetter] = deque(maxlen=DEAD)
        self._serving: deque[tuple[Model, str]] = deque(maxlen=_SERVING)
        self._watch: Watch | None = None
        self._trouble = "Kafka is not there yet"

    async def keep(self) -> None:
        """Begin to watch, as often as it takes. Returns once the watch stands."""
        while self._watch is None:
            try:
                self._watch = await asyncio.to_thread(Watch, self._bootstrap, self)
            except Retryable as error:
                self._trouble = str(error)
                log.info("not watching yet: %s", error)
                await asyncio.sleep(_RETRY_S)

    def stop(self) -> None:
        """End the watch's threads."""
        if self._watch is not None:
            self._watch.stop()

    def decided(self, decision: Decision) -> None:
        """See `Listener`."""
        self.ring.decided(decision.outcome, decision.latency_ms)
        with self._lock:
            self._serving.append((decision.model, decision.policy_version))
            known = any(each.transaction_id == decision.transaction_id for each in self._flagged)
            if decision.outcome is not Outcome.APPROVE and not known:  # delivery is at least once
                self._flagged.append(decision)

    def dead(self, letter: DeadLetter) -> None:
        """See `Listener`."""
        self.ring.dead()
        with self._lock:
            self._dead.append(letter)

    def snapshot(self) -> Snapshot:
        """The sums; before the watch stands, an empty one."""
        return self._watch.snapshot() if self._watch is not None else _EMPTY

    @property
    def trouble(self) -> str | None:
        """Why nothing can be seen at the moment, if so."""
        return self._trouble if self._watch is None else self._watch.snapshot().trouble

    def flagged(self) -> list[Decision]:
        """Reviewed and declined, newest first."""
        with self._lock:
            return list(reversed(self._flagged))

    def dead_letters(self) -> list[DeadLetter]:
        """Newest first."""
        with self._lock:
            return list(reversed(self._dead))

    def serving(self) -> list[tuple[Model, float]]:
        """The model revisions behind the last 500 decisions with their shares, the largest first."""
        with self._lock:
            counts = Counter(model for model, _ in self._serving)
        return [(model, count / counts.total()) for model, count in counts.most_common()]

    def policy_version(self) -> str | None:
        """The policy behind the last decision."""
        with self._lock:
            return self._serving[-1][1] if self._serving else None
