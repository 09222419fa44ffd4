"""`tollgate dlq`: what could not be handled, why, and sending it again.

In: topic `dead-letters`. Out: rows on stdout; `replay` POSTs the original events to the Broker.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Annotated, Any

import typer

from tollgate import dead_letters, topics
from tollgate.cli.output import Exit, Format, FormatOption, command, fail, messages, show
from tollgate.dead_letters import DeadLetter
from tollgate.errors import Retryable
from tollgate.events import to_http
from tollgate.local.layout import Layout

app = typer.Typer(no_args_is_help=True, help="Dead letters: what could not be handled, why, and sending it again.")

_Reason = Annotated[str | None, typer.Option(help="Only this reason, for example conflict.")]


@app.command("list")
@command
def list_(
    reason: _Reason = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    output: FormatOption = Format.TABLE,
) -> None:
    """List dead letters, oldest first."""
    found = _letters(reason)
    rows = [_row(letter) for letter in found[-limit:]]
    show(rows, output, ("position", "at", "reason", "transaction_id", "origin", "detail"))
    messages.print(
        f"{len(found)} dead letters ({len(list(dead_letters.distinct(found)))} distinct events)"
        + ("; one of them whole: tollgate dlq show POSITION" if found else "")
    )


@app.command("show")
@command
def show_(
    position: Annotated[str, typer.Argument(help="partition/offset, from `tollgate dlq list`.")],
    output: FormatOption = Format.YAML,
) -> None:
    """Show one dead letter whole: its attributes, the reason, and its data."""
    letter = _find(position)
    row = _row(letter) | {"attributes": letter.event.attributes(), "data": letter.event.data.decode(errors="replace")}
    show([row], output)


@app.command()
@command
def replay(
    position: Annotated[str | None, typer.Argument(help="partition/offset, from `tollgate dlq list`.")] = None,
    reason: _Reason = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them (of --reason, when given).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
) -> None:
    """Send dead letters to the Broker again; deciding is idempotent, so doing it twice does no harm."""
    if position is None and not everything and reason is None:
        raise fail("name a position, --reason or --all", Exit.USAGE)
    chosen = [_find(position)] if position else list(dead_letters.distinct(_letters(reason)))
    url = Layout.resolve().broker_url
    for letter in chosen:
        if not dry_run:
            _post(url, letter)
        messages.print(f"{'would send' if dry_run else 'sent'} {letter.position} ({letter.reason})")
    messages.print(f"{len(chosen)} {'to send' if dry_run else f'sent to {url}'}")


def _letters(reason: str | None) -> list[DeadLetter]:
    records = topics.read(Layout.resolve().kafka_bootstrap, topics.DEAD_LETTERS)
    found = [letter for letter in map(dead_letters.read, records) if reason in (None, letter.reason)]
    return sorted(found, key=lambda letter: letter.at)


def _find(position: str) -> DeadLetter:
    for letter in _letters(None):
        if letter.position == position:
            return letter
    raise fail(f"no dead letter at {position!r}: `tollgate dlq list` has the positions", Exit.USAGE)


def _row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "position": letter.position,
        "at": letter.at.isoformat(timespec="seconds"),
        "reason": letter.reason,
        "transaction_id": letter.transaction_id,
        "origin": letter.origin,
        "detail": letter.detail,
        "code": letter.code,
        "destination": letter.destination,
    }


def _post(url: str, letter: DeadLetter) -> None:
    headers, body = to_http(dead_letters.original(letter))
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - our own Broker
    try:
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        raise Retryable(f"the Broker refused {letter.position} with {error.code}: {error.read(500)!r}") from None
    except OSError as error:
        raise Retryable(f"the Broker at {url} is away ({error}): see `tollgate status`") from None
