"""The training matrix: for every transaction, the features as they were known at its moment.

In: `History`, and which of its transactions to compute. Out: float64 [rows, F] in the order of the feature list,
equal to the bit to what the model server computes from tiles, because both call `tollgate.feature_matrix.assemble`
on equal integer sums. Rows are worked off in blocks, so memory is the matrix plus the sorted columns.
Next: `tollgate_training.train`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tollgate.feature_matrix import Floats, Ints, WindowSums, assemble
from tollgate.features import FEATURES, Feature, Window, windows
from tollgate.tiles import EntityKind
from tollgate_training.history import History
from tollgate_training.window_sums import EntityHistory

BLOCK = 1 << 17


class Dataset:
    """A history made ready for looking back from any of its transactions."""

    def __init__(self, history: History) -> None:
        self._amount, self._second = history.amount_minor, history.occurred_s
        shared = (self._second, self._amount, history.is_fraud, history.labelled_s)
        self._by_kind = {
            EntityKind.CUSTOMER: EntityHistory(history.customer, *shared),
            EntityKind.TERMINAL: EntityHistory(history.terminal, *shared),
        }

    def matrix(
        self,
        rows: Ints,
        features: tuple[Feature, ...] = FEATURES,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Floats:
        """The features of the history's transactions number `rows`, float64 [len(rows), F]; `progress(rows done)`."""
        matrix = np.empty((len(rows), len(features)), np.float64)
        for begin in range(0, len(rows), BLOCK):
            block = rows[begin : begin + BLOCK]
            sums = self._sums(block, windows(features))
            matrix[begin : begin + BLOCK] = assemble(self._amount[block], self._second[block], sums, features)
            progress(min(begin + BLOCK, len(rows)))
        return matrix

    def _sums(self, rows: Ints, wanted: tuple[Window, ...]) -> dict[Window, WindowSums]:
        sums = {}
        for kind, entities in self._by_kind.items():
            position = entities.position[rows]
            order = np.argsort(position)
            at = position[order]
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            for window in wanted:
                if window.entity == kind:
                    sums[window] = _take(entities.sums(window, at), back)
        return sums


def _take(sums: WindowSums, order: Ints) -> WindowSums:
    return WindowSums(
        sums.n[order], sums.sum_minor[order], sums.sumsq_minor[order], sums.max_minor[order], sums.frauds[order]
    )
