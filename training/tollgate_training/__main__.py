"""`python -m tollgate_training --history DIR`: train and register from a shell or a Kubernetes Job.

In: arguments, MLFLOW_TRACKING_URI, TOLLGATE_ARTIFACT_ROOT, TOLLGATE_POLICY_FILE. Out: a line per stage on stderr and
one line of JSON on stdout. Exit codes: 0 registered, 1 failed, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tollgate import policy
from tollgate.errors import TollgateError
from tollgate.settings import Settings
from tollgate_training.run import run
from tollgate_training.split import Protocol


def main(arguments: list[str] | None = None) -> int:
    """Run it; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        outcome = run(
            options.history,
            policy=policy.load(Settings.read().policy_file),
            protocol=Protocol(
                train_days=options.days,
                valid_days=options.valid_days,
                delay_days=options.delay_days,
                test_days=options.test_days,
                drop_known=not options.keep_known,
            ),
            seed=options.seed,
            progress=_say,
        )
    except TollgateError as error:
        sys.stderr.write(f"tollgate_training: {error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    default = Protocol()
    parser = argparse.ArgumentParser("tollgate_training", description="Train the fraud model and register it.")
    parser.add_argument("--history", type=Path, required=True, help="folder or file of Parquet or CSV")
    for flag, value, what in (
        ("--days", default.train_days, "train on at most so many days"),
        ("--valid-days", default.valid_days, "days that stop the training and calibrate"),
        ("--delay-days", default.delay_days, "days a label takes"),
        ("--test-days", default.test_days, "days to measure on"),
        ("--seed", 0, "equal seed and data give equal model bytes"),
    ):
        parser.add_argument(flag, type=int, default=value, metavar="N", help=f"{what} (default {value})")
    parser.add_argument(
        "--keep-known", action="store_true", help="measure with the cards already known as compromised, too"
    )
    return parser


def _say(stage: str, seconds: float, result: str) -> None:
    sys.stderr.write(f"{stage:<9} {seconds:6.1f} s  {result}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
