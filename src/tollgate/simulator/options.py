"""What a simulated world is made of, and where in it we are: settings, drift, position.

In: the command line's options or a saved state. Out: plain frozen values, valid by construction.
Next: `tollgate.simulator.world`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

from tollgate.errors import ConfigurationError

US = 1_000_000
"""Microseconds in a second: simulated time is integer microseconds since the epoch, UTC."""
DAY_US = 86_400 * US
MAX_CUSTOMERS = 200_000


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """The next transaction to stream: number `index` (from 0, in order of time) of day `day`."""

    day: int
    index: int


@dataclass(frozen=True)
class WorldSettings:
    """The parameters of the Fraud Detection Handbook's process, with its values as defaults.

    The numbers of compromised terminals and customers a day are the Handbook's for 10,000 terminals and 5,000
    customers; `World` scales them to the world's size so that a small world has the same share of frauds.
    Raises `ConfigurationError` for values no world can be made of.
    """

    seed: int = 0
    customers: int = 5_000
    terminals: int = 10_000
    start: date = date(2018, 4, 1)
    """Day 0 (UTC)."""
    radius: float = 5.0
    """A customer uses the terminals closer than this, in the plane [0, 100] x [0, 100]."""
    max_transactions_per_day: float = 4.0
    """Customers' mean numbers of transactions per day are uniform from 0 to this."""
    min_mean_amount: float = 5.0
    max_mean_amount: float = 100.0
    """Customers' mean amounts are uniform between these (major units); the deviation is half the mean."""
    currency: str = "EUR"
    fraud_amount_minor: int = 22_000
    """Scenario 1: every amount above this is a fraud."""
    terminals_compromised_per_day: float = 2.0
    terminal_fraud_days: int = 28
    """Scenario 2: a compromised terminal's transactions are frauds for so many days, the first included."""
    customers_compromised_per_day: float = 3.0
    customer_fraud_days: int = 14
    """Scenario 3: for so many days a third of a compromised customer's transactions are frauds."""
    label_delay_days: int = 7
    """The truth about a transaction is known this long after it."""

    def __post_init__(self) -> None:
        whole = {"seed": 0, "customers": 1, "terminals": 1, "label_delay_days": 1}
        for name, least in whole.items():
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: give a whole number from {least} up")
        if self.customers > MAX_CUSTOMERS:
            raise ConfigurationError(
                f"customers is {self.customers}: at most {MAX_CUSTOMERS} (a day's transactions must fit six digits)"
            )
        if not 0 < self.max_transactions_per_day <= 4:
            raise ConfigurationError(
                f"max_transactions_per_day is {self.max_transactions_per_day}: give more than 0 and at most 4"
            )
        if not 0 < self.min_mean_amount <= self.max_mean_amount <= 1_000:
            raise ConfigurationError("mean amounts: expected 0 < min_mean_amount <= max_mean_amount <= 1000")
        if self.radius <= 0:
            raise ConfigurationError(f"radius is {self.radius}: give more than 0")

    @property
    def label_delay_us(self) -> int:
        """The label delay in microseconds."""
        return self.label_delay_days * DAY_US

    def day_start_us(self, day: int) -> int:
        """Midnight (UTC) at which day number `day` begins, in microseconds since the epoch."""
        midnight = datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC)
        return int(midnight.timestamp()) * US + day * DAY_US


@dataclass(frozen=True)
class Drift:
    """From `start` on (until `end`, when given) amounts and terminals differ from what the model has learned.

    Every amount is multiplied after the frauds are decided, so that what was a fraud stays one while honest
    amounts move into regions that used to mean fraud. A share of the transactions goes to a few terminals
    wherever the customer lives. Times, customers and transaction ids stay those of the world without drift.
    """

    start: Position
    end: Position | None = None
    amount_factor: float = 1.6
    terminal_share: float = 0.3
    hot_terminals: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.amount_factor <= 100:
            raise ConfigurationError(f"amount_factor is {self.amount_factor}: give more than 0 and at most 100")
        if not 0 <= self.terminal_share <= 1:
            raise ConfigurationError(f"terminal_share is {self.terminal_share}: give a share from 0 to 1")
        if self.hot_terminals < 1:
            raise ConfigurationError(f"hot_terminals is {self.hot_terminals}: give 1 or more")
