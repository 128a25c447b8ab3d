"""Precision against recall, one line a class. Needs matplotlib; knows nothing of where the curves come from."""

from __future__ import annotations

from pathlib import Path

from models.voc_evaluate import Curve

_MOST_NAMED = 20
"""More lines than colours: then they have no names."""


def draw_curves(curves: dict[str, Curve], picture: Path) -> None:
    """Draw curves with their average precision (area) into ``picture``, a .png, .svg or .pdf.

    Raises:
        ModuleNotFoundError: matplotlib is not there.
        OSError, ValueError: the file cannot be written, or is of a kind that matplotlib does not know.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the machine has
    axes = figure.subplots()
    for name, curve in curves.items():
        # From the first detection on: what lies left of it is no measurement.
        axes.plot(curve.recall, curve.precision, label=f"{name}  {curve.area():.3f}", linewidth=1.2)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="IoU 0.5")
    axes.grid(alpha=0.3)
    if len(curves) <= _MOST_NAMED:
        axes.legend(title="class  AP", loc="lower left", fontsize="small")
    figure.savefig(picture, dpi=110)
