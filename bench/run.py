"""`python -m bench.run NAME [--quick]`: run one benchmark, show its table, exit 4 when a target is missed."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import page, report

console = Console(stderr=True, highlight=False)


def main() -> int:
    """The command."""
    here = Path(__file__).parent
    known = sorted(f.stem for f in here.glob("*.py") if f.stem not in ("__init__", "page", "report", "run"))
    parser = argparse.ArgumentParser(prog="make bench NAME=...")
    parser.add_argument("name", choices=known, help="which benchmark")
    parser.add_argument("--quick", action="store_true", help="a short form for a first look")
    options = parser.parse_args()
    began = time.monotonic()
    metrics, details = importlib.import_module(f"bench.{options.name}").run(quick=options.quick)
    file = report.write(options.name, metrics, time.monotonic() - began, {"quick": options.quick, **details})
    table = Table("metric", "value", "unit", "target", "met", "note", box=None)
    for metric in metrics:
        met = {None: "", True: "[green]yes[/]", False: "[bold red]no[/]"}[metric.ok]
        target = "" if metric.target is None else f"{metric.target:g}"
        table.add_row(metric.name, f"{metric.value:,.4g}", metric.unit, target, met, metric.note)
    console.print(table)
    console.print(f"written to {file.relative_to(here.parent)} and {page.write().relative_to(here.parent)}")
    return 4 if any(metric.ok is False for metric in metrics) else 0


if __name__ == "__main__":
    sys.exit(main())
