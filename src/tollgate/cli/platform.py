"""`tollgate up | down | status | doctor | logs`: the embedded platform from the outside.

In: options. Out: a running platform with a live screen, or the state of one as rows. Next: `tollgate.local`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Annotated

import typer
from rich.live import Live

from tollgate.cli.output import Exit, Format, FormatOption, command, fail, messages, show, stop_on_signals
from tollgate.local import doctor as doctors
from tollgate.local import health, lock, purge
from tollgate.local.board import board
from tollgate.local.layout import Layout
from tollgate.local.process import tail
from tollgate.local.summary import Offsets, Summary, wait_complete
from tollgate.local.supervisor import Supervisor
from tollgate.local.up import Options, Platform
from tollgate.local.view import PartLine, because, line, screen
from tollgate.local.watch import Watch
from tollgate.simulator.mix import Mix
from tollgate.simulator.stream import Sent

_LINE_EVERY_S = 5.0
_REDRAW_S = 0.25
_HINT = "in another terminal: tollgate status · tollgate dlq list · tollgate explain TRANSACTION · tollgate logs decide"

Count = Annotated[int | None, typer.Option("--transactions", min=1, help="Stop after so many, with a summary.")]


@command
def up(
    transactions: Count = None,
    rate: Annotated[float, typer.Option(min=0, help="Live transactions per second; 0: as fast as possible.")] = 50.0,
    duplicates: Annotated[int, typer.Option(min=0, help="Mix in so many duplicates (with --transactions).")] = 0,
    malformed: Annotated[int, typer.Option(min=0, help="Mix in so many malformed records.")] = 0,
    conflicts: Annotated[int, typer.Option(min=0, help="Mix in so many records with a known id, other body.")] = 0,
    days: Annotated[int | None, typer.Option(min=45, help="Days of simulated history (first start) [60].")] = None,
    customers: Annotated[int | None, typer.Option(min=1, help="Customers of the world (first start) [5000].")] = None,
    terminals: Annotated[int | None, typer.Option(min=1, help="Terminals of the world (first start) [10000].")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The world's seed (first start) [0].")] = None,
    stream: Annotated[bool, typer.Option(help="Stream live transactions once everything runs.")] = True,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything is ready; it goes on.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Start everything, stream live transactions and show them being decided."""
    layout = Layout.resolve()
    _check_machine(layout)
    if detach:
        _detach(layout)
        return
    mix = Mix(duplicates, malformed, conflicts)
    if mix != Mix() and transactions is None:
        raise fail("--duplicates, --malformed and --conflicts need --transactions", Exit.USAGE)
    size = {"days": days, "customers": customers, "terminals": terminals, "seed": seed}
    options = Options(transactions, rate, mix, {name: value for name, value in size.items() if value is not None})
    stop = stop_on_signals()
    platform = Platform(layout, options, stop)
    began = time.monotonic()
    ended: Summary | None = None
    with platform.supervisor:
        try:
            with board(messages) as shown:
                seconds = platform.start(shown)
            if not stop.is_set():
                _say_ready(layout, time.monotonic() - began, seconds)
                ended = _run(platform, stream, stop, began)
        finally:
            messages.print("stopping: every part, in order ...")
    if ended is not None:
        _finish(ended, output)


def _check_machine(layout: Layout) -> None:
    bad = [each for each in doctors.examine(layout) if each.level is doctors.Level.FAIL]
    if bad:
        lines = "\n".join(f"  {each.what}\n    {each.do}" for each in bad)
        raise fail(f"this machine is not ready:\n{lines}", Exit.UNHEALTHY)


def _say_ready(layout: Layout, took: float, seconds: dict[str, float]) -> None:
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:3]
    messages.print(
        f"[bold green]everything runs[/] after {took:.0f} s (longest: "
        + ", ".join(f"{name} {s:.0f} s" for name, s in slowest)
        + ")",
        soft_wrap=True,
    )
    for name, url in health.urls(layout).items():
        messages.print(f"  {name:<10} {url}", markup=False)


def _run(platform: Platform, stream: bool, stop: threading.Event, began: float) -> Summary | None:
    bootstrap = platform.layout.kafka_bootstrap
    before, start = Offsets.now(bootstrap), platform.position()
    watch = Watch(bootstrap)
    result: deque[Sent | BaseException] = deque()
    streaming = threading.Thread(target=_stream, args=(platform, stop, result), name="stream", daemon=True)
    try:
        if stream:
            streaming.start()
        _show_until(lambda: stop.is_set() or bool(result and platform.options.transactions), platform, watch, began)
        if not stream:
            return None
        streaming.join()
        sent = result[0]
        if isinstance(sent, BaseException):
            raise sent
        if platform.options.transactions is None or stop.is_set():
            return None
        messages.print(f"all {sent.records:,} records sent; waiting until each is accounted for ...")
        return wait_complete(lambda: platform.account(start, sent, before))
    finally:
        stop.set()
        watch.stop()


def _stream(platform: Platform, stop: threading.Event, result: deque[Sent | BaseException]) -> None:
    try:
        result.append(platform.stream(stop))
    except Exception as error:
        result.append(error)


