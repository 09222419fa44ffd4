"""The screen after the start: the flow living.

In: a `Snapshot` of the flow and the states of the parts. Out: a rich renderable for a terminal, or one plain line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tollgate.decision import Decision, Outcome
from tollgate.local.watch import Snapshot

_STYLE = {Outcome.APPROVE: "green", Outcome.REVIEW: "yellow", Outcome.DECLINE: "bold red"}
_PAST = {Outcome.APPROVE: "approved", Outcome.REVIEW: "to review", Outcome.DECLINE: "declined"}


@dataclass(frozen=True, slots=True)
class PartLine:
    """A part as the screen shows it."""

    name: str
    state: str
    restarts: int
    lag: int | None = None


def screen(
    snapshot: Snapshot, parts: Sequence[PartLine], sent: int, seconds: float, urls: Mapping[str, str], hint: str
) -> RenderableType:
    """The whole live view."""
    return Group(
        _header(snapshot, sent, seconds),
        Panel(
            flagged(snapshot.flagged), title="last flagged transactions, and why", title_align="left", box=box.ROUNDED
        ),
        Panel(_parts(parts), title="parts", title_align="left", box=box.ROUNDED),
        Text("  ".join(f"{name} {url}" for name, url in urls.items()), style="dim", overflow="fold"),
        Text.assemble(("next: ", "bold"), hint, ("    Ctrl-C stops everything; data is kept", "dim")),
    )


def line(snapshot: Snapshot, sent: int) -> str:
    """The flow in one line of text."""
    counts = ", ".join(f"{snapshot.outcomes.get(outcome, 0)} {_PAST[outcome]}" for outcome in Outcome)
    dead = sum(snapshot.dead.values())
    return (
        f"{sent} sent, {snapshot.decided} decided ({counts}), {dead} dead-lettered, "
        f"{snapshot.rate:.0f}/s, p50 {_ms(snapshot.p50_ms)}, p99 {_ms(snapshot.p99_ms)}, "
        f"lag {sum(snapshot.lag.values())}"
    )


def flagged(decisions: Sequence[Decision]) -> RenderableType:
    """Reviewed and declined transactions with their reasons, newest first."""
    if not decisions:
        return Text("nothing was flagged yet", style="dim")
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("transaction", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("because", ratio=1, overflow="fold")
    for decision in reversed(decisions):
        table.add_row(
            Text(decision.outcome, style=_STYLE[decision.outcome]),
            decision.transaction_id,
            f"{decision.probability:.3f}",
            because(decision),
        )
    return table


def because(decision: Decision) -> str:
    """The reasons as text: feature = value (how far it moved the score, in log-odds)."""
    return ", ".join(f"{r.feature} = {r.value:.4g} ({r.contribution:+.2f})" for r in decision.reasons)


def _header(snapshot: Snapshot, sent: int, seconds: float) -> RenderableType:
    text = Text()
    text.append(f" {snapshot.rate:6.0f} decisions/s ", style="bold reverse")
    text.append(f"   {sent:,} sent   {snapshot.decided:,} decided   ")
    for outcome in Outcome:
        text.append(f"{snapshot.outcomes.get(outcome, 0):,} {_PAST[outcome]}   ", style=_STYLE[outcome])
    text.append(f"{sum(snapshot.dead.values()):,} dead-lettered   ", style="magenta" if snapshot.dead else "dim")
    text.append(f"p50 {_ms(snapshot.p50_ms)}  p99 {_ms(snapshot.p99_ms)}   up {seconds:.0f} s", style="cyan")
    if snapshot.trouble:
        text.append(f"\n{snapshot.trouble}", style="bold red")
    return text


def _parts(parts: Sequence[PartLine]) -> RenderableType:
    table = Table.grid(padding=(0, 3))
    cells = [
        Text.assemble(
            ("● ", "green" if part.state == "ready" else "bold red"),
            part.name,
            (f" {part.state}" if part.state != "ready" else "", "red"),
            (f" ↻{part.restarts}" if part.restarts else "", "yellow"),
            (f" lag {part.lag:,}" if part.lag else "", "yellow"),
        )
        for part in parts
    ]
    for at in range(0, len(cells), 5):
        table.add_row(*cells[at : at + 5])
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
