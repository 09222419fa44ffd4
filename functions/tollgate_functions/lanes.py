"""The way into Postgres: a few threads, each with its connection; what waits together is committed together.

In: items from concurrent handlers. Out: each item's own result. Items gather for some ms, and while every lane is
busy; a free lane takes them as one batch (one statement, one fsync). The decision is made by then: its latency does
not grow, and the CPU of a batch is nearly that of one item.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

from tollgate.errors import Rejected, Retryable
from tollgate.store.connection import Connection, connect, retryable

In = TypeVar("In")
Out = TypeVar("Out")

LANES = 2
AT_MOST = 128
"""Items in one transaction."""
GATHER_S = 0.01
"""How long the first of a batch waits for others."""


class Lanes(Generic[In, Out]):
    """Runs `work(connection, items)`, which commits (the connection is an autocommit one), and gives a result or a
    `Rejected` for each item."""

    def __init__(
        self,
        url: str,
        application: str,
        work: Callable[[Connection, Sequence[In]], Sequence[Out | Rejected]],
    ) -> None:
        self._threads = ThreadPoolExecutor(LANES, thread_name_prefix=application)
        self._idle = [_Lane(url, application, work) for _ in range(LANES)]
        self._waiting: deque[tuple[In, asyncio.Future[Out]]] = deque()
        self._gathering: asyncio.TimerHandle | None = None

    async def submit(self, item: In) -> Out:
        """This item's result, after it is committed. Raises its `Rejected`, or `Retryable` when Postgres is away."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Out] = loop.create_future()
        self._waiting.append((item, future))
        if self._gathering is None and self._idle:
            self._gathering = loop.call_later(GATHER_S, self._gathered)
        return await future

    def close(self) -> None:
        """Finish what runs, then close the connections."""
        self._threads.shutdown(wait=True)
        for lane in self._idle:
            lane.disconnect()

    def _gathered(self) -> None:
        self._gathering = None
        self._start()

    def _start(self) -> None:
        while self._waiting and self._idle:
            lane = self._idle.pop()
            batch = [self._waiting.popleft() for _ in range(min(AT_MOST, len(self._waiting)))]
            running = asyncio.get_running_loop().run_in_executor(self._threads, lane.run, [item for item, _ in batch])
            futures = [future for _, future in batch]
            running.add_done_callback(partial(self._settle, lane, futures))

    def _settle(
        self,
        lane: _Lane[In, Out],
        futures: list[asyncio.Future[Out]],
        done: asyncio.Future[list[Out | Exception]],
    ) -> None:
        self._idle.append(lane)
        for future, result in zip(futures, done.result(), strict=True):
            if future.done():  # its sender went away
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        if self._gathering is None:
            self._start()


class _Lane(Generic[In, Out]):
    """One connection, opened when first needed and again after trouble. Used by one thread at a time."""

    def __init__(
        self,
        url: str,
        application: str,
        work: Callable[[Connection, Sequence[In]], Sequence[Out | Rejected]],
    ) -> None:
        self._url = url
        self._application = application
        self._work = work
        self._connection: Connection | None = None

    def run(self, items: list[In]) -> list[Out | Exception]:
        """Never raises: trouble is the result of the items it concerns."""
        try:
            with retryable():
                if self._connection is None:
                    self._connection = connect(self._url, application=self._application)
                    self._connection.autocommit = True
                return list(self._work(self._connection, items))
        except Retryable as error:
            self.disconnect()
            return [error] * len(items)
        except Exception as error:
            self.disconnect()
            if len(items) == 1:
                return [error]
            # One item spoils the batch: each on its own, so that only that one fails.
            return [result for item in items for result in self.run([item])]

    def disconnect(self) -> None:
        """Close the connection, if any; what was not committed is undone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
