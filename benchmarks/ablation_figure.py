"""The figure of docs/results.md: what MVC changed, seed by seed, and how that depends on its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablation_plan import CENTRE, LONG, VARIATIONS
from ablation_statistics import difference
from ablation_tables import MODEL_NAMES, by_seed, models_of, reader, varied_seeds

PANELS = {"mIoU": "mIoU", "VC8": "VC8", "VC16": "VC16", "hidden 16": "mIoU, half hidden"}
BASELINES = {"plain": ("same steps", "#1f5fa8"), "plain-twice": ("same computing", "#c4622d")}
LENGTHS = {"": ("steps as above", "#1f5fa8"), LONG: ("four times as many", "#2a8f5b")}
FONT = 9


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Write the figure; its format follows from the file's name."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"font.size": FONT, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(3, len(PANELS), figsize=(11, 8.6), layout="constrained")
        for column, (score, title) in enumerate(PANELS.items()):
            _draw_models(axes[0, column], results, score)
            _draw_lengths(axes[1, column], results, score)
            _draw_masks(axes[2, column], results, score)
            axes[0, column].set_title(title, fontsize=FONT + 1)
        for row, label in enumerate(("MVC minus plain", "MVC minus plain", "temporal: MVC minus plain")):
            axes[row, 0].set_ylabel(label)
        for row, column in ((0, 0), (1, 1)):  # where nothing is drawn below on the left
            handles, labels = axes[row, column].get_legend_handles_labels()
            legend = {"frameon": False, "fontsize": FONT - 2, "handletextpad": 0.3, "loc": "lower left"}
            axes[row, column].legend(handles, labels, **legend)
        figure.savefig(file, dpi=110, metadata={"Software": None})
        pyplot.close(figure)


def _draw_models(axis: Any, results: Mapping[str, Any], score: str) -> None:
    """A column for each model: the difference to either baseline of every seed, and the mean."""
    models = models_of(results)
    for offset, (baseline, (label, colour)) in zip((-0.17, 0.17), BASELINES.items(), strict=True):
        for place, model in enumerate(models):
            values, base = (by_seed(results, model, method, reader(score)) for method in ("mvc", baseline))
            _draw_pairs(axis, place + offset, values, base, colour=colour, label=label if place == 0 else None)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(models)), [_short(model) for model in models])
    axis.set_xlim(-0.6, len(models) - 0.4)


def _draw_lengths(axis: Any, results: Mapping[str, Any], score: str) -> None:
    """A column for each model: the difference after the steps above and after four times as many, over equal seeds."""
    models = [model for model in models_of(results) if by_seed(results, model + LONG, "mvc", reader(score))]
    for offset, (suffix, (label, colour)) in zip((-0.17, 0.17), LENGTHS.items(), strict=True):
        for place, model in enumerate(models):
            seeds = by_seed(results, model + LONG, "mvc", reader(score))
            found = by_seed(results, model + suffix, "mvc", reader(score))
            values = {seed: value for seed, value in found.items() if seed in seeds}
            base = by_seed(results, model + suffix, "plain", reader(score))
            _draw_pairs(axis, place + offset, values, base, colour=colour, label=label if place == 0 else None)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(models)), [_short(model) for model in models])
    axis.set_xlim(-0.6, max(len(models), 1) - 0.4)


def _short(model: str) -> str:
    return MODEL_NAMES[model].split(" (")[0].replace("small ", "")


def _draw_masks(axis: Any, results: Mapping[str, Any], score: str) -> None:
    """A column for each set of mask numbers of the compact model."""
    plain = by_seed(results, "compact", "plain", reader(score))
    names = []
    for mask in (CENTRE, *VARIATIONS):
        found = by_seed(results, "compact", "mvc", reader(score), mask=mask)
        values = {seed: value for seed, value in found.items() if seed in varied_seeds(results)}
        _draw_pairs(axis, len(names), values, plain, colour=BASELINES["plain"][1])
        names.append(_changed(mask))
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    axis.set_xlim(-0.6, len(names) - 0.4)


def _changed(mask: Any) -> str:
    """The number in which a mask differs from the centre."""
    names = {"patch_size": "cell {} px", "ratio": "ratio {:g}", "weight": "lambda {:g}"}
    changed = [names[key].format(value) for key, value in vars(mask).items() if value != vars(CENTRE)[key]]
    return changed[0] if changed else "as above"


def _draw_pairs(
    axis: Any,
    place: float,
    values: Mapping[int, float],
    base: Mapping[int, float],
    *,
    colour: str,
    label: str | None = None,
) -> None:
    seeds = sorted(set(values) & set(base))
    if not seeds:
        return
    found = difference(values, base)
    gaps = [values[seed] - base[seed] for seed in seeds]
    axis.plot([place - 0.09] * len(gaps), gaps, ".", color=colour, alpha=0.45, markersize=5)
    error = found.error if found.n > 1 else 0.0
    axis.errorbar(
        [place + 0.05], [found.mean], yerr=[error], fmt="o", color=colour, capsize=3, markersize=5, label=label
    )
