"""The supervisor, with real processes: order, readiness, restarts, and no process left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tollgate.local.layout import Layout
from tollgate.local.lock import AlreadyRunning, running_pid, stop_running
from tollgate.local.part import Part, PartFailed, State
from tollgate.local.process import end_leftovers, leftovers, rotate
from tollgate.local.supervisor import Supervisor, read_state

SERVE = "import pathlib,sys,time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "a home", 1_024)
    layout.create()
    return layout


def part(
    layout: Layout,
    name: str = "server",
    code: str = SERVE,
    depends_on: tuple[str, ...] = (),
    ready_timeout: float = 20,
    grace: float = 5,
) -> Part:
    """A part that is ready when its program has made the file it is given."""
    file = layout.run / f"{name}.made"

    def ready() -> str | None:
        return None if file.exists() else "its file is missing"

    return Part(
        name=name,
        command=[sys.executable, "-c", code, str(file)],
        ready=ready,
        depends_on=depends_on,
        ready_timeout=ready_timeout,
        grace=grace,
    )


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_of(supervisor: Supervisor, name: str = "server") -> int:
    pid = supervisor.status()[name].pid
    assert pid is not None
    return pid


def test_a_part_starts_when_what_it_needs_is_ready_and_stops_before_it(layout: Layout) -> None:
    order = layout.run / "order"
    slow = (
        "import pathlib,signal,sys,time\n"
        "def end(*_):\n"
        f"    with open({str(order)!r}, 'a') as out: out.write(sys.argv[1].split('/')[-1] + ' ')\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "time.sleep(0.3); pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(600)\n"
    )
    with Supervisor(layout) as supervisor:
        supervisor.start(part(layout, "second", slow, depends_on=("first",)), part(layout, "first", slow))
        until(lambda: supervisor.status()["second"].waiting_for == "first")
        assert supervisor.status()["second"].state is State.PENDING
        supervisor.wait_ready(timeout=20)
        first, second = supervisor.status()["first"], supervisor.status()["second"]
        assert first.started_at is not None
        assert second.started_at is not None
        assert first.seconds_to_ready is not None
        assert second.started_at >= first.started_at + 0.3
    assert order.read_text().split() == ["second.made", "first.made"]


def test_a_killed_part_comes_back_and_says_why_it_ended(layout: Layout) -> None:
    with Supervisor(layout) as supervisor:
        supervisor.start(part(layout))
        supervisor.wait_ready(timeout=20)
        first = pid_of(supervisor)
        os.kill(first, signal.SIGKILL)
        until(lambda: supervisor.status()["server"].restarts == 1)
        supervisor.wait_ready(timeout=20)
        status = supervisor.status()["server"]
        assert status.last_exit == "SIGKILL"
        assert status.pid != first
        assert not runs(first)


def test_each_restart_waits_longer(layout: Layout) -> None:
    dies = "import pathlib,sys,time; pathlib.Path(sys.argv[1]).touch(); time.sleep(0.3); sys.exit(3)"
    with Supervisor(layout) as supervisor:
        supervisor.start(part(layout, code=dies))
        waits: list[float] = []
        for number in (1, 2, 3):
            until(lambda number=number: supervisor.status()["server"].restarts == number)
            begin = time.monotonic()
            until(lambda: supervisor.status()["server"].state is not State.RESTARTING)
            waits.append(time.monotonic() - begin)
        assert supervisor.status()["server"].last_exit == "exit code 3"
    assert all(waited > 0.8 * planned for waited, planned in zip(waits, (0.2, 0.4, 0.8), strict=True))


def test_what_a_part_started_is_gone_before_the_part_starts_again(layout: Layout) -> None:
    children = layout.run / "children"
    parent = (
        "import pathlib,subprocess,sys,time\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"with open({str(children)!r}, 'a') as out: out.write(f'{{child.pid}}\\n')\n"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(600)\n"
    )
    with Supervisor(layout) as supervisor:
        supervisor.start(part(layout, code=parent))
        supervisor.wait_ready(timeout=20)
        os.kill(pid_of(supervisor), signal.SIGKILL)
        until(lambda: len(children.read_text().split()) == 2)
        first, second = (int(text) for text in children.read_text().split())
        assert not runs(first)
        assert runs(second)
    assert not runs(second)


def test_a_part_that_dies_at_its_first_starts_is_an_error_with_the_end_of_its_log(layout: Layout) -> None:
    with Supervisor(layout) as supervisor:
        supervisor.start(part(layout, code="import sys; print('no such table: tiles'); sys.exit(7)"))
        with pytest.raises(PartFailed, match=r"server is not ready: exit code 7(.|\n)*no such table: tiles"):
            supervisor.wait_ready(timeout=20)
        assert supervisor.status()["server"].state is State.FAILED


def test_a_part_that_never_answers_is_an_error_with_the_probes_words(layout: Layout) -> None:
    with Supervisor(layout) as supervisor:
        supervisor.start(part(layout, code="import time; time.sleep(600)", ready_timeout=0.5))
        with pytest.raises(PartFailed, match="its file is missing"):
            supervisor.wait_ready(timeout=20)


def test_a_command_that_does_not_exist_is_named(layout: Layout) -> None:
    missing = Part(name="server", command=["/nowhere/envoy"], ready=lambda: None if False else "not yet")
    with Supervisor(layout) as supervisor:
        supervisor.start(missing)
        with pytest.raises(PartFailed, match="cannot start /nowhere/envoy: No such file"):
            supervisor.wait_ready(timeout=20)


def test_a_part_that_ignores_the_signal_is_killed_after_its_grace(layout: Layout) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVE
    with Supervisor(layout) as supervisor:
        supervisor.start(part(layout, code=deaf, grace=0.5))
        supervisor.wait_ready(timeout=20)
        pid = pid_of(supervisor)
        begin = time.monotonic()
        supervisor.stop("server")
        assert 0.4 < time.monotonic() - begin < 5
        assert not runs(pid)


def test_a_second_supervisor_is_refused_with_what_to_do(layout: Layout) -> None:
    with Supervisor(layout):
        assert running_pid(layout) == os.getpid()
        with pytest.raises(AlreadyRunning, match=rf"pid {os.getpid()}.*tollgate status.*tollgate down"):
            Supervisor(layout).__enter__()
    assert running_pid(layout) is None


def test_the_state_is_published_for_others(layout: Layout) -> None:
    with Supervisor(layout) as supervisor:
        supervisor.start(part(layout))
        supervisor.wait_ready(timeout=20)
        state = read_state(layout)
        assert state["pid"] == os.getpid()
        assert state["parts"]["server"]["state"] == "ready"  # type: ignore[index]
    assert read_state(layout)["parts"]["server"]["state"] == "stopped"  # type: ignore[index]


UP = """
import signal, sys, threading
from pathlib import Path
from tollgate.local.layout import Layout
from tollgate.local.part import Part
from tollgate.local.supervisor import Supervisor
layout = Layout(Path(sys.argv[1]), 1024)
file = layout.run / "made"
parent = f'''
import pathlib, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"])
pathlib.Path({str(file)!r}).write_text(str(child.pid))
time.sleep(600)
'''
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
with Supervisor(layout) as supervisor:
    supervisor.start(Part(name="server", command=[sys.executable, "-c", parent], grace=0.5,
                          ready=lambda: None if file.exists() and file.read_text() else "no"))
    supervisor.wait_ready()
    print(supervisor.status()["server"].pid, file.read_text(), flush=True)
    stop.wait()
