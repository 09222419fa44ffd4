"""A running embedded platform for tests: started with the real `tollgate up`, driven as a user would.

In: a home folder and a port base. Out: `RunningPlatform`: its addresses, the command line, streams with an account.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event

import msgspec

from tollgate.local import world
from tollgate.local.layout import Layout
from tollgate.local.lock import stop_running
from tollgate.local.purge import purge
from tollgate.local.summary import Offsets, Summary, account, wait_complete
from tollgate.local.supervisor import read_state
from tollgate.simulator.mix import Mix
from tollgate.simulator.options import Position
from tollgate.simulator.publisher import KafkaPublisher
from tollgate.simulator.records import WorldSource
from tollgate.simulator.run import Pace, simulate
from tollgate.simulator.stream import Sent
from tollgate.simulator.world import World

CHECKOUT = Path(__file__).resolve().parents[2]
SMALL = ("--days", "45", "--customers", "500", "--terminals", "1000")
"""A world that is made and learned in seconds."""


@dataclass(frozen=True)
class Run:
    """One stream that is under way or over: where it began, what was sent, where the topics were before."""

    start: Position
    sent: Sent
    before: Offsets


@dataclass(frozen=True)
class RunningPlatform:
    """The platform of one test session."""

    layout: Layout

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which the command line talks to this platform."""
        return {
            **os.environ,
            "TOLLGATE_HOME": str(self.layout.home),
            "TOLLGATE_PORT_BASE": str(self.layout.port_base),
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    def cli(self, *arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """`tollgate ARGUMENTS`, its stdout and stderr as text."""
        done = subprocess.run(
            [sys.executable, "-m", "tollgate.cli.main", *arguments],
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def parts(self) -> dict[str, dict[str, object]]:
        """What `tollgate status -o json` says, by part."""
        rows = json.loads(self.cli("status", "-o", "json", check=False).stdout)
        return {row["part"]: row for row in rows}

    def kill(self, part: str) -> int:
        """`kill -9` a part's process; its pid."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        return pid

    def pid(self, part: str) -> int:
        """A part's process, once it has one (waits while it is being started again)."""
        deadline = time.monotonic() + 30
        while (pid := read_state(self.layout)["parts"][part]["pid"]) is None:  # type: ignore[index,call-overload]
            assert time.monotonic() < deadline, f"{part} has no process"
            time.sleep(0.1)
        return int(pid)

    def wait_ready(self, seconds: float = 90) -> None:
        """Wait until every part is ready again."""
        deadline = time.monotonic() + seconds
        while (done := self.cli("status", check=False)).returncode != 0:
            assert time.monotonic() < deadline, f"not ready after {seconds} s:\n{done.stdout}{done.stderr}"
            time.sleep(0.5)

    def stream(self, count: int, rate: float, mix: Mix | None = None) -> Run:
        """Stream `count` transactions of this platform's world to the end, labels included."""
        history = world.need_history(self.layout)
        start = world.position(self.layout, history)
        before = Offsets.now(self.layout.kafka_bootstrap)
        options = world.stream_options(self.layout, history, Pace(count, rate, mix or Mix(), flush_labels=True))
        with KafkaPublisher(self.layout.kafka_bootstrap) as publisher:
            return Run(start, simulate(options, publisher, Event()), before)

    def ids(self, run: Run) -> list[str]:
        """The transaction ids a stream has sent."""
        settings = world.need_history(self.layout).settings
        entries = islice(WorldSource(World(settings)).entries(run.start), run.sent.transactions)
        return [msgspec.json.decode(entry.body)["transaction_id"] for entry in entries]

    def settle(self, run: Run, patience_s: float = 90.0) -> Summary:
        """Wait until every record of a stream is accounted for; the account, complete or not."""
        ids = self.ids(run)
        url = self.layout.database_url().reveal()
        return wait_complete(
            lambda: account(self.layout.kafka_bootstrap, url, ids, run.sent, run.before), patience_s=patience_s
        )


@contextmanager
def running(home: Path, port_base: int, size: Sequence[str] = SMALL) -> Iterator[RunningPlatform]:
    """Start a platform without a stream in `home`, with the checkout's downloads; stop and purge it at the end."""
    layout = Layout(home, port_base)
    stop_running(layout)
    purge(layout)
    home.mkdir(parents=True, exist_ok=True)
    shared = CHECKOUT / ".tollgate"
    for name in ("env", "jars"):
        (shared / name).mkdir(parents=True, exist_ok=True)
        if not (home / name).exists():
            (home / name).symlink_to(shared / name)
    platform = RunningPlatform(layout)
    done = subprocess.run(
        [sys.executable, "-m", "tollgate.cli.main", "up", "--no-stream", "--detach", *size],
        env=platform.environ,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    try:
        assert done.returncode == 0, f"tollgate up: {done.returncode}\n{done.stdout}\n{done.stderr}"
        yield platform
    finally:
        stop_running(layout)
        kept = os.environ.get("TOLLGATE_KEEP_LOGS")
        if kept:
            shutil.copytree(layout.logs, kept, dirs_exist_ok=True)
        purge(layout)
