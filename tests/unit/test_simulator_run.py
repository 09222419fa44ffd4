"""What the command line calls: a stream that goes on after a restart, in one world, one stream at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from tollgate.errors import ConfigurationError, Retryable
from tollgate.simulator.options import Drift, Position
from tollgate.simulator.run import Pace, ReplayOptions, SimulateOptions, replay, simulate
from tollgate.simulator.state import StreamState, drifts_from, load_state, only_one, save_state
from tollgate.simulator.stream import Sent
from tollgate.simulator.world import World
from tollgate.transaction import parse_transaction
from unit.simulator_listener import SMALL, Heard, Listener

START = Position(8, 0)
DOUBLED = Drift(Position(0, 0), amount_factor=2.0, terminal_share=0.0)


def options(path: Path | None, count: int, drift: Drift | None = None) -> SimulateOptions:
    return SimulateOptions(SMALL, START, path, drift, Pace(count))


def test_a_restart_goes_on_in_the_same_world(tmp_path: Path) -> None:
    whole, parts = Listener(), Listener()
    simulate(options(None, 300), whole)
    for count in (100, 0, 150, 50):
        sent = simulate(options(tmp_path / "state.json", count), parts)
    assert [r.without_time() for r in parts.records] == [r.without_time() for r in whole.records]
    state = load_state(tmp_path / "state.json", SMALL)
    assert state is not None
    assert state.position == sent.position


def test_after_a_crash_what_was_not_reported_comes_again_with_the_same_ids_and_bodies(tmp_path: Path) -> None:
    class Broken(Listener):
        def flush(self, timeout_s: float) -> bool:
            raise Retryable("Kafka is away")

    path, listener, broken = tmp_path / "state.json", Listener(), Broken()
    simulate(options(path, 30), listener)
    with pytest.raises(Retryable):
        simulate(options(path, 20), broken)
    again = Listener()
    simulate(options(path, 20), again)
    assert [r.without_time() for r in again.records] == [r.without_time() for r in broken.records]


def test_a_drift_is_remembered_so_that_labels_fit_their_transactions(tmp_path: Path) -> None:
    path, listener = tmp_path / "state.json", Listener()
    crowded = Drift(Position(0, 0), amount_factor=2.0, terminal_share=1.0, hot_terminals=1)
    simulate(options(path, 50), listener)
    simulate(options(path, 50, crowded), listener)
    simulate(options(path, 50, crowded), listener)
    simulate(options(path, 1_200), listener)
    sent = [parse_transaction(r.value) for r in listener.on("transactions")]
    plain = [row for d in range(8, 25) for row in World(SMALL).day(d).table().to_pylist()]
    assert len({t.terminal_id for t in sent[50:150]}) == 1
    for number, (transaction, row) in enumerate(zip(sent, plain, strict=False)):
        if 50 <= number < 150:
            assert transaction.amount_minor == 2 * row["amount_minor"]
        else:
            assert (transaction.terminal_id, transaction.amount_minor) == (row["terminal_id"], row["amount_minor"])
    where = {t.transaction_id: t.terminal_id for t in sent}
    labelled = [r.body for r in listener.on("labels") if r.key in where]
    assert len(labelled) > 150
    assert all(label["terminal_id"] == where[str(label["transaction_id"])] for label in labelled)


def test_another_drift_takes_the_place_of_the_one_before_and_the_same_one_goes_on() -> None:
    tripled = replace(DOUBLED, amount_factor=3.0)
    first = drifts_from((), Position(9, 1), DOUBLED)
    assert drifts_from(first, Position(9, 2), DOUBLED) == first == (replace(DOUBLED, start=Position(9, 1)),)
    second = drifts_from(first, Position(9, 2), tripled)
    assert second == (
        replace(DOUBLED, start=Position(9, 1), end=Position(9, 2)),
        replace(tripled, start=Position(9, 2)),
    )
    ended = drifts_from(second, Position(9, 3), None)
    assert ended == (second[0], replace(second[1], end=Position(9, 3)))
    assert drifts_from(ended, Position(9, 4), None) == ended


def test_labels_can_be_flushed_at_the_end() -> None:
    listener = Listener()
    flushing = SimulateOptions(SMALL, START, pace=Pace(40, flush_labels=True))
    sent = simulate(flushing, listener)
    assert sent.labels == len(listener.on("labels"))
    assert {r.key for r in listener.on("labels")} >= {
        parse_transaction(r.value).transaction_id for r in listener.on("transactions")
    }


def test_the_state_follows_while_the_stream_runs(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    seen: list[tuple[Position, Position]] = []

    def report(sent: Sent) -> None:
        state = load_state(path, SMALL)
        assert state is not None
        seen.append((sent.position, state.position))

    simulate(replace(options(path, 150), pace=Pace(150, rate=100)), Listener(), report=report)
    assert len(seen) == 2
    assert all(reported == saved for reported, saved in seen)


def test_a_second_stream_from_the_same_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with only_one(path), pytest.raises(ConfigurationError, match="another stream is running"):
        simulate(options(path, 1), Listener())
    assert simulate(options(path, 1), Listener()).transactions == 1


def test_the_state_of_another_world_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    simulate(options(path, 1), Listener())
    with pytest.raises(ConfigurationError, match=r"another world .seed 7, now 8"):
        simulate(replace(options(path, 1), settings=replace(SMALL, seed=8)), Listener())


def test_a_damaged_state_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text('{"position": 3}')
    with pytest.raises(ConfigurationError, match="remove it"):
        simulate(options(path, 1), Listener())


def test_saving_replaces_the_state_at_once(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for index in range(3):
        save_state(path, StreamState(SMALL, Position(1, index), (DOUBLED,)))
    assert load_state(path, SMALL) == StreamState(SMALL, Position(1, 2), (DOUBLED,))
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_a_stopped_run_is_continued(tmp_path: Path) -> None:
    path, stop = tmp_path / "state.json", Event()

    def stop_in_the_middle(heard: Heard) -> None:
        if len(listener.on("transactions")) == 10:
            stop.set()

    listener = Listener(stop_in_the_middle)
    assert simulate(options(path, 100), listener, stop).transactions == 10
    rest, whole = Listener(), Listener()
    simulate(options(path, 90), rest)
    simulate(options(None, 100), whole)
    together = [r.without_time() for r in [*listener.records, *rest.records]]
    assert together == [r.without_time() for r in whole.records]


def test_a_file_is_replayed_from_a_row_on(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    lines = [f"t{n},2024-01-0{n + 1}T00:00:00Z,c,m,100" for n in range(5)]
    file.write_text("\n".join(["transaction_id,occurred_at,customer_id,terminal_id,amount_minor", *lines]) + "\n")
    listener = Listener()
    sent = replay(ReplayOptions(file, first_row=2, pace=Pace(2)), listener)
    assert [r.body["transaction_id"] for r in listener.on("transactions")] == ["t2", "t3"]
    assert sent.position == Position(0, 4)
    assert replay(ReplayOptions(file, first_row=4, pace=Pace(10)), Listener()).transactions == 1