"""


def start_up(layout: Layout) -> tuple[subprocess.Popen[str], list[int]]:
    """A supervisor in a process of its own; the pids of its part and of the part's child."""
    up = subprocess.Popen([sys.executable, "-c", UP, str(layout.home)], stdout=subprocess.PIPE, text=True)
    assert up.stdout is not None
    with up.stdout:
        return up, [int(text) for text in up.stdout.readline().split()]


def test_nothing_outlives_a_killed_supervisor_not_even_a_deaf_parts_child(layout: Layout) -> None:
    up, pids = start_up(layout)
    assert len(pids) == 2
    assert leftovers(layout) == {"server": pids[0]}
    up.kill()
    up.wait()
    until(lambda: not any(runs(pid) for pid in pids), seconds=25)
    with Supervisor(layout) as supervisor:  # waits until the old run is cleaned up
        assert supervisor.leftovers == []


def test_down_stops_a_supervisor_from_outside(layout: Layout) -> None:
    assert stop_running(layout) is False
    up, pids = start_up(layout)
    assert stop_running(layout, timeout=20) is True
    assert up.wait(10) == 0
    assert not any(runs(pid) for pid in pids)
    assert list(layout.run.glob("*.pid")) == []


def test_leftovers_are_ended_but_never_a_stranger_with_the_same_pid(layout: Layout) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        file = layout.run / "server.pid"
        file.write_text(json.dumps({"pid": process.pid, "started": time.time() - 3_600}))
        assert end_leftovers(layout) == []
        assert process.poll() is None
        file.write_text(json.dumps({"pid": process.pid, "started": psutil.Process(process.pid).create_time()}))
        assert end_leftovers(layout) == ["server"]
        assert process.wait(5) == -signal.SIGTERM
        assert not file.exists()


def test_an_unreadable_pid_file_ends_nothing(layout: Layout) -> None:
    (layout.run / "server.pid").write_text("{")
    assert end_leftovers(layout) == []


def test_a_log_is_appended_to_and_moved_aside_when_it_is_big(layout: Layout) -> None:
    log = layout.log("server")
    for _ in range(2):
        with Supervisor(layout) as supervisor:
            supervisor.start(part(layout))
            supervisor.wait_ready(timeout=20)
    assert log.read_text().count("start server") == 2
    for text in "abcde":
        log.write_text(text * 10_000_000)
        rotate(log)
    kept = {file.name: file.read_text()[:1] for file in layout.logs.glob("server*")}
    assert kept == {"server.log.1": "e", "server.log.2": "d", "server.log.3": "c"}
