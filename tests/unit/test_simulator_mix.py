"""Bad input is mixed in exactly as often as asked, evenly, and each piece is wrong in exactly one way."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.errors import ConfigurationError, Reason, Rejected
from tollgate.simulator.mix import KINDS, Mix, conflicting, make_plan, malformed
from tollgate.simulator.options import Position
from tollgate.simulator.records import WorldSource
from tollgate.simulator.stream import Sent, Stream
from tollgate.simulator.world import World
from tollgate.transaction import MAX_BYTES, parse_transaction
from unit.simulator_listener import SMALL, Heard, Listener

WORLD = World(SMALL)
START = Position(3, 0)


def run(count: int, mix: Mix, seed: int = 0) -> tuple[Sent, Listener]:
    listener = Listener()
    return Stream(WorldSource(WORLD), listener, START, seed).run(count, mix=mix), listener


def verdict(record: Heard) -> str:
    """The reason the edge gives, or the transaction's id when it takes it."""
    if record.headers.get("content-type", b"").startswith(b"application/cloudevents+json"):
        event = msgspec.json.decode(record.value)
        parse_transaction(msgspec.json.encode(event["data"]))
        assert not event["type"].startswith("dev.tollgate.transaction")
        return Reason.UNKNOWN_EVENT_TYPE
    try:
        return parse_transaction(record.value).transaction_id
    except Rejected as error:
        return error.reason


def tally(listener: Listener) -> tuple[int, int, int, Counter[str]]:
    """Originals, duplicates, conflicts and reasons, found the way the ledger will find them."""
    first: dict[str, bytes] = {}
    duplicates = conflicts = 0
    reasons: Counter[str] = Counter()
    for record in listener.on("transactions"):
        said = verdict(record)
        if said in set(Reason):
            reasons[said] += 1
        elif said not in first:
            first[said] = parse_transaction(record.value).digest()
        elif first[said] == parse_transaction(record.value).digest():
            duplicates += 1
        else:
            conflicts += 1
    return len(first), duplicates, conflicts, reasons


@given(st.integers(1, 250), st.integers(0, 250), st.integers(0, 250), st.integers(0, 250), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_counts_add_up_exactly(count: int, duplicates: int, bad: int, conflicts: int, seed: int) -> None:
    twice = min(duplicates, count)
    mix = Mix(twice, min(bad, count), min(conflicts, count - twice))
    sent, listener = run(count, mix, seed)
    assert (sent.transactions, sent.duplicates, sent.malformed, sent.conflicts) == (
        count,
        mix.duplicates,
        mix.malformed,
        mix.conflicts,
    )
    assert tally(listener) == (count, mix.duplicates, mix.conflicts, sent.malformed_reasons)
    assert sent.records == len(listener.on("transactions"))


def test_the_run_of_the_issue_five_thousand_with_everything_mixed_in() -> None:
    sent, listener = run(5_000, Mix(duplicates=200, malformed=50, conflicts=20))
    assert tally(listener) == (5_000, 200, 20, sent.malformed_reasons)
    assert sent.malformed_reasons.total() == 50
    assert set(sent.malformed_reasons) == set(Reason) - {Reason.CONFLICT, Reason.EXHAUSTED}


@given(many=st.integers(0, 25), conflicts=st.integers(0, 25), seed=st.integers(0, 50))
def test_no_transaction_has_both_a_duplicate_and_a_conflict(many: int, conflicts: int, seed: int) -> None:
    """Else the number of dead letters would depend on which of the three is decided first."""
    plan = make_plan(Mix(many, 0, conflicts), 50, np.random.default_rng(seed))
    again = Counter(n for kind in (plan.duplicates, plan.conflicts) for originals in kind.values() for n in originals)
    assert sum(again.values()) == many + conflicts
    assert set(again.values()) <= {1}


def test_the_originals_are_those_of_a_run_without_bad_input() -> None:
    _, clean = run(300, Mix())
    _, mixed = run(300, Mix(30, 20, 10))
    ids = [r.body["transaction_id"] for r in clean.records if r.topic == "transactions"]
    seen = dict.fromkeys(v for r in mixed.on("transactions") if (v := verdict(r)) not in set(Reason))
    assert list(seen) == ids


def test_bad_input_is_spread_evenly_over_the_run() -> None:
    _, listener = run(1_000, Mix(malformed=100))
    good = 0
    tenths: Counter[int] = Counter()
    for record in listener.on("transactions"):
        if verdict(record) in set(Reason):
            tenths[(good - 1) // 100] += 1
        else:
            good += 1
    assert [tenths[i] for i in range(10)] == [10] * 10


def test_the_same_seed_mixes_alike_and_another_one_differently() -> None:
    mix = Mix(20, 20, 20)
    again = [[r.without_time() for r in run(500, mix, seed)[1].records] for seed in (1, 1, 2)]
    assert again[0] == again[1]
    assert again[0] != again[2]


def test_a_second_copy_waits_until_the_original_can_have_been_decided() -> None:
    _, listener = run(1_000, Mix(duplicates=50, conflicts=50))
    first: dict[object, int] = {}
    good = 0
    for record in listener.on("transactions"):
        key = record.body["transaction_id"]
        if key not in first:
            first[key] = good = good + 1
        elif good < 1_000:
            assert 20 <= good - first[key] < 200


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_each_kind_is_refused_for_the_reason_it_announces(kind: int) -> None:
    body = next(WorldSource(WORLD).entries(START)).body
    bad = malformed(kind, body, "bad-1")
    assert verdict(Heard("transactions", "c-1", bad.value, bad.headers, 0.0)) == bad.reason
    assert (len(bad.value) > MAX_BYTES) == (bad.reason is Reason.OVERSIZE)


@given(st.integers(1, 10**8))
def test_a_conflict_is_valid_and_differs_in_the_amount_only(amount: int) -> None:
    body = msgspec.json.encode(
        {**msgspec.json.decode(next(WorldSource(WORLD).entries(START)).body), "amount_minor": amount}
    )
    one, other = parse_transaction(body), parse_transaction(conflicting(body))
    assert one.amount_minor != other.amount_minor
    assert msgspec.structs.replace(other, amount_minor=amount) == one


def test_more_bad_input_than_transactions_or_an_endless_run_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 11"):
        run(10, Mix(duplicates=11))
    with pytest.raises(ConfigurationError, match="6 duplicates and 5 conflicts"):
        run(10, Mix(duplicates=6, conflicts=5))
    with pytest.raises(ConfigurationError, match="endless"):
        Stream(WorldSource(WORLD), Listener(), START).run(None, mix=Mix(malformed=1))
    with pytest.raises(ConfigurationError, match="conflicts is -1"):
        Mix(conflicts=-1)


def test_a_run_without_bad_input_plans_nothing() -> None:
    plan = make_plan(Mix(), 10, np.random.default_rng(0))
    assert not plan.malformed
    assert not plan.duplicates
    assert not plan.conflicts
