"""From Kafka's append to the decision: latency at a steady rate with the stages that make it up, and throughput.

In: an embedded platform of its own (home .tollgate/bench). Out: metrics with the issue's targets. The load goes to
this machine's loopback only, and is bounded in count and time.
"""

from __future__ import annotations

import re
import urllib.request
from collections import defaultdict
from typing import Any

from tests.kit.platform import CHECKOUT, RunningPlatform, running

from bench.report import Metric

PORT_BASE = 23_000
_SAMPLE = re.compile(r"^tollgate_stage_seconds_(sum|count)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'stage="([^"]+)"')
_METRICS = ("decide_metrics", "record_metrics", "model")


def run(*, quick: bool) -> tuple[list[Metric], dict[str, Any]]:
    """200/s for 60 s (quick: 15 s), then as many as it can take."""
    seconds, flood = (15, 3_000) if quick else (60, 20_000)
    with running(CHECKOUT / ".tollgate" / "bench", PORT_BASE, size=()) as platform:  # the world of `make up`
        platform.settle(platform.stream(3_000, rate=200))  # warm: connections, caches, the JVM's compiler
        before = _stages(platform)
        steady = platform.settle(platform.stream(200 * seconds, rate=200))
        stages = _between(before, _stages(platform))
        burst = platform.settle(platform.stream(flood, rate=0))
    lost = len(steady.problems) + len(burst.problems)
    metrics = [
        Metric("latency_p99_at_200_per_s", steady.p99_ms or 0.0, "ms", "lower", 250.0, note="Kafka append to decision"),
        Metric("latency_p50_at_200_per_s", steady.p50_ms or 0.0, "ms", "lower", note="Kafka append to decision"),
        Metric("lost_or_differing", float(lost), "records", "lower", 0.0, note="problems in the account of both runs"),
        Metric(
            "decisions_per_second",
            burst.in_ledger / burst.span_s,
            "1/s",
            "higher",
            limit="two cores run every part and the load",
        ),
        *(Metric(f"stage_{name}", 1000 * mean, "ms", "lower", note="mean") for name, mean in sorted(stages.items())),
    ]
    return metrics, {"transactions": {"steady": 200 * seconds, "burst": flood}}


def _stages(platform: RunningPlatform) -> dict[str, tuple[float, float]]:
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name in _METRICS:
        with urllib.request.urlopen(f"{platform.layout.url(name)}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        for kind, labels, value in _SAMPLE.findall(text):
            stage = _LABEL.search(labels)
            if stage:
                key = f"{name.removesuffix('_metrics')}_{stage[1]}"
                found[key][0 if kind == "sum" else 1] += float(value)
    return {name: (total, count) for name, (total, count) in found.items()}


def _between(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> dict[str, float]:
    means = {}
    for name, (total, count) in after.items():
        earlier = before.get(name, (0.0, 0.0))
        if count > earlier[1]:
            means[name] = (total - earlier[0]) / (count - earlier[1])
    return means
