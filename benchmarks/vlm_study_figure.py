"""The figure of docs/vlm.md: what correction does to CamVid's scores, by the accuracy of whoever answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NETS = {"enet": "ENet", "espnet": "ESPNet"}
RULES = {
    "1 view": "#c4622d",
    "3 views, all agree, shared errors": "#8a5a9e",
    "3 views, two agree": "#2a8f5b",
    "3 views, all agree": "#1f5fa8",
}
SHARES = ("-", "--", ":")
BARS = {"1 view": "#c4622d", "3 views, all agree": "#1f5fa8"}
FONT = 9
ZOOM = (-1.0, 1.0)

Row = Mapping[str, Any]


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Write the figure; its format follows from the file's name."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"font.size": FONT, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(3, 3, figsize=(11, 9), layout="constrained")
        for column, (net, name) in enumerate(NETS.items()):
            rows = [row for row in results["curves"] if row["net"] == net]
            for place in (0, 1):
                _draw_curves(axes[place, column], rows, score="", has_bands=place == 0)
            axes[1, column].set_ylim(*ZOOM)
            _draw_curves(axes[2, column], rows, score="VC8_", has_bands=True)
            axes[0, column].set_title(f"{name}: change of mIoU", fontsize=FONT + 1)
            axes[1, column].set_title(f"{name}: the same, near zero", fontsize=FONT + 1)
            axes[2, column].set_title(f"{name}: change of VC8", fontsize=FONT + 1)
        axes[0, 0].legend(frameon=False, fontsize=FONT - 1, loc="lower right")
        swaps = [row for row in results["swaps"] if row["flow"] == "farneback" and row["source"] == "ground truth"]
        for place, (kind, words) in enumerate({"whole": "all frames", "flicker": "half their frames"}.items()):
            _draw_swaps(axes[place, 2], [row for row in swaps if row["kind"] == kind])
            axes[place, 2].set_title(f"True labels swapped in {words}", fontsize=FONT + 1)
        axes[0, 2].set_ylim(bottom=-75)
        axes[0, 2].legend(frameon=False, fontsize=FONT - 1, loc="lower right")
        _draw_sizes(axes[2, 2], results["sizes"])
        for axis in axes[:, 0]:
            axis.set_ylabel("points")
        for axis in (*axes[2, :2], axes[1, 2]):
            axis.set_xlabel("right answers, %")
        figure.savefig(file, dpi=110, metadata={"Software": None})
        pyplot.close(figure)


def _draw_curves(axis: Any, rows: Sequence[Row], *, score: str, has_bands: bool) -> None:
    """A line for each rule; where asked for, a band of one standard deviation over seeds."""
    for row in rows:
        name, colour = row["rule"], RULES[row["rule"]]
        accuracies = [100 * accuracy for accuracy in row[f"{score}accuracies"]]
        deviations = row[f"{score}deviation"] if has_bands else [0.0] * len(accuracies)
        _line(axis, accuracies, row[f"{score}gain"], deviations, color=colour, label=name)
    axis.axhline(0, color="black", linewidth=0.8)


def _draw_swaps(axis: Any, rows: Sequence[Row]) -> None:
    for row, style in zip(rows, SHARES, strict=False):
        accuracies = [100 * accuracy for accuracy in row["accuracies"]]
        for rule, found in row["curves"].items():
            label = f"{rule}, {100 * row['share']:.0f} % of tubes"
            deviation = found["deviation"]
            _line(axis, accuracies, found["gain"], deviation, color=RULES[rule], linestyle=style, label=label)
    axis.axhline(0, color="black", linewidth=0.8)


def _line(axis: Any, places: list[float], means: list[float], deviations: list[float], **style: Any) -> None:
    low = [mean - deviation for mean, deviation in zip(means, deviations, strict=True)]
    high = [mean + deviation for mean, deviation in zip(means, deviations, strict=True)]
    axis.fill_between(places, low, high, color=style["color"], alpha=0.12, linewidth=0)
    axis.plot(places, means, linewidth=1.5, **style)


def _draw_sizes(axis: Any, rows: Sequence[Row]) -> None:
    """Both nets' change of mIoU with 90 % of the answers right, by the size of the tubes asked about."""
    bands = [row["tubes"] for row in rows if row["net"] == "enet" and " to " in row["tubes"]]
    width = 0.2
    for number, (net, name) in enumerate(NETS.items()):
        for offset, (rule, colour) in enumerate(BARS.items()):
            gains = [row["gain_at_90"][rule] for row in rows if row["net"] == net and row["tubes"] in bands]
            places = [place + (2 * number + offset - 1.5) * width for place in range(len(bands))]
            axis.bar(places, gains, width, color=colour, alpha=1 - 0.5 * number, label=f"{name}, {rule}")
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(bands)), [band.replace(" to ", "-") for band in bands])
    axis.set_xlabel("share of the frame that a tube covers")
    axis.set_title("By size of the tubes, 90 % right", fontsize=FONT + 1)
    axis.legend(frameon=False, fontsize=FONT - 1, loc="lower left")
