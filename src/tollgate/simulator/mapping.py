"""Which column of somebody's file holds what: the Handbook's names, our own, or what the caller says.

In: the file's column names and `field=column` pairs from the command line. Out: `ColumnMapping`.
Next: `tollgate.simulator.replay`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

from tollgate.errors import ConfigurationError


@dataclass(frozen=True)
class ColumnMapping:
    """The file's column for each field; None where the file has none.

    The amount is either `amount_minor` (whole minor units) or `amount` (major units, decimal). Without a
    `currency` column every row is in the currency given to `Replay`; without `is_fraud` there are no labels.
    """

    transaction_id: str | None = None
    occurred_at: str | None = None
    customer_id: str | None = None
    terminal_id: str | None = None
    amount: str | None = None
    amount_minor: str | None = None
    currency: str | None = None
    is_fraud: str | None = None
    labelled_at: str | None = None
    channel: str | None = None
    country: str | None = None

    def columns(self) -> list[str]:
        """The columns that are read, each once."""
        return list(dict.fromkeys(column for column in asdict(self).values() if column))


HANDBOOK = ColumnMapping(
    transaction_id="TRANSACTION_ID",
    occurred_at="TX_DATETIME",
    customer_id="CUSTOMER_ID",
    terminal_id="TERMINAL_ID",
    amount="TX_AMOUNT",
    is_fraud="TX_FRAUD",
)
OWN = ColumnMapping(**{f.name: f.name for f in fields(ColumnMapping)})
_NEEDED = ("transaction_id", "occurred_at", "customer_id", "terminal_id")


def parse_pairs(pairs: Iterable[str]) -> ColumnMapping:
    """`["amount=TX_AMOUNT", ...]` as a mapping. Raises `ConfigurationError` for anything else."""
    known = [f.name for f in fields(ColumnMapping)]
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, column = pair.partition("=")
        if not equals or not column or name not in known:
            raise ConfigurationError(f"mapping {pair!r}: expected FIELD=COLUMN, FIELD one of {', '.join(known)}")
        if name in found:
            raise ConfigurationError(f"mapping {pair!r}: {name} is already mapped to {found[name]!r}")
        found[name] = column
    return ColumnMapping(**found)


def resolve(name: str, columns: Sequence[str], given: ColumnMapping) -> ColumnMapping:
    """What is `given`, and for the rest the column of our own or the Handbook's name that the file has.

    `name` is the file's, for messages. Raises `ConfigurationError` with the file's columns when a given column
    does not exist or a field that every transaction needs has none.
    """
    listing = f"{name} has the columns: {', '.join(columns)}"
    chosen: dict[str, str | None] = {}
    for field_name, column in asdict(given).items():
        if column and column not in columns:
            raise ConfigurationError(f"no column {column!r} for {field_name}. {listing}")
        standard = (getattr(OWN, field_name), getattr(HANDBOOK, field_name))
        chosen[field_name] = column or next((c for c in standard if c in columns), None)
    if given.amount:
        chosen["amount_minor"] = None
    elif chosen["amount_minor"]:
        chosen["amount"] = None
    missing = [needed for needed in _NEEDED if not chosen[needed]]
    if not chosen["amount"] and not chosen["amount_minor"]:
        missing.append("amount (or amount_minor)")
    if missing:
        example = missing[0].split(" ")[0]
        raise ConfigurationError(
            f"no column for {', '.join(missing)}. {listing}. Say which one it is, like {example}=COLUMN"
        )
    return ColumnMapping(**chosen)
