"""The picture of a focus scan: the widths, the fit, and the spots that they were taken from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bluesky_plugins.adaptive import FocusFit
from bluesky_plugins.cli.focus_runs import FocusRun

__all__ = ["draw_focus"]

SPOTS = 6
DATASET = "/entry/data"
BLUE, RED, GREY = "#1f77b4", "#c0392b", "0.55"


def draw_focus(
    runs: Sequence[FocusRun], fit: FocusFit, path: Path, *, title: str, true: float | None
) -> None:
    """Draw it into a PNG file.

    :param runs: with their widths, in the order of their measurement.
    :param true: the true focus, mm, if the beamline is a simulated one.
    :raises OSError: if the file cannot be written, or a frame not be read.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.4), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[2.6, 1])
    upper, lower = halves
    figure.suptitle(title, fontsize=11)
    _draw_widths(upper.subplots(), runs, fit, true)
    shown = _some([run for run in runs if run.frames is not None])
    if shown:
        _draw_spots(lower, shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _some(runs: Sequence[FocusRun]) -> list[FocusRun]:
    """Some of them: the last, and others all over the scan."""
    chosen = np.unique(np.linspace(0, len(runs) - 1, min(SPOTS, len(runs))).round())
    return [runs[int(index)] for index in chosen]


def _draw_widths(axes: Any, runs: Sequence[FocusRun], fit: FocusFit, true: float | None) -> None:
    zs = np.array([run.position for run in runs])
    widths = np.array([run.numbers["width"] for run in runs])
    margin = 0.06 * max(float(np.ptp(zs)), 1e-9)
    smooth = np.linspace(zs.min() - margin, zs.max() + margin, 400)
    axes.plot(smooth, fit.width(smooth), color=GREY, zorder=1, label="fit")
    axes.axvline(fit.best, color=RED, linewidth=1.5, label=f"best focus {fit.best:.3f} mm")
    if true is not None:
        label = f"true focus {true:.3f} mm"
        axes.axvline(true, color="k", linewidth=1.5, linestyle=(0, (1, 3)), label=label)
    axes.scatter(zs, widths, color=BLUE, s=38, zorder=3, label="width by processing")
    labels: dict[float, list[str]] = {}
    for run, z in zip(runs, zs, strict=True):
        # Points within a pixel of each other share their label.
        near = next((known for known in labels if abs(known - z) < margin / 4), z)
        labels.setdefault(near, []).append(str(run.count))
    for z, counts in labels.items():
        width = float(widths[zs.tolist().index(z)])
        axes.annotate(
            ", ".join(counts),
            (z, width),
            (0, 11),
            textcoords="offset points",
            ha="center",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
        )
    axes.set(xlabel="focus (mm)", ylabel="width of the spot (pixels)")
    axes.set(xlim=(smooth[0], smooth[-1]), ylim=(0, 1.15 * float(widths.max())))
    axes.legend(loc="upper right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_spots(figure: Any, runs: Sequence[FocusRun]) -> None:
    from matplotlib.colors import PowerNorm

    images = [_frame(run) for run in runs]
    # Of the square root, so that a wide spot is seen beside a sharp one.
    top = max(float(image.max()) for image in images)
    scale = PowerNorm(0.5, min(float(image.min()) for image in images), top)
    for axes, run, image in zip(
        np.atleast_1d(figure.subplots(1, len(runs))), runs, images, strict=True
    ):
        axes.imshow(image, cmap="magma", norm=scale, origin="lower")
        x, y, width = (run.numbers[name] for name in ("x", "y", "width"))
        angle = np.linspace(0, 2 * np.pi, 100)
        ring = 2 * width
        axes.plot(x + ring * np.cos(angle), y + ring * np.sin(angle), "w", linewidth=0.8)
        axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(-0.5, image.shape[0] - 0.5))
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{run.count}: {run.position:.2f} mm", fontsize=9)
        axes.set_xlabel(f"width {width:.2f} px", fontsize=9)


def _frame(run: FocusRun) -> Any:
    import h5py

    if run.frames is None:
        raise OSError(f"run {run.uid} has no frames")
    with h5py.File(run.frames) as file:
        return np.asarray(file[DATASET][0], dtype=float)
