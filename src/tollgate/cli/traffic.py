"""`tollgate simulate | replay`: transactions onto Kafka, from the simulated world or from a file.

In: options. Out: records on `transactions` and `labels`; a row on stdout that counts what was sent.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tollgate.cli.output import Format, FormatOption, command, messages, show, stop_on_signals
from tollgate.local import world
from tollgate.local.layout import Layout
from tollgate.simulator.mapping import parse_pairs
from tollgate.simulator.mix import Mix
from tollgate.simulator.options import Drift, Position
from tollgate.simulator.publisher import KafkaPublisher
from tollgate.simulator.run import Pace, ReplayOptions
from tollgate.simulator.run import replay as run_replay
from tollgate.simulator.run import simulate as run_simulate
from tollgate.simulator.stream import Sent

_Count = Annotated[int | None, typer.Option("--count", min=1, help="Stop after so many transactions.")]
_Rate = Annotated[float, typer.Option(min=0, help="Transactions per second on the clock; 0: as fast as possible.")]
_Flush = Annotated[bool, typer.Option("--flush-labels", help="At the end publish the labels of what was sent.")]
_Duplicates = Annotated[int, typer.Option(min=0, help="Mix in so many duplicates (with --count).")]
_Malformed = Annotated[int, typer.Option(min=0, help="Mix in so many malformed records.")]
_Conflicts = Annotated[int, typer.Option(min=0, help="Mix in so many records with a known id and another body.")]


@command
def simulate(
    count: _Count = None,
    rate: _Rate = 50.0,
    drift: Annotated[bool, typer.Option("--drift", help="Shift the amounts and the terminal mix.")] = False,
    amount_factor: Annotated[float, typer.Option(help="With --drift: amounts are multiplied by this.")] = 1.6,
    terminal_share: Annotated[float, typer.Option(help="With --drift: this share goes to a few terminals.")] = 0.3,
    duplicates: _Duplicates = 0,
    malformed: _Malformed = 0,
    conflicts: _Conflicts = 0,
    flush_labels: _Flush = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Stream live transactions of this home's world, from where the last stream ended."""
    layout = Layout.resolve()
    history = world.need_history(layout)
    shift = Drift(Position(0, 0), None, amount_factor, terminal_share) if drift else None
    pace = Pace(count, rate, Mix(duplicates, malformed, conflicts), flush_labels)
    options = world.stream_options(layout, history, pace, shift)
    with KafkaPublisher(layout.kafka_bootstrap) as publisher, _Counter(count) as counter:
        sent = run_simulate(options, publisher, stop_on_signals(), counter.report)
    _finish(sent, output)


@command
def replay(
    data: Annotated[Path, typer.Option("--data", help="A CSV or Parquet file (or a folder of Parquet files).")],
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="name=column, for example amount=AMT; the Handbook's names are known."),
    ] = None,
    currency: Annotated[str, typer.Option(help="For a file without a currency column.")] = "EUR",
    label_delay_days: Annotated[float, typer.Option(min=0, help="How long after it a fraud is known.")] = 7.0,
    first_row: Annotated[int, typer.Option(min=0, help="Skip the rows before this one.")] = 0,
    count: _Count = None,
    rate: _Rate = 50.0,
    flush_labels: _Flush = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Stream the transactions of a file, in its order."""
    options = ReplayOptions(
        path=data,
        mapping=parse_pairs(column or []),
        currency=currency,
        label_delay=timedelta(days=label_delay_days),
        first_row=first_row,
        pace=Pace(count, rate, Mix(), flush_labels),
    )
    with KafkaPublisher(Layout.resolve().kafka_bootstrap) as publisher, _Counter(count) as counter:
        sent = run_replay(options, publisher, stop_on_signals(), counter.report)
    _finish(sent, output)
    messages.print(f"to go on from here later: --first-row {sent.position.index}")


class _Counter(Progress):
    """A bar on stderr that follows `Sent`."""

    def __init__(self, total: int | None) -> None:
        super().__init__(
            TextColumn("sent"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f}/s"),
            TimeElapsedColumn(),
            console=messages,
        )
        self._task = self.add_task("sent", total=total, rate=0.0)

    def report(self, sent: Sent) -> None:
        rate = sent.transactions / sent.seconds if sent.seconds else 0.0
        self.update(self._task, completed=sent.transactions, rate=rate)

    def __enter__(self) -> _Counter:
        self.start()
        return self


def _finish(sent: Sent, output: Format) -> None:
    row = {
        "records": sent.records,
        "transactions": sent.transactions,
        "duplicates": sent.duplicates,
        "malformed": sent.malformed,
        "conflicts": sent.conflicts,
        "labels": sent.labels,
        "seconds": round(sent.seconds, 2),
    }
    show([row], output)
