"""What waits together is answered together, and each is answered for itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from tollgate.errors import Retryable
from tollgate_kserve.gathering import Gathering


class Work:
    """Squares numbers, remembers its batches, and can be held up; -1 breaks it, -2 says "away"."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        assert self.go.wait(10)
        if -1 in items:
            raise ZeroDivisionError
        if -2 in items:
            raise Retryable("away")
        return [ValueError(str(item)) if item == 0 else item * item for item in items]


def gathering(work: Work, at_once: int = 8, most: int = 100) -> Gathering[int, int]:
    return Gathering("test", work, at_once=at_once, most=most)


async def busy(work: Work, under: Gathering[int, int]) -> asyncio.Task[int]:
    """A task whose item the thread has taken and is held up with."""
    work.go.clear()
    first = asyncio.create_task(under.submit(1))
    while not work.batches:  # noqa: ASYNC110 - the other side is a thread
        await asyncio.sleep(0.001)
    return first


def test_an_idle_thread_takes_an_item_at_once_and_alone() -> None:
    async def run() -> None:
        work = Work()
        under = gathering(work)
        assert [await under.submit(n) for n in (2, 3)] == [4, 9]
        assert work.batches == [[2], [3]]

    asyncio.run(run())


def test_what_arrives_meanwhile_is_the_next_batch_up_to_its_size() -> None:
    async def run() -> None:
        work = Work()
        under = gathering(work, at_once=3)
        first = await busy(work, under)
        rest = [asyncio.create_task(under.submit(n)) for n in (2, 3, 4, 5)]
        await asyncio.sleep(0)
        work.go.set()
        assert await asyncio.gather(first, *rest) == [1, 4, 9, 16, 25]
        assert work.batches == [[1], [2, 3, 4], [5]]

    asyncio.run(run())


@pytest.mark.parametrize(("bad", "error"), [(0, ValueError), (-1, ZeroDivisionError)])
def test_one_bad_item_fails_alone(bad: int, error: type[Exception]) -> None:
    async def run() -> None:
        work = Work()
        under = gathering(work)
        first = await busy(work, under)
        rest = [asyncio.create_task(under.submit(n)) for n in (2, bad, 4)]
        await asyncio.sleep(0)
        work.go.set()
        done = await asyncio.gather(first, *rest, return_exceptions=True)
        assert [done[0], done[1], done[3]] == [1, 4, 16]
        assert isinstance(done[2], error)

    asyncio.run(run())


def test_temporary_trouble_is_everybodys_and_is_not_tried_again_here() -> None:
    async def run() -> None:
        work = Work()
        under = gathering(work)
        first = await busy(work, under)
        rest = [asyncio.create_task(under.submit(n)) for n in (2, -2)]
        await asyncio.sleep(0)
        work.go.set()
        assert await first == 1
        assert [type(each) for each in await asyncio.gather(*rest, return_exceptions=True)] == [Retryable, Retryable]
        assert work.batches == [[1], [2, -2]]

    asyncio.run(run())


def test_too_many_under_way_are_refused_at_once_and_later_ones_are_not() -> None:
    async def run() -> None:
        work = Work()
        under = gathering(work, most=2)
        first = await busy(work, under)
        second = asyncio.create_task(under.submit(2))
        await asyncio.sleep(0)
        with pytest.raises(Retryable, match="busy: 2 requests"):
            await under.submit(3)
        work.go.set()
        assert await asyncio.gather(first, second) == [1, 4]
        assert await under.submit(3) == 9

    asyncio.run(run())


def test_nobody_works_for_one_who_went_away() -> None:
    async def run() -> None:
        work = Work()
        under = gathering(work)
        first = await busy(work, under)
        gone = asyncio.create_task(under.submit(2))
        await asyncio.sleep(0)
        gone.cancel()
        stays = asyncio.create_task(under.submit(3))
        await asyncio.sleep(0)
        work.go.set()
        assert await asyncio.gather(first, stays) == [1, 9]
        assert work.batches == [[1], [3]]

    asyncio.run(run())
