"""How every command speaks: rows as table, JSON or YAML on stdout, messages on stderr, errors as exit codes.

In: rows of plain values, or an error. Out: text, and `Exit` codes that scripts can rely on.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum, StrEnum
from functools import wraps
from threading import Event
from types import FrameType
from typing import Annotated, Any, ParamSpec, TypeVar

import msgspec
import typer
import yaml
from rich.console import Console
from rich.table import Table

from tollgate.errors import ConfigurationError, Rejected, TollgateError

P = ParamSpec("P")
R = TypeVar("R")

messages = Console(stderr=True, highlight=False)
"""Where people are told things; stdout carries data only."""


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    UNHEALTHY = 3
    GATE = 4
    TIMED_OUT = 5


class Format(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


FormatOption = Annotated[Format, typer.Option("-o", "--output", help="How to print the data.")]


def show(rows: Iterable[Mapping[str, Any]], format_: Format, columns: Sequence[str] = (), title: str = "") -> None:
    """Print rows on stdout. `columns` chooses and orders a table's columns; JSON and YAML carry everything."""
    listed: list[dict[str, Any]] = msgspec.to_builtins([dict(row) for row in rows])
    if format_ is Format.JSON:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(listed), indent=2).decode() + "\n")
    elif format_ is Format.YAML:
        sys.stdout.write(yaml.safe_dump(listed, sort_keys=False))
    else:
        names = list(columns) or (list(listed[0]) if listed else [])
        table = Table(*names, title=title or None, title_justify="left", box=None, header_style="bold", pad_edge=False)
        for row in listed:
            table.add_row(*(_cell(row.get(name)) for name in names))
        Console(highlight=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def fail(message: str, code: Exit = Exit.FAILURE) -> typer.Exit:
    """Say what went wrong on stderr and give the exception that ends the command with `code`."""
    messages.print(f"[bold red]tollgate:[/] {message}", markup=True, soft_wrap=True)
    return typer.Exit(int(code))


def stop_on_signals() -> Event:
    """An event that Ctrl-C and SIGTERM set, so that a long command ends in order."""
    stop = Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return stop


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Turn the errors Tollgate raises on purpose into one line and an exit code; others keep their trace."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (ConfigurationError, Rejected) as error:
            raise fail(_escape(error), Exit.USAGE) from None
        except TollgateError as error:
            raise fail(_escape(error)) from None

    return run


def _escape(error: Exception) -> str:
    return str(error).replace("[", "\\[")
