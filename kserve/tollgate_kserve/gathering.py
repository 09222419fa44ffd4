"""One thread that answers what waits together: adaptive micro-batching without a wait.

In: items from the event loop. Out: each item's own result or error. An idle thread takes the first item at once;
what arrives while it works gathers and is its next batch. So a quiet server adds no delay, and a busy one pays the
hand-over between threads, the round trip to Postgres and XGBoost's fixed cost once a batch. Next: `serving`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from tollgate.errors import Retryable

In = TypeVar("In")
Out = TypeVar("Out")


class Gathering(Generic[In, Out]):
    """Runs `work(items)` on its thread; `work` gives a result or an exception for each item."""

    def __init__(
        self, name: str, work: Callable[[Sequence[In]], Sequence[Out | Exception]], *, at_once: int, most: int
    ) -> None:
        """Batches have at most `at_once` items; with `most` under way, overload is answered at once."""
        self._work = work
        self._at_once = at_once
        self._most = most
        self._under_way = 0
        self._waiting: SimpleQueue[tuple[In, asyncio.Future[Out]]] = SimpleQueue()
        # A daemon: the server stops when its requests are answered, not when this thread finds out.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def submit(self, item: In) -> Out:
        """This item's result. Raises its exception; `Retryable` when too many are under way already."""
        if self._under_way >= self._most:
            raise Retryable(f"busy: {self._under_way} requests are under way; try again")
        future: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        self._under_way += 1
        try:
            self._waiting.put((item, future))
            return await future
        finally:
            self._under_way -= 1

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            with suppress(Empty):
                while len(batch) < self._at_once:
                    batch.append(self._waiting.get_nowait())
            batch = [(item, future) for item, future in batch if not future.cancelled()]
            if not batch:
                continue
            futures = [future for _, future in batch]
            results = self._results([item for item, _ in batch])
            with suppress(RuntimeError):  # the loop has ended, so nobody waits any more
                futures[0].get_loop().call_soon_threadsafe(_settle, futures, results)

    def _results(self, items: list[In]) -> Sequence[Out | Exception]:
        """Never raises: trouble is the result of the items it concerns."""
        try:
            return self._work(items)
        except Retryable as error:
            return [error] * len(items)
        except Exception as error:
            if len(items) == 1:
                return [error]
            # One item spoils the batch: each on its own, so that only that one fails.
            return [result for item in items for result in self._results([item])]


def _settle(futures: list[asyncio.Future[Out]], results: Sequence[Out | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():  # who asked went away
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
