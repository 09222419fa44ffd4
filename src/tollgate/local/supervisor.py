"""Keeps the parts running: starts them in order, probes them, restarts them, stops them.

In: `Part`s. Out: processes, log files, and run/state.json after every change. One thread a part: it starts the
process (Linux ties the child's death signal to that thread), waits for its probe, watches it, and starts it again
with a back-off when it ends. Next: `tollgate up` drives it, `tollgate status` reads what it publishes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from types import TracebackType

from tollgate.errors import TollgateError
from tollgate.local.layout import Layout
from tollgate.local.lock import RunLock
from tollgate.local.part import Part, PartFailed, State, Status
from tollgate.local.process import Process, end_leftovers, tail

_POLL = 0.1
_HEALTH_EVERY = 5.0
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 10.0
_HEALTHY_AGAIN = 60.0
"""Seconds of readiness after which the back-off starts from the beginning."""
_FIRST_STARTS = 3
"""How many starts in a row may fail before a part that never was ready is given up."""


class Supervisor:
    """`with Supervisor(layout) as supervisor:` takes the home's lock; leaving it stops every part."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.leftovers: list[str] = []
        """Parts of a killed earlier run that were ended at the start."""
        self._lock = RunLock(layout)
        self._watchers: dict[str, _Watcher] = {}
        self._changed = threading.Condition()
        self._started_at = time.time()
        self._undertaker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Supervisor:
        """Raises `AlreadyRunning` when this home has a supervisor."""
        self._lock.__enter__()
        self.leftovers = end_leftovers(self.layout)
        self._undertaker = subprocess.Popen(
            [sys.executable, "-m", "tollgate.local.undertaker", str(self.layout.home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._publish()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._undertaker is not None and self._undertaker.stdin is not None:
            self._undertaker.stdin.close()
            self._undertaker.wait()
        self._lock.__exit__(None, None, None)

    def start(self, *parts: Part) -> None:
        """Start parts (each once it can); returns at once. Raises ValueError for a name used before."""
        with self._changed:
            for part in parts:
                if part.name in self._watchers:
                    raise ValueError(f"part {part.name} was started before")
                self._watchers[part.name] = _Watcher(self, part)
        for part in parts:
            self._watchers[part.name].thread.start()

    def wait_ready(self, *names: str, timeout: float | None = None) -> None:
        """Wait until the named parts (default: all) are ready.

        Raises `PartFailed` with the reason and the end of the log as soon as one has failed, or for the first
        that is not ready after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            for name in names or tuple(self._watchers):
                status = self._watchers[name].status
                while status.state is not State.READY:
                    left = None if deadline is None else deadline - time.monotonic()
                    if status.state in (State.FAILED, State.STOPPED) or (left is not None and left <= 0):
                        raise PartFailed(self._explain(status))
                    self._changed.wait(left)

    def status(self) -> dict[str, Status]:
        """A copy of every part's status, in the order of starting."""
        with self._changed:
            return {name: dataclasses.replace(one.status) for name, one in self._watchers.items()}

    def stop(self, *names: str) -> None:
        """Stop the named parts (default: all), those that depend on others first, and forget them."""
        with self._changed:
            waiting = {name: self._watchers[name] for name in names or tuple(self._watchers)}
        while waiting:
            needed = {name for one in waiting.values() for name in one.part.depends_on}
            now = [one for name, one in waiting.items() if name not in needed] or list(waiting.values())
            for one in now:
                one.stopping.set()
            for one in now:
                if one.thread.ident is not None:
                    one.thread.join()
                del waiting[one.part.name]
        with self._changed:
            for name in names:
                del self._watchers[name]
        self._publish()

    def change(self, status: Status, **values: object) -> None:
        """Set fields of a status, tell those who wait, and publish."""
        with self._changed:
            if all(getattr(status, name) == value for name, value in values.items()):
                return
            for name, value in values.items():
                setattr(status, name, value)
            self._changed.notify_all()
            self._publish()

    def _publish(self) -> None:
        with self._changed:
            state = {
                "pid": os.getpid(),
                "port_base": self.layout.port_base,
                "started_at": self._started_at,
                "parts": {name: dataclasses.asdict(one.status) for name, one in self._watchers.items()},
            }
            partial = self.layout.state_file.with_suffix(".partial")
            with contextlib.suppress(OSError):  # a full disk must not stop the supervision itself
                partial.write_text(json.dumps(state))
                partial.replace(self.layout.state_file)

    def _explain(self, status: Status) -> str:
        log = self.layout.log(status.name)
        why = status.last_exit or status.waiting_for or f"it is {status.state}"
        lines = tail(log)
        return f"{status.name} is not ready: {why}. Its log ({log}) ends with:\n{lines or '(nothing)'}"


class _Watcher:
    """The life of one part, in a thread of its own."""

    def __init__(self, supervisor: Supervisor, part: Part) -> None:
        self.part = part
        self.status = Status(part.name)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._live, name=f"watch-{part.name}", daemon=True)
        self._supervisor = supervisor

    def _live(self) -> None:
        try:
            if self._wait_for_dependencies():
                self._keep_running()
        except Exception as error:
            self._change(state=State.FAILED, pid=None, last_exit=f"supervisor: {type(error).__name__}: {error}")
            return
        if self.status.state is not State.FAILED:
            self._change(state=State.STOPPED, pid=None)

    def _wait_for_dependencies(self) -> bool:
        """Until all are ready; False when asked to stop meanwhile."""
        while not self.stopping.is_set():
            others = self._supervisor.status()
            missing = [
                name for name in self.part.depends_on if name not in others or others[name].state is not State.READY
            ]
            if not missing:
                return True
            self._change(waiting_for=", ".join(missing))
            self.stopping.wait(_POLL)
        return False

    def _keep_running(self) -> None:
        failures = 0
        while not self.stopping.is_set():
            reason, healthy_for = self._run_once()
            if self.stopping.is_set():
                return
            failures = 0 if healthy_for >= _HEALTHY_AGAIN else failures + 1
            never = self.status.seconds_to_ready is None
            if never and (failures >= _FIRST_STARTS or reason.startswith("not ready in")):
                self._change(state=State.FAILED, pid=None, last_exit=reason)
                return
            self._change(state=State.RESTARTING, pid=None, last_exit=reason, restarts=self.status.restarts + 1)
            self.stopping.wait(min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** max(0, failures - 1)))

    def _run_once(self) -> tuple[str, float]:
        """Start the process and stay with it. Returns why it ended and how many seconds it was ready."""
        begin = time.monotonic()
        process = Process(self._supervisor.layout, self.part)
        self._change(state=State.STARTING, pid=process.pid, started_at=time.time(), waiting_for=None)
        ready_since, last_good, next_probe = None, begin, begin
        try:
            while not self.stopping.is_set():
                reason = process.wait(_POLL)
                now = time.monotonic()
                if reason is not None:
                    process.end()  # what it started may live on
                    return reason, 0.0 if ready_since is None else now - ready_since
                if now < next_probe:
                    continue
                missing = self._probe()
                now = time.monotonic()
                next_probe = now + (_POLL if ready_since is None else _HEALTH_EVERY)
                if missing is None:
                    last_good = now
                    if ready_since is None:
                        ready_since = now
                        self._change(state=State.READY, waiting_for=None, seconds_to_ready=round(now - begin, 2))
                self._change(waiting_for=missing)
                if now - last_good > self.part.ready_timeout:
                    what = "not ready in" if ready_since is None else "no good answer for"
                    process.end()
                    return f"{what} {self.part.ready_timeout:.0f} s: {missing}", 0.0
            return "stopped", 0.0
        finally:
            process.end()

    def _probe(self) -> str | None:
        try:
            return self.part.ready()
        except Exception as error:
            return str(error).strip() or type(error).__name__

    def _change(self, **values: object) -> None:
        self._supervisor.change(self.status, **values)


def read_state(layout: Layout) -> dict[str, object]:
    """What the supervisor last published: pid, port_base, started_at, parts. {} when there is nothing.

    Raises `TollgateError` when the file is not what a supervisor writes.
    """
    try:
        state = json.loads(layout.state_file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TollgateError(f"{layout.state_file} cannot be read ({error}): delete it") from None
    return dict(state)
