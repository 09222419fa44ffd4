"""Bad input, mixed in on purpose: duplicates, conflicts and eight kinds of malformed records.

In: how many of each, over how many transactions. Out: a schedule (`Plan`) that says what to publish after which
transaction, evenly spread and seeded, so that what must come out at the other end is known exactly.
Next: `tollgate.simulator.stream`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tollgate.errors import ConfigurationError, Reason
from tollgate.transaction import MAX_BYTES

LAG = 200
"""A second copy follows its original within so many transactions (or at the run's end)."""
MIN_LAG = 20
"""... but not sooner than this: delivery is not ordered, and the original has to be decided first."""

Body = dict[str, Any]


@dataclass(frozen=True)
class Mix:
    """How many of each to mix into a run. Same id and body; nonsense; same id and another amount."""

    duplicates: int = 0
    malformed: int = 0
    conflicts: int = 0

    def __post_init__(self) -> None:
        for name in ("duplicates", "malformed", "conflicts"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: give 0 or more")


class Bad(NamedTuple):
    """One malformed record."""

    value: bytes
    headers: Mapping[str, bytes]
    reason: Reason


def _plain(change: Callable[[Body], object], reason: Reason) -> Callable[[Body], Bad]:
    def make(body: Body) -> Bad:
        change(body)
        return Bad(msgspec.json.encode(body), {}, reason)

    return make


def _unknown_event(body: Body) -> Bad:
    event = {
        "specversion": "1.0",
        "id": body["transaction_id"],
        "source": "/tollgate/simulator",
        "type": "dev.tollgate.simulator.unheard-of",
        "datacontenttype": "application/json",
        "data": body,
    }
    headers = {"content-type": b"application/cloudevents+json; charset=UTF-8"}
    return Bad(msgspec.json.encode(event), headers, Reason.UNKNOWN_EVENT_TYPE)


KINDS: tuple[Callable[[Body], Bad], ...] = (
    lambda body: Bad(msgspec.json.encode(body)[:-1], {}, Reason.MALFORMED_JSON),
    _plain(lambda body: body.pop("terminal_id"), Reason.MISSING_FIELD),
    _plain(lambda body: body.update(amount_minor="12.50"), Reason.INVALID_FIELD),
    _plain(lambda body: body.update(amount_minor=-body["amount_minor"]), Reason.INVALID_FIELD),
    # The card networks' published test number.
    _plain(lambda body: body.update(customer_id="4111111111111111"), Reason.CARD_NUMBER),
    # Spaces are good JSON: the size is all that is wrong with it.
    lambda body: Bad(msgspec.json.encode(body) + b" " * MAX_BYTES, {}, Reason.OVERSIZE),
    _plain(lambda body: body.update(currency="euro"), Reason.INVALID_FIELD),
    _unknown_event,
)
"""The kinds of malformed record, used in turn; each is wrong in exactly one way."""


@dataclass
class Plan:
    """What to do in a run, by the number of the transaction (from 0) after which to do it.

    `malformed`: the kinds to publish; `duplicates` and `conflicts`: numbers of the originals to send once more;
    `originals`: numbers of all the transactions that come again (their bodies must be kept until then).
    """

    malformed: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    duplicates: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    conflicts: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    originals: set[int] = field(default_factory=set)


def make_plan(mix: Mix, count: int | None, stream: np.random.Generator) -> Plan:
    """Spread `mix` over a run of `count` transactions.

    Each record's place is drawn from its own stretch of the run, so they are even and yet irregular.
    Raises `ConfigurationError` when there is something to mix in and no (or too small a) count.
    """
    plan = Plan()
    for name, many in (("duplicates", mix.duplicates), ("conflicts", mix.conflicts), ("malformed", mix.malformed)):
        if many and (count is None or many > count):
            raise ConfigurationError(
                f"{name} is {many}, over {'an endless run' if count is None else f'{count} transactions'}: "
                f"give a count of transactions, at least {many}"
            )
    if count is None:
        return plan
    if mix.duplicates + mix.conflicts > count:
        raise ConfigurationError(
            f"{mix.duplicates} duplicates and {mix.conflicts} conflicts, each of another transaction, "
            f"do not fit {count} transactions"
        )
    for number, place in enumerate(_places(mix.malformed, count, stream)):
        plan.malformed[place].append(number % len(KINDS))
    for many, again in ((mix.duplicates, plan.duplicates), (mix.conflicts, plan.conflicts)):
        for place in _places(many, count, stream):
            # Not one that has a second copy already: where its contradiction is decided first (delivery is not
            # ordered), the copy would be a conflict too, and nobody could say how many there must be.
            original = next(each % count for each in range(place, place + count) if each % count not in plan.originals)
            again[min(original + int(stream.integers(MIN_LAG, LAG)), count - 1)].append(original)
            plan.originals.add(original)
    return plan


def malformed(kind: int, body: bytes, transaction_id: str) -> Bad:
    """A malformed record of the kind `KINDS[kind]`, made of a good one's `body` under an id of its own."""
    return KINDS[kind]({**msgspec.json.decode(body), "transaction_id": transaction_id})


def conflicting(body: bytes) -> bytes:
    """The same transaction with another amount."""
    changed: Body = msgspec.json.decode(body)
    changed["amount_minor"] += 1 if changed["amount_minor"] < 100 else -1
    return msgspec.json.encode(changed)


def _places(many: int, count: int, stream: np.random.Generator) -> list[int]:
    """`many` distinct numbers below `count`, one in each of `many` equal stretches, in order."""
    edges = np.arange(many + 1) * count // max(many, 1)
    return [int(stream.integers(low, high)) for low, high in pairwise(edges)]
