"""The decision policy: a calibrated probability and an amount become approve, review or decline.

In: a documented TOML file (`policy.toml` beside this module, or the one TOLLGATE_POLICY_FILE names).
Out: the outcome with the lowest expected cost (cost-sensitive decision rule, Elkan 2001).
The model is not involved: a threshold changes without a new model, and a model without a new threshold.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from tollgate.decision import Outcome
from tollgate.errors import ConfigurationError

DEFAULT = Path(__file__).with_name("policy.toml")


@dataclass(frozen=True, slots=True)
class Policy:
    """Costs in major currency units; `version` ends with a digest of the numbers, so no two policies share one."""

    version: str
    chargeback_fee: float
    review_cost: float
    review_recall: float
    margin: float
    lost_goodwill: float

    def costs(self, probability: float, amount_minor: int) -> dict[Outcome, float]:
        """Expected cost of each outcome in major units; `probability` in [0, 1], `amount_minor` in minor units."""
        amount = amount_minor / 100
        loss = probability * (amount + self.chargeback_fee)
        return {
            Outcome.APPROVE: loss,
            Outcome.REVIEW: self.review_cost + (1 - self.review_recall) * loss,
            Outcome.DECLINE: (1 - probability) * (self.margin * amount + self.lost_goodwill),
        }

    def decide(self, probability: float, amount_minor: int) -> Outcome:
        """The cheapest outcome; of equals the most lenient."""
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"a fraud probability is from 0 to 1, not {probability}")
        costs = self.costs(probability, amount_minor)
        return min(Outcome, key=lambda outcome: costs[outcome])


def load(path: Path | None = None) -> Policy:
    """Read a policy file. Raises `ConfigurationError` naming the file, the key and what was expected."""
    path = path or DEFAULT
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"TOLLGATE_POLICY_FILE: cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"TOLLGATE_POLICY_FILE: {path} is not TOML: {error}") from None
    names = [f.name for f in fields(Policy)]
    if unknown := sorted(set(raw) - set(names)):
        raise ConfigurationError(f"{path}: unknown keys {', '.join(unknown)}; known are {', '.join(names)}")
    if missing := [name for name in names if name not in raw]:
        raise ConfigurationError(f"{path}: missing keys {', '.join(missing)}")
    version = raw.pop("version")
    if not isinstance(version, str) or not version:
        raise ConfigurationError(f"{path}: version: expected a text, got {version!r}")
    for name, value in raw.items():
        top = 1.0 if name in ("review_recall", "margin") else float("inf")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= top:
            raise ConfigurationError(f"{path}: {name}: expected a number from 0 to {top:g}, got {value!r}")
    numbers = {name: float(value) for name, value in raw.items()}
    digest = hashlib.sha256(repr(sorted(numbers.items())).encode()).hexdigest()[:8]
    return Policy(version=f"{version}+{digest}", **numbers)
