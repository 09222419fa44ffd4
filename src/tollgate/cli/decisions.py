"""`tollgate score | explain`: ask the model about a transaction, look a decision up.

In: a transaction as JSON, or the id of one that was decided. Out: rows on stdout. `score` asks over V2, like
`decide` does, and records nothing; `explain` reads the ledger.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tollgate import features, policy, v2
from tollgate.cli.output import Exit, Format, FormatOption, command, fail, show
from tollgate.errors import Retryable
from tollgate.local.layout import Layout
from tollgate.local.up import MODEL
from tollgate.store import ledger
from tollgate.store.connection import connect, retryable
from tollgate.transaction import parse_transaction


@command
def score(
    file: Annotated[Path | None, typer.Argument(help="A transaction as JSON; - or nothing reads stdin.")] = None,
    output: FormatOption = Format.YAML,
) -> None:
    """Ask the running model about one transaction: probability, reasons, and what the policy would do."""
    body = sys.stdin.buffer.read() if file is None or str(file) == "-" else _read(file)
    transaction = parse_transaction(body)
    models = f"{Layout.resolve().url('gateway')}/v2/models/{MODEL}"
    scored = v2.read_scores(_infer(f"{models}/infer", v2.transactions_request([transaction])), 1)[0]
    reasons = v2.read_reasons(_infer(f"{models}-features/infer", v2.reasons_request([scored.features])), 1)[0]
    costs = policy.load()
    row = {
        "transaction_id": transaction.transaction_id,
        "probability": scored.probability,
        "outcome": costs.decide(scored.probability, transaction.amount_minor),
        "policy_version": costs.version,
        "model": scored.model,
        "features_as_of": scored.features_as_of,
        "reasons": reasons,
        "features": dict(zip(features.names(), scored.features, strict=True)),
    }
    show([row], output)


@command
def explain(
    transaction_id: Annotated[str, typer.Argument(help="The id of a decided transaction.")],
    output: FormatOption = Format.YAML,
) -> None:
    """Show the recorded decision about a transaction: outcome, reasons, model and policy versions, times."""
    connection = connect(Layout.resolve().database_url().reveal(), application="explain")
    try:
        with retryable():
            found = ledger.find(connection, transaction_id)
    finally:
        connection.close()
    if found is None:
        raise fail(f"no decision about {transaction_id!r} is in the ledger: `tollgate dlq list` has what failed")
    values = (
        dict(zip(features.names(), found.features, strict=False)) if found.features_hash == features.digest() else None
    )
    row = {**msgspec.to_builtins(found.decision), "transaction": msgspec.to_builtins(found.transaction)}
    show([row | {"features": values or found.features}], output)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise fail(f"cannot read {file}: {error.strerror}", Exit.USAGE) from None


def _infer(url: str, body: bytes) -> bytes:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - our own gateway
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        raise Retryable(f"the model server answered {error.code}: {v2.read_error(error.read())}") from None
    except OSError as error:
        raise Retryable(f"{url}: {error}: `tollgate status` says why") from None
