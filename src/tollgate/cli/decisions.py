"""`tollgate score | explain`: ask the model about a transaction, look a decision up.

In: a transaction as JSON, or the id of one that was decided. Out: rows on stdout. `score` asks over V2, like
`decide` does, and records nothing; `explain` reads the ledger.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from tollgate import features, policy
from tollgate.cli.output import Exit, Format, FormatOption, command, fail, messages, show
from tollgate.errors import Retryable
from tollgate.local.layout import Layout
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
    moment = transaction.occurred_at.isoformat()
    request = {
        "inputs": [
            {"name": "transaction_id", "shape": [1], "datatype": "BYTES", "data": [transaction.transaction_id]},
            {"name": "customer_id", "shape": [1], "datatype": "BYTES", "data": [transaction.customer_id]},
            {"name": "terminal_id", "shape": [1], "datatype": "BYTES", "data": [transaction.terminal_id]},
            {"name": "amount_minor", "shape": [1], "datatype": "INT64", "data": [transaction.amount_minor]},
            {"name": "occurred_at", "shape": [1], "datatype": "BYTES", "data": [moment]},
        ],
        "outputs": [{"name": "probability"}, {"name": "reasons"}],
    }
    answer = _infer(f"{Layout.resolve().url('gateway')}/v2/models/fraud/infer", request)
    outputs = {each["name"]: each["data"] for each in answer["outputs"]}
    probability = float(outputs["probability"][0])
    costs = policy.load()
    row = {
        "transaction_id": transaction.transaction_id,
        "probability": probability,
        "outcome": str(costs.decide(probability, transaction.amount_minor)),
        "policy_version": costs.version,
        "model": answer.get("parameters", {}),
        "reasons": json.loads(outputs["reasons"][0]),
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


def _infer(url: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own gateway
            decoded: dict[str, Any] = json.load(answer)
            return decoded
    except urllib.error.HTTPError as error:
        raise Retryable(f"the model server answered {error.code}: {error.read(500).decode(errors='replace')}") from None
    except OSError as error:
        messages.print("the model is not reachable: `tollgate status` says why")
        raise Retryable(f"{url}: {error}") from None
