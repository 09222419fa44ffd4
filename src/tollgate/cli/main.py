"""The `tollgate` command: one module per group of commands, put together here."""

from __future__ import annotations

from collections.abc import Callable

import typer

from tollgate.cli import dead_letters, decisions, learning, platform, traffic

app = typer.Typer(
    name="tollgate",
    help="Fraud decisions on Knative and KServe: a card transaction becomes approve, review or decline, with reasons.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 failure, 2 usage, 3 unhealthy, 4 gate failed or drift found, 5 timed out.",
)
_COMMANDS: tuple[Callable[..., None], ...] = (
    platform.up,
    platform.down,
    platform.status,
    platform.doctor,
    platform.logs,
    traffic.simulate,
    traffic.replay,
    decisions.score,
    decisions.explain,
    learning.backfill,
    learning.train,
)
for each in _COMMANDS:
    app.command()(each)
app.add_typer(dead_letters.app, name="dlq")


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
