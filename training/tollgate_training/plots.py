"""The pictures of a training run: precision against recall, calibration, and which features matter.

In: the scored test rows and the booster. Out: PNG files in a folder. Next: `tollgate_training.register` uploads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve

from tollgate_training.evaluate import Scored

BINS = 20


def write(folder: Path, scored: Scored, average_precision: float, importance: dict[str, float]) -> None:
    """Write `precision_recall.png`, `calibration.png` and `importance.png`; `importance` is gain by feature."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def save(name: str, draw: Any) -> None:
        figure = Figure(figsize=(6, 5), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.subplots())
        figure.savefig(folder / f"{name}.png", dpi=110)

    save("precision_recall", lambda axes: _precision_recall(axes, scored, average_precision))
    save("calibration", lambda axes: _calibration(axes, scored))
    save("importance", lambda axes: _importance(axes, importance))


def _precision_recall(axes: Any, scored: Scored, average_precision: float) -> None:
    precision, recall, _ = precision_recall_curve(scored.fraud, scored.probability)
    axes.plot(recall, precision, drawstyle="steps-post")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"Test days, average precision {average_precision:.3f}")


def _calibration(axes: Any, scored: Scored) -> None:
    """Mean probability against the share of frauds, in bins of equal width on the log-odds axis."""
    p = np.clip(scored.probability, 1e-6, 1 - 1e-6)
    bins = np.digitize(np.log(p / (1 - p)), np.linspace(-7, 7, BINS - 1))
    filled = [bins == b for b in range(BINS) if (bins == b).any()]
    axes.plot([1e-5, 1], [1e-5, 1], color="0.6", linewidth=1)
    axes.plot([p[b].mean() for b in filled], [max(scored.fraud[b].mean(), 1e-5) for b in filled], "o-")
    axes.set(xscale="log", yscale="log", xlabel="calibrated probability", ylabel="share of frauds")
    axes.set_title("Calibration on the test days")


def _importance(axes: Any, importance: dict[str, float]) -> None:
    ordered = sorted(importance.items(), key=lambda item: item[1])
    axes.barh([name for name, _ in ordered], [gain for _, gain in ordered])
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("share of the total gain")
    axes.set_title("Feature importance")
