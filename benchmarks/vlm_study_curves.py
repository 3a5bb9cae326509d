"""What answerers of every accuracy do to the scores of some cases, and what right answers could bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from camvid_scores import NUM_CLASSES, Clip
from torch import Tensor
from vlm_study_answers import NONE, Errors, break_even
from vlm_study_cases import Case, case_of, consistency, draw, mean_iou_after, mean_iou_of, new_classes, painted

from mvcseg.flow import FlowEstimator
from mvcseg.vlm import Group

ACCURACIES = (*(round(percent / 100, 2) for percent in range(50, 99, 2)), 0.99, 1.0)
VC_ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.98, 1.0)
RULES: Mapping[str, tuple[int, float, Errors]] = {
    "1 view": (1, 1.0, "independent"),
    "3 views, all agree": (3, 1.0, "independent"),
    "3 views, two agree": (3, 2 / 3, "independent"),
    "3 views, all agree, shared errors": (3, 1.0, "shared"),
}
"""Views, agreement and errors."""

Predictions = Mapping[str, Tensor]
Row = dict[str, Any]


def cases_of(
    clips: Sequence[Clip],
    labels: Predictions,
    *,
    groups: Sequence[Group],
    flow: FlowEstimator | None,
    min_area: float = 0.001,
) -> list[Case]:
    """The cases of several videos."""
    return [case_of(clip, labels[clip.name], groups=groups, flow=flow, min_area=min_area) for clip in clips]


def curve(cases: Sequence[Case], *, rule: str, seeds: int, accuracies: Sequence[float] = ACCURACIES) -> Row:
    """Change of mIoU, in points, by the answerer's accuracy, and where it begins to pay."""
    views, agreement, errors = RULES[rule]
    before = base(cases)
    gains = []
    for seed in range(seeds):
        lots = [draw(case, seed=seed, errors=errors) for case in cases]
        gains.append(
            [
                mean_iou_after(
                    cases,
                    [
                        new_classes(case, lot, accuracy=accuracy, views=views, agreement=agreement)
                        for case, lot in zip(cases, lots, strict=True)
                    ],
                )
                - before
                for accuracy in accuracies
            ]
        )
    table = np.round(np.array(gains), 9)
    points = [break_even(accuracies, row) for row in table.tolist()]
    found = [point for point in points if point is not None]
    return {
        "rule": rule,
        "seeds": seeds,
        "accuracies": list(accuracies),
        "mIoU": round(before, 4),
        "gain": rounded(table.mean(axis=0)),
        "deviation": rounded(table.std(axis=0, ddof=1) if seeds > 1 else np.zeros(len(accuracies))),
        "break_even": {
            "of_mean": percent_or_none(break_even(accuracies, table.mean(axis=0).tolist())),
            "mean": percent_or_none(float(np.mean(found)) if found else None),
            "deviation": percent_or_none(float(np.std(found, ddof=1)) if len(found) > 1 else None),
            "never": len(points) - len(found),
        },
    }


def base(cases: Sequence[Case]) -> float:
    """Mean IoU in percent before any correction."""
    return mean_iou_after(cases, [np.full(len(case.questions), NONE, np.int64) for case in cases])


def consistency_curve(cases: Sequence[Case], *, rule: str, seeds: int) -> Row:
    """Change of VC8, in points, by accuracy."""
    views, agreement, errors = RULES[rule]
    before = consistency(cases, [case.labels for case in cases])
    gains = []
    for seed in range(seeds):
        lots = [draw(case, seed=seed, errors=errors) for case in cases]
        row = []
        for accuracy in VC_ACCURACIES:
            news = (
                new_classes(case, lot, accuracy=accuracy, views=views, agreement=agreement)
                for case, lot in zip(cases, lots, strict=True)
            )
            labels = [painted(case, new) for case, new in zip(cases, news, strict=True)]
            row.append(consistency(cases, labels) - before)
        gains.append(row)
    return {
        "VC8": round(before, 4),
        "VC8_accuracies": list(VC_ACCURACIES),
        "VC8_gain": rounded(np.mean(gains, axis=0)),
        "VC8_deviation": rounded(np.std(gains, axis=0, ddof=1) if seeds > 1 else np.zeros(len(VC_ACCURACIES))),
    }


def about(cases: Sequence[Case], *, groups: Sequence[Group]) -> Row:
    """Questions, what share of the errors they can reach, and what right answers would bring."""
    confusion = sum(case.confusion for case in cases)
    inside = np.zeros(confusion.shape, dtype=bool)
    for group in groups:
        inside[np.ix_(group.class_ids, group.class_ids)] = True
    np.fill_diagonal(inside, False)
    wrong = confusion.sum() - np.trace(confusion)
    frames = [question.tube.frames for case in cases for question in case.questions]
    right = [draw(case, seed=0, errors="independent") for case in cases]
    news = [new_classes(case, lot, accuracy=1.0) for case, lot in zip(cases, right, strict=True)]
    before = base(cases)
    return {
        "videos": len(cases),
        "frames": sum(len(case.labels) for case in cases),
        "questions": sum(len(case.questions) for case in cases),
        "too_small": sum(case.too_small for case in cases),
        "pictures": sum(len(views) for case in cases for views in case.asked),
        "mean_frames": round(float(np.mean([last - first + 1 for first, last in frames])), 2) if frames else 0.0,
        "no_truth": sum(views[0].truth is None for case in cases for views in case.asked),
        "needing_change": sum(int((new != NONE).sum()) for new in news),
        "errors_inside": round(float(confusion[inside].sum() / wrong), 4),
        "mIoU": round(before, 4),
        "ceiling_pixels": round(_pixel_ceiling(confusion, inside) - before, 4),
        "ceiling": round(mean_iou_after(cases, news) - before, 4),
        "VC8_ceiling": round(
            consistency(cases, [painted(case, new) for case, new in zip(cases, news, strict=True)])
            - consistency(cases, [case.labels for case in cases]),
            4,
        ),
    }


def _pixel_ceiling(confusion: np.ndarray, inside: np.ndarray) -> float:
    """Mean IoU if every pixel confused within a group were right."""
    mended = np.where(inside, 0, confusion)
    mended[np.arange(NUM_CLASSES), np.arange(NUM_CLASSES)] += np.where(inside, confusion, 0).sum(axis=1)
    return mean_iou_of(mended)


def rounded(values: np.ndarray) -> list[float]:
    """Four digits behind the point, as Python's floats."""
    return [round(float(value), 4) for value in values]


def percent_or_none(value: float | None) -> float | None:
    """A share in percent."""
    return None if value is None else round(100 * value, 2)
