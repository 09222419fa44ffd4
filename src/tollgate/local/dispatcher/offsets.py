"""Which offset may be committed: the lowest that is not done yet, whatever order the events finish in. Pure.

In: what `intake` fetched and what finished. Out: `position`, which `intake` commits. An event that is not done keeps
the position at itself, so a crash at any moment redelivers it and everything after it: at least once.
"""

from __future__ import annotations

from collections import deque


class Tracker:
    """One partition, as long as it is assigned. Offsets arrive in rising order, gaps allowed."""

    __slots__ = ("_done", "_open", "committed", "next")

    def __init__(self, start: int) -> None:
        self._open: deque[int] = deque()
        self._done: set[int] = set()
        self.next = start
        """The lowest offset that was not fetched yet."""
        self.committed = start
        """The position that was last handed to Kafka; kept by `intake`."""

    def begin(self, offset: int) -> None:
        """An event was fetched and is under way."""
        self._advance(offset)
        self._open.append(offset)

    def skip(self, offset: int) -> None:
        """A record was fetched that needs no work (the filter does not match)."""
        self._advance(offset)

    def finish(self, offset: int) -> None:
        """An event that was begun is durable elsewhere."""
        self._done.add(offset)
        while self._open and self._open[0] in self._done:
            self._done.remove(self._open.popleft())

    @property
    def position(self) -> int:
        """The offset to resume from after a crash: everything below it is done."""
        return self._open[0] if self._open else self.next

    @property
    def unfinished(self) -> int:
        """How many events are under way."""
        return len(self._open) - len(self._done)

    def _advance(self, offset: int) -> None:
        if offset < self.next:
            raise ValueError(f"offset {offset} was fetched after {self.next - 1}")
        self.next = offset + 1