def _show_until(done: Callable[[], bool], platform: Platform, watch: Watch, began: float) -> None:
    def sent() -> int:
        return platform.sent.transactions if platform.sent else 0

    if not messages.is_terminal:
        said = flagged = 0.0
        while not done():
            snapshot = watch.snapshot()
            newest = snapshot.flagged[-1] if snapshot.flagged else None
            if newest is not None and not flagged:
                flagged = time.monotonic()
                messages.print(
                    f"first flagged after {flagged - began:.0f} s: {newest.transaction_id} {newest.outcome} "
                    f"p {newest.probability:.3f}: {because(newest)}",
                    markup=False,
                    soft_wrap=True,
                )
            if time.monotonic() - said > _LINE_EVERY_S:
                said = time.monotonic()
                messages.print(line(snapshot, sent()), markup=False, soft_wrap=True)
            time.sleep(_REDRAW_S)
        return
    urls = health.urls(platform.layout)
    with Live(console=messages, refresh_per_second=4) as live:
        while not done():
            snapshot = watch.snapshot()
            lines = _part_lines(platform.supervisor, snapshot.lag)
            live.update(screen(snapshot, lines, sent(), time.monotonic() - began, urls, _HINT))
            time.sleep(_REDRAW_S)


def _part_lines(supervisor: Supervisor, lag: dict[str, int]) -> list[PartLine]:
    return [
        PartLine(name, str(status.state), status.restarts, sum(lag.values()) if name == "dispatcher" else None)
        for name, status in supervisor.status().items()
    ]


def _finish(ended: Summary, output: Format) -> None:
    sent = ended.sent
    row = {
        "in": sent.records,
        "transactions": sent.transactions,
        "decided": ended.in_ledger,
        **{str(outcome): count for outcome, count in sorted(ended.outcomes.items())},
        "duplicates": sent.duplicates,
        "dead_lettered": sum(ended.dead.values()),
        "dead_letters": dict(sorted(ended.dead.items())),
        "on_topic_decisions": ended.on_topic,
        "records_on_topic": ended.topic_records,
        "latency_p50_ms": ended.p50_ms,
        "latency_p99_ms": ended.p99_ms,
        "labelled": ended.labelled,
        "precision": ended.precision,
        "recall": ended.recall,
        "seconds": round(sent.seconds, 1),
        "complete": ended.complete,
    }
    if output is Format.TABLE:
        show([{"what": name, "value": value} for name, value in row.items()], output)
    else:
        show([row], output)
    if not ended.complete:
        raise fail("not everything is accounted for: " + "; ".join(ended.problems))
    messages.print("every record is accounted for. Next: `tollgate up` to watch it live")


def _detach(layout: Layout) -> None:
    arguments = [each for each in sys.argv[1:] if each != "--detach"]
    log = layout.log("up")
    layout.create()
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tollgate.cli.main", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**os.environ, "NO_COLOR": "1"},
        )
    messages.print(f"starting in the background (pid {process.pid}), log {log}")
    while process.poll() is None:
        if health.running(layout, process.pid):
            messages.print("everything runs: `tollgate status` shows it, `tollgate down` stops it")
            return
        time.sleep(0.3)
    raise fail(f"it ended with exit code {process.returncode}; the log ends with:\n{tail(log)}")


@command
def down(
    purge_: Annotated[bool, typer.Option("--purge", help="Remove data, logs and state too (downloads stay).")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a purge.")] = False,
) -> None:
    """Stop everything; data is kept unless --purge is given."""
    layout = Layout.resolve()
    if purge_ and not yes and sys.stdin.isatty():
        typer.confirm(f"Remove all data below {layout.home}?", abort=True)
    stopped = lock.stop_running(layout)
    messages.print("stopped" if stopped else "nothing was running")
    if purge_:
        purge.purge(layout)
        messages.print(f"data, logs and state below {layout.home} are removed; downloads are kept")


@command
def status(
    output: Annotated[str, typer.Option("-o", "--output", help="table, json, yaml or env.")] = "table",
) -> None:
    """Every part's health and URL, and the one root cause when something is wrong."""
    layout = Layout.resolve()
    if output == "env":
        for name, value in health.environment(layout).items():
            sys.stdout.write(f"export {name}='{value}'\n")
        return
    if output not in set(Format):
        raise fail(f"-o {output}: expected table, json, yaml or env", Exit.USAGE)
    report = health.report(layout)
    show(report.rows, Format(output), ("part", "state", "restarts", "pid", "url", "note"))
    if report.root_cause:
        raise fail(report.root_cause.replace("[", "\\["), Exit.UNHEALTHY)
    messages.print("everything runs")


@command
def doctor(output: FormatOption = Format.TABLE) -> None:
    """Check whether this machine can run the platform, before starting it."""
    findings = doctors.examine(Layout.resolve())
    show([{"level": str(f.level), "what": f.what, "do": f.do} for f in findings], output, ("level", "what", "do"))
    if any(f.level is doctors.Level.FAIL for f in findings):
        raise typer.Exit(int(Exit.UNHEALTHY))


@command
def logs(
    part: Annotated[str | None, typer.Argument(help="The part; without one, their names are listed.")] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="The last so many lines.")] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on showing what is added.")] = False,
) -> None:
    """Show a part's log."""
    layout = Layout.resolve()
    known = sorted(file.stem for file in layout.logs.glob("*.log"))
    if part is None:
        sys.stdout.write("".join(f"{name}\n" for name in known))
        return
    if part not in known:
        raise fail(f"no log of {part!r}; there are: {', '.join(known) or 'none yet'}", Exit.USAGE)
    log = layout.log(part)
    sys.stdout.write(tail(log, lines) + "\n")
    if follow:
        _follow(layout, part)


def _follow(layout: Layout, part: str) -> None:
    with layout.log(part).open("r", errors="replace") as file:
        file.seek(0, os.SEEK_END)
        try:
            while True:
                text = file.read()
                sys.stdout.write(text)
                sys.stdout.flush()
                if not text:
                    time.sleep(0.3)
        except KeyboardInterrupt:
            return
