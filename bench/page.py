"""docs/results.md and its plots, made anew from bench/results/*.json after every benchmark.

In: result files. Out: one table a benchmark, and for stages a bar chart as SVG beside the page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.report import RESULTS

DOCS = RESULTS.parents[1] / "docs"


def write() -> Path:
    """Write the page from every result there is; returns its file."""
    lines = [
        "# Results",
        "",
        "Made by `make bench` from `bench/results/*.json`: what was measured, on the machine that is named, with",
        "everything (Kafka, Spark, Postgres, the load itself) on the same two cores. Compare ratios, not machines.",
        "",
    ]
    for file in sorted(RESULTS.glob("*.json")):
        result = json.loads(file.read_text("utf-8"))
        lines += _section(result)
    page = DOCS / "results.md"
    page.write_text("\n".join(lines), "utf-8")
    return page


def _section(result: dict[str, Any]) -> list[str]:
    machine, quick = result["machine"], result.get("details", {}).get("quick")
    lines = [
        f"## {result['name']}{' (quick form)' if quick else ''}",
        "",
        f"Commit {result['commit']}, {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, "
        f"{result['seconds']:.0f} s in all. " + ", ".join(f"{k} {v}" for k, v in result["versions"].items()) + ".",
        "",
        "| metric | value | target | met | note |",
        "|---|---|---|---|---|",
    ]
    stages = []
    for metric in result["metrics"]:
        if metric["name"].startswith("stage_"):
            stages.append((metric["name"].removeprefix("stage_"), metric["value"]))
        sign = "at least" if metric["better"] == "higher" else "at most"
        target = "" if metric["target"] is None else f"{sign} {metric['target']:g}"
        met = {None: "", True: "yes", False: "**no**"}[metric["ok"]]
        note = "; ".join(text for text in (metric["note"], metric["limit"]) if text)
        lines.append(f"| {metric['name']} | {metric['value']:,.4g} {metric['unit']} | {target} | {met} | {note} |")
    lines.append("")
    if stages:
        image = _bars(result["name"], stages)
        lines += [f"![mean milliseconds by stage]({image.name})", ""]
    return lines


def _bars(name: str, stages: list[tuple[str, float]]) -> Path:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = name
    from matplotlib import pyplot as plt

    names, values = zip(*sorted(stages, key=lambda stage: stage[1]), strict=True)
    figure, axes = plt.subplots(figsize=(7, 0.4 * len(names) + 1))
    bars = axes.barh(names, values, color="#3b6ea5")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlabel("mean milliseconds")
    axes.set_title(f"{name}: where the time goes")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.tight_layout()
    file = DOCS / f"results-{name}.svg"
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    return file
