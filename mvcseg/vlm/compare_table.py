"""A comparison of models as text of at most 80 columns, and as a value for JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from mvcseg.data.files import shown
from mvcseg.vlm.agreement import Agreement
from mvcseg.vlm.comparison import Compared, Comparison, Price
from mvcseg.vlm.prompt import in_one_line

_WIDTH = 80
_NAME = 22
AS_LABELLED = "(labels as they are)"
"""The row of those who ask nobody."""


def comparison_table(comparison: Comparison) -> str:
    """What came of a comparison, for a terminal of 80 columns."""
    plan, models = comparison.plan, comparison.models
    parts = [_heading(comparison)]
    if plan.questions:
        parts.append("\n".join(_answers(comparison)))
        if comparison.has_truth:
            parts.append("\n".join(_consequences(comparison)))
        parts.append("\n".join(_costs(models)))
        pairs = [pair for pair in comparison.pairs if pair.both]
        if pairs:
            parts.append("\n".join(_agreements(pairs)))
    parts += [_wrapped(f"{shown(model.name)}: {in_one_line(model.trouble)}") for model in models if model.trouble]
    return "\n\n".join(parts)


def comparison_value(
    comparison: Comparison, *, class_names: Sequence[str], prices: Mapping[str, Price] | None = None
) -> dict[str, Any]:
    """What came of a comparison as a value that JSON can hold; shares are fractions, unrounded."""
    return {
        "questions": [
            {
                "question": question.text,
                "group": question.noun,
                "frames": list(question.tube.frames),
                "views": list(question.frames),
                "region": list(question.tube.box),
                "pixels": question.tube.pixels,
                "from": class_names[question.tube.shares[0][0]],
                "truth": None if truth is None else class_names[truth],
                "answers": {model.name: model.changes[position].to_name for model in comparison.models},
            }
            for position, (question, truth) in enumerate(zip(comparison.plan.questions, comparison.truths, strict=True))
        ],
        "skipped": len(comparison.plan.skipped),
        "too_small": comparison.plan.too_small,
        "too_large": comparison.plan.too_large,
        "has_truth": comparison.has_truth,
        "known": comparison.known,
        "not_offered": comparison.not_offered,
        "right_before": comparison.right_before,
        "models": [_model_value(model, price=(prices or {}).get(model.name)) for model in comparison.models],
        "agreement": [
            {
                "models": [pair.first, pair.second],
                "both": pair.both,
                "equal": pair.equal,
                "share": pair.share,
                "kappa": pair.kappa,
            }
            for pair in comparison.pairs
        ],
    }


def _model_value(model: Compared, *, price: Price | None) -> dict[str, Any]:
    names = ("name", "answered", "unclear", "failed", "judged", "right", "mended", "spoilt", "mended_pixels")
    value = {name: getattr(model, name) for name in (*names, "spoilt_pixels", "kept", "calls", "seconds")}
    usage = model.usage
    return value | {
        "accuracy": model.right / model.judged if model.judged else None,
        "prompt_tokens": None if usage is None else usage.prompt_tokens,
        "completion_tokens": None if usage is None else usage.completion_tokens,
        "calls_without_tokens": model.calls - (0 if usage is None else usage.requests - usage.unreported),
        "price": None if price is None else {"input": price.input, "output": price.output},
        "cost": model.cost,
        "trouble": model.trouble,
    }


def _heading(comparison: Comparison) -> str:
    plan = comparison.plan
    text = f"{_counted(len(plan.questions), 'question')} to each model, at most {_counted(plan.count, 'picture')}"
    more = []
    if plan.skipped:
        more.append(f"{len(plan.skipped)} left out")
    if plan.too_small:
        more.append(f"{_counted(plan.too_small, 'region')} too small to ask about")
    if plan.too_large:
        more.append(f"{_counted(plan.too_large, 'region')} larger than --max-area")
    text += f" ({', '.join(more)})." if more else "."
    if comparison.has_truth:
        text += (
            f" By ground truth {comparison.known} have a right answer, the class of more than half of the region's "
            f"labelled pixels; {comparison.not_offered} are about regions of a class that is not offered."
        )
    return _wrapped(text)


def _answers(comparison: Comparison) -> list[str]:
    lines = [_line("", "answered", "unclear", "failed", *(("right",) if comparison.has_truth else ()))]
    if comparison.has_truth:
        lines.append(_line(AS_LABELLED, "", "", "", _of(comparison.right_before, comparison.known)))
    for model in comparison.models:
        right = (_of(model.right, model.judged),) if comparison.has_truth else ()
        lines.append(_line(model.name, str(model.answered), str(model.unclear), str(model.failed), *right))
    return lines


def _consequences(comparison: Comparison) -> list[str]:
    right, wrong = "wrong->right", "right->wrong"
    lines = [
        f"{'Following the answers':<{_NAME}} {'regions':>27}  {'labelled pixels':>28}",
        f"{'':<{_NAME}} {right:>13} {wrong:>13}  {right:>14} {wrong:>13}",
    ]
    for model in comparison.models:
        lines.append(
            f"{_name(model.name)} {model.mended:>13} {model.spoilt:>13}  {model.mended_pixels:>14,} "
            f"{model.spoilt_pixels:>13,}"
        )
    return lines


def _costs(models: Sequence[Compared]) -> list[str]:
    lines = [f"{'Asked now':<{_NAME}} {'calls':>6} {'s each':>8} {'tokens in':>11} {'out':>8} {'cost':>9} {'kept':>8}"]
    for model in models:
        seconds = f"{model.seconds / model.calls:.2f}" if model.calls else "-"
        usage = model.usage
        tokens = ("-", "-") if usage is None else (f"{usage.prompt_tokens:,}", f"{usage.completion_tokens:,}")
        cost = "-" if model.cost is None or not model.calls else f"{model.cost:.4f}"
        lines.append(
            f"{_name(model.name)} {model.calls:>6} {seconds:>8} {tokens[0]:>11} {tokens[1]:>8} {cost:>9} "
            f"{model.kept:>8}"
        )
    if any(model.kept for model in models):
        lines.append(
            _wrapped("Kept and recorded answers were free and took no time; they are in no figure beside them.")
        )
    silent = [model for model in models if model.usage is not None and model.usage.unreported]
    if silent:
        names = ", ".join(shown(model.name) for model in silent)
        lines.append(_wrapped(f"Not every answer of {names} said its tokens: tokens and cost are too low."))
    return lines


def _agreements(pairs: Sequence[Agreement]) -> list[str]:
    lines = [f"{'Agreement':<{2 * _NAME + 3}} {'equal answers':>17} {'kappa':>8}"]
    for pair in pairs:
        names = f"{_name(pair.first).rstrip()} / {_name(pair.second).rstrip()}"
        kappa = "-" if pair.kappa is None else f"{pair.kappa:.2f}"
        lines.append(f"{names:<{2 * _NAME + 3}} {_of(pair.equal, pair.both):>17} {kappa:>8}")
    return lines


def _line(name: str, *cells: str) -> str:
    return " ".join(
        [_name(name), *(f"{cell:>9}" for cell in cells[:3]), *(f"{cell:>20}" for cell in cells[3:])]
    ).rstrip()


def _name(name: str) -> str:
    text = shown(name)
    return f"{text if len(text) <= _NAME else text[: _NAME - 3] + '...':<{_NAME}}"


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}, {100 * part / whole:5.1f} %" if whole else "-"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=_WIDTH)
