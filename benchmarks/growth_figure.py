"""The figure of `growth.py`: a column an axis, time a frame above and peak memory below, a line a work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from growth import amount, curves

AXES = {
    "length": "frames",
    "size": "megapixels a frame",
    "classes": "classes",
    "candidates": "candidates",
    "views": "views",
}
STYLES = {
    "DVIS++ offline, R50": ("#1f5fa8", "o"),
    "predict, compact model": ("#c4622d", "s"),
    "vote over views": ("#2a8f5b", "^"),
    "vote of label maps": ("#8f5ba8", "v"),
    "choice of a model": ("#b0892a", "D"),
    "scores": ("#555555", "x"),
}


def draw(report: Mapping[str, Any], file: Path) -> None:
    """Write the figure; its format follows from the file's name."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    found = curves(report)
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(2, len(AXES), figsize=(12, 5.6), layout="constrained", sharey="row")
        for column, (axis, name) in enumerate(AXES.items()):
            upper, lower = axes[0, column], axes[1, column]
            for (work, over), points in found.items():
                if over != axis:
                    continue
                colour, marker = STYLES[work]
                across = [amount(one, axis) for one in points]
                line = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.2, "label": work}
                upper.plot(across, [1e3 * one["seconds_per_frame"] for one in points], **line)
                lower.plot(across, [one["peak_mib"] for one in points], **line)
            for panel in (upper, lower):
                panel.set_xscale("log")
                panel.grid(True, which="major", linewidth=0.4, alpha=0.5)
            lower.set_xlabel(name)
            ticks = sorted({amount(one, axis) for (_, over), points in found.items() if over == axis for one in points})
            for panel in (upper, lower):
                panel.set_xticks(ticks, [f"{tick:.2g}" if axis == "size" else f"{tick:.0f}" for tick in ticks])
                panel.minorticks_off()
        axes[0, 0].set_yscale("log")
        axes[1, 0].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("ms a frame")
        axes[1, 0].set_ylabel("peak memory of the process, MiB")
        handles = {
            label: handle for panel in axes[0] for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
        figure.savefig(file, dpi=110, metadata={"Software": None})
        pyplot.close(figure)
