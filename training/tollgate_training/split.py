"""Which days a model learns from and which it is measured on: the Fraud Detection Handbook's protocol.

    ... | train_days | valid_days | delay_days | test_days |  end of the labelled history

In: `History` and `Protocol`. Out: `Split`, row numbers. Nothing is learned from a label that was not known when the
test days began; the delay in between is what it costs to wait for labels. The validation days stop the training and
calibrate it. Next: `tollgate_training.train` and `tollgate_training.evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from tollgate.errors import ConfigurationError
from tollgate.feature_matrix import Ints
from tollgate.tiles import DAY
from tollgate_training.history import NEVER, US, History


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """The settings of the split, in days. Raises `ConfigurationError` for a part without a day."""

    train_days: int = 30
    """At most so many; a shorter history trains on what there is."""
    valid_days: int = 7
    delay_days: int = 7
    """How long a label takes."""
    test_days: int = 7
    drop_known: bool = True
    """Measure without the cards that were known as compromised on the day (the Handbook does)."""

    def __post_init__(self) -> None:
        for each in fields(self):
            least = 0 if each.name == "delay_days" else 1
            if getattr(self, each.name) < least and each.name != "drop_known":
                raise ConfigurationError(f"{each.name} is {getattr(self, each.name)}: give {least} or more")


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers of the history, ascending, int64."""

    train: Ints
    valid: Ints
    test: Ints


def split(history: History, protocol: Protocol) -> Split:
    """Cut the history. Raises `ConfigurationError` when a part has no transaction or not both kinds in it."""
    labelled = history.labelled_us != NEVER
    day = history.day
    end = int(day[labelled].max(initial=0)) + 1
    test_from = end - protocol.test_days
    valid_to = test_from - protocol.delay_days
    train_to = valid_to - protocol.valid_days
    train_from = max(train_to - protocol.train_days, int(day[0]))
    known = labelled & (history.labelled_us <= test_from * DAY * US)
    test = labelled & (day >= test_from) & (day < end)
    if protocol.drop_known:
        test &= ~_known_compromised(history, train_from)
    parts = {
        "train_days": known & (day >= train_from) & (day < train_to),
        "valid_days": known & (day >= train_to) & (day < valid_to),
        "test_days": test,
    }
    for name, part in parts.items():
        frauds, rows = int(history.is_fraud[part].sum()), int(part.sum())
        if frauds in (0, rows):
            raise ConfigurationError(
                f"{name}: {rows} labelled transactions with {frauds} frauds there, both kinds are needed; the history "
                f"has {end - int(day[0])} days with labels: give a longer one, or fewer days to each part"
            )
    return Split(*(np.flatnonzero(part) for part in parts.values()))


def _known_compromised(history: History, since_day: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """True where, at the start of its day, the customer had a fraud known that happened on `since_day` or later."""
    first_known = np.full(int(history.customer.max()) + 1, NEVER)
    frauds = np.flatnonzero(history.is_fraud & (history.day >= since_day))
    np.minimum.at(first_known, history.customer[frauds], history.labelled_us[frauds])
    compromised: np.ndarray[tuple[int], np.dtype[np.bool_]] = first_known[history.customer] <= history.day * DAY * US
    return compromised
