"""Amounts in major units, as files have them, to the minor units that everything else here counts in."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

# fmt: off
_WHOLE = frozenset({
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV",
    "XAF", "XOF", "XPF",
})
# fmt: on
_THOUSANDTHS = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})


def minor_digits(currency: str) -> int:
    """How many decimals the currency's minor unit has (ISO 4217): 2 but for a few."""
    return 0 if currency in _WHOLE else 3 if currency in _THOUSANDTHS else 2


def to_minor(amount: str | int | float | Decimal, currency: str) -> int:
    """`amount` (major units) in minor units, halves away from zero. Raises `ValueError` when it is no number.

    A float counts as the shortest decimal that denotes it, so 57.16 is 5716 cents and 0.285 rounds as written.
    """
    if isinstance(amount, bool) or not isinstance(amount, (str, int, float, Decimal)):
        raise ValueError(f"a {type(amount).__name__} is not an amount")
    try:
        exact = Decimal(str(amount).strip())
    except InvalidOperation:
        raise ValueError("not a decimal number") from None
    if not exact.is_finite() or exact.adjusted() > 15:
        raise ValueError("not a finite amount below 10^16")
    return int(exact.scaleb(minor_digits(currency)).quantize(Decimal(1), ROUND_HALF_UP))
