"""A soak's ``samples.csv`` as a picture: memory, what is open, ages, rates and viewers over time.

python -m tests.benchmarks.plot samples.csv soak.png
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.benchmarks.growth import read

PANELS = (
    ("memory, MB", ("rss_mb", "uss_mb")),
    ("threads, descriptors", ("threads", "fds", "sockets")),
    ("age of frames, ms", ("age_p50_ms", "age_p99_ms", "sent_age_p50_ms", "sent_age_p99_ms")),
    ("frames a second", ()),  # whatever cameras there are
    ("viewers", ("viewers",)),
    ("CPU, % of a core", ("cpu_percent",)),
)


def missing() -> str | None:
    """What keeps ``draw`` from drawing, or None."""
    if find_spec("matplotlib") is None:
        return "needs matplotlib to draw: pip install -e '.[plots]', or make setup"
    return None


def draw(samples: Path, picture: Path) -> None:
    """Draw ``samples`` into ``picture`` (.png or .svg).

    In a process of its own: GStreamer loads libunwind for all, and a C++ exception of what is loaded after it,
    such as matplotlib's font reader, ends the process.

    Raises:
        subprocess.CalledProcessError: it cannot be drawn; why is on standard error.
    """
    command = [sys.executable, "-m", "tests.benchmarks.plot", str(samples.resolve()), str(picture.resolve())]
    subprocess.run(command, cwd=Path(__file__).resolve().parents[2], check=True)


def _draw(samples: Path, picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = read(samples)
    minutes = columns["elapsed_s"] / 60
    figure, axes = pyplot.subplots(len(PANELS), sharex=True, figsize=(11, 14), layout="constrained")
    for panel, (label, names) in zip(axes, PANELS, strict=True):
        for name in names or [name for name in columns if name.startswith("fps_")]:
            panel.plot(minutes, columns[name], label=name.removeprefix("fps_"), linewidth=0.9)
        _finish(panel, label)
    axes[-1].set_xlabel("minutes")
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def _finish(panel: Any, label: str) -> None:
    panel.set_ylabel(label)
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")


if __name__ == "__main__":
    _draw(Path(sys.argv[1]), Path(sys.argv[2]))
