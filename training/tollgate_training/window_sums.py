"""Window sums over sorted history: what tiles give online, computed offline for many transactions at once.

In: the events of one kind of entity and the transactions to look back from. Out: `WindowSums`, int64 and exact, for
any window. Each window is two binary searches into the events sorted by (entity, second); sums are differences of
prefix sums, the maximum comes from a sparse table, and a fraud counts from the second its label is known.
Next: `tollgate_training.dataset` assembles the features from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tollgate.feature_matrix import WindowSums
from tollgate.features import Window

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Frauds:
    """The labelled frauds, by position: whose, when (seconds), and known from when."""

    entity: Ints
    second: Ints
    known: Ints


class EntityHistory:
    """The events of all entities of one kind, sorted by entity and second.

    All arguments are [n]: entity numbers from 0, epoch seconds, minor units, the truth, and the second from which
    it is known. `position[i]` is where event i stands in the sorted order.
    """

    def __init__(
        self, entity: Ints, second: Ints, amount_minor: Ints, is_fraud: NDArray[np.bool_], known: Ints
    ) -> None:
        self._first = int(second.min())
        self._span = int(second.max()) - self._first + 2
        key = self._key(entity, second)
        order = np.argsort(key, kind="stable")
        self.position = np.empty(len(order), np.int64)
        self.position[order] = np.arange(len(order))
        self._entity, self._second, self._keys = entity[order], second[order], key[order]
        amount = amount_minor[order]
        self._sum = _prefix(amount)
        # Squares of a whole history may pass 2^63. The difference is right all the same: integers wrap around.
        self._sumsq = _prefix(amount * amount)
        self._largest = [amount]
        frauds = np.flatnonzero(is_fraud)
        self._frauds = _Frauds(entity[frauds], second[frauds], known[frauds])

    def sums(self, window: Window, at: Ints) -> WindowSums:
        """The sums over `window` for the events at sorted positions `at` (ascending), int64 [len(at)] each."""
        entity, second = self._entity[at], self._second[at]
        start, end = cast("tuple[Ints, Ints]", window.bounds(cast("Any", second)))  # works on integer arrays too
        start_key, end_key = self._key(entity, start), self._key(entity, end)
        low = np.searchsorted(self._keys, start_key)
        high = np.searchsorted(self._keys, end_key)
        return WindowSums(
            n=high - low,
            sum_minor=self._sum[high] - self._sum[low],
            sumsq_minor=self._sumsq[high] - self._sumsq[low],
            max_minor=self._max(low, high),
            frauds=self._known_frauds(self._keys[at], start_key, end_key),
        )

    def _key(self, entity: Ints, second: Ints) -> Ints:
        """Entity and second in one integer that sorts like the pair; seconds outside the history are its edges."""
        key: Ints = entity * self._span + (np.clip(second, self._first, self._first + self._span - 1) - self._first)
        return key

    def _max(self, low: Ints, high: Ints) -> Ints:
        """The largest amount in [low, high), 0 where empty: two overlapping spans of a power of two cover it."""
        length = high - low
        level = np.frexp(length.astype(np.float64))[1] - 1
        largest = np.zeros(len(low), np.int64)
        for k in range(int(level.max(initial=-1)) + 1):
            if len(self._largest) == k:
                below = self._largest[-1]
                self._largest.append(np.maximum(below[: -(1 << (k - 1))], below[1 << (k - 1) :]))
            here = np.flatnonzero(level == k)
            table = self._largest[k]
            largest[here] = np.maximum(table[low[here]], table[high[here] - (1 << k)])
        return largest

    def _known_frauds(self, now_key: Ints, start_key: Ints, end_key: Ints) -> Ints:
        """How many frauds of each window are known at its transaction.

        Turned around: the transactions that see a fraud (it is known, before the window's end, not before its
        start) stand next to each other, so each fraud adds 1 where they begin and takes it away where they end.
        """
        frauds = self._frauds
        fraud_key = self._key(frauds.entity, frauds.second)
        inside = np.searchsorted(end_key, fraud_key, side="right")
        known = np.searchsorted(now_key, self._key(frauds.entity, frauds.known))
        begin = np.maximum(inside, known)
        stop = np.maximum(begin, np.searchsorted(start_key, fraud_key, side="right"))
        size = len(now_key) + 1
        steps = np.bincount(begin, minlength=size) - np.bincount(stop, minlength=size)
        return np.cumsum(steps)[:-1].astype(np.int64)


def _prefix(values: Ints) -> Ints:
    out = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=out[1:])
    return out
