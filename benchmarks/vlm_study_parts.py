"""The measurements of the study; each returns rows that go into the stored results as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product

import numpy as np
from camvid_scores import NUM_CLASSES, Clip
from camvid_segmenters import CLASS_NAMES
from torch import Tensor
from vlm_study_answers import NONE, Answerer, break_even
from vlm_study_cases import Case, case_of, draw, mean_iou_after, new_classes, painted
from vlm_study_curves import (
    ACCURACIES,
    RULES,
    Predictions,
    Row,
    about,
    base,
    cases_of,
    consistency_curve,
    curve,
    percent_or_none,
    rounded,
)
from vlm_study_swaps import share_of_pixels, swapped

from mvcseg.flow import FlowEstimator
from mvcseg.metrics import MeanIoU
from mvcseg.vlm import Group, correct_labels

SHOWN_RULES = ("1 view", "3 views, all agree")
AREAS = (0.0003, 0.001, 0.003, 0.01, 0.03)
BANDS = (0.001, 0.003, 0.01, 0.03, 1)
"""Shares of a frame."""


def measure_curves(
    clips: Sequence[Clip], nets: Mapping[str, Predictions], *, groups: Sequence[Group], flow: FlowEstimator, seeds: int
) -> list[Row]:
    """Mean IoU and VC8 by accuracy, for every net and rule."""
    rows = []
    for net, labels in nets.items():
        cases = cases_of(clips, labels, groups=groups, flow=flow)
        for rule in RULES:
            row = {"net": net} | curve(cases, rule=rule, seeds=seeds)
            rows.append(row | consistency_curve(cases, rule=rule, seeds=max(2, seeds // 5)))
    return rows


def measure_groups(
    clips: Mapping[str, Sequence[Clip]],
    nets: Mapping[str, Mapping[str, Predictions]],
    *,
    sets: Callable[[str], Mapping[str, Sequence[Group]]],
    flow: FlowEstimator,
    seeds: int,
) -> list[Row]:
    """Every split and net with every set of groups."""
    rows = []
    for split, split_clips in clips.items():
        for net, labels in nets[split].items():
            for name, groups in sets(split).items():
                cases = cases_of(split_clips, labels, groups=groups, flow=flow)
                listed = [[CLASS_NAMES[index] for index in group.class_ids] for group in groups]
                row = {"split": split, "net": net, "set": name, "groups": listed} | about(cases, groups=groups)
                rows.append(row | _break_evens(cases, seeds=seeds))
    return rows


def measure_flow(
    clips: Sequence[Clip], nets: Mapping[str, Predictions], *, groups: Sequence[Group], flow: FlowEstimator, seeds: int
) -> list[Row]:
    """Tubes followed by flow, and by overlap in place."""
    rows = []
    for (net, labels), (name, way) in product(nets.items(), {"farneback": flow, "none": None}.items()):
        cases = cases_of(clips, labels, groups=groups, flow=way)
        row = {"net": net, "flow": name} | about(cases, groups=groups)
        rows.append(row | _break_evens(cases, seeds=seeds))
    return rows


def measure_areas(
    clips: Sequence[Clip], nets: Mapping[str, Predictions], *, groups: Sequence[Group], flow: FlowEstimator, seeds: int
) -> list[Row]:
    """How it depends on the smallest area asked about."""
    rows = []
    for (net, labels), area in product(nets.items(), AREAS):
        cases = cases_of(clips, labels, groups=groups, flow=flow, min_area=area)
        rows.append({"net": net, "min_area": area} | about(cases, groups=groups) | _break_evens(cases, seeds=seeds))
    return rows


def measure_sizes(
    clips: Sequence[Clip], nets: Mapping[str, Predictions], *, groups: Sequence[Group], flow: FlowEstimator, seeds: int
) -> list[Row]:
    """Which tubes are worth a question: by the largest share of a frame they cover, and where the class flips."""
    rows = []
    for net, labels in nets.items():
        cases = cases_of(clips, labels, groups=groups, flow=flow)
        chosen = {
            f"{100 * low:g} to {100 * high:g} %": [
                case.only((case.peaks > low) & (case.peaks <= high)) for case in cases
            ]
            for low, high in pairwise(BANDS)
        }
        chosen["below 1 %"] = [case.only(case.peaks <= 0.01) for case in cases]
        chosen["whose class flips"] = [case.only(case.whole == NONE) for case in cases]
        chosen["all"] = cases
        chosen["all, one must be named"] = [case.without_way_out() for case in cases]
        for name, few in chosen.items():
            rows.append({"net": net, "tubes": name} | about(few, groups=groups) | _break_evens(few, seeds=seeds))
    return rows


def _break_evens(cases: Sequence[Case], *, seeds: int) -> Row:
    found = {rule: curve(cases, rule=rule, seeds=seeds) for rule in SHOWN_RULES}
    at = ACCURACIES.index(0.9)
    return {
        "break_even": {rule: row["break_even"] for rule, row in found.items()},
        "gain_at_90": {rule: row["gain"][at] for rule, row in found.items()},
    }


def measure_swaps(
    clips: Sequence[Clip],
    sources: Mapping[str, Predictions],
    *,
    groups: Sequence[Group],
    flow: FlowEstimator,
    shares: Sequence[float],
    swaps: int,
    seeds: int,
) -> list[Row]:
    """Controlled swaps: what is lost, and what answers of some accuracy bring back."""
    rows = []
    for source, labels in sources.items():
        originals = cases_of(clips, labels, groups=groups, flow=flow)
        for kind, share in product(("whole", "flicker"), shares):
            for name, way in {"farneback": flow, "none": None}.items():
                if kind == "whole" and way is None:
                    continue
                runs = []
                for seed in range(swaps):
                    changed = {
                        case.clip.name: swapped(case, groups=groups, share=share, seed=seed, kind=kind)
                        for case in originals
                    }
                    pixels = np.mean([share_of_pixels(case.labels, changed[case.clip.name]) for case in originals])
                    cases = cases_of(clips, changed, groups=groups, flow=way)
                    runs.append(
                        {
                            "pixels": round(float(pixels), 4),
                            **about(cases, groups=groups),
                            "curves": {rule: curve(cases, rule=rule, seeds=seeds) for rule in SHOWN_RULES},
                        }
                    )
                row = {"source": source, "kind": kind, "share": share, "flow": name, "original": base(originals)}
                rows.append(row | _mean_of_runs(runs))
    return rows


def _mean_of_runs(runs: Sequence[Row]) -> Row:
    """Means over the drawings of tubes, with the spread of the break-even accuracy between them."""
    names = ("pixels", "questions", "mIoU", "ceiling", "ceiling_pixels", "VC8_ceiling")
    row: Row = {name: round(float(np.mean([run[name] for run in runs])), 4) for name in names}
    row["ceiling_deviation"] = round(float(np.std([run["ceiling"] for run in runs], ddof=1)), 4)
    row["accuracies"] = runs[0]["curves"][SHOWN_RULES[0]]["accuracies"]
    row["curves"] = {}
    for rule in SHOWN_RULES:
        gains = np.array([run["curves"][rule]["gain"] for run in runs])
        points = [run["curves"][rule]["break_even"]["of_mean"] for run in runs]
        found = [point for point in points if point is not None]
        row["curves"][rule] = {
            "gain": rounded(gains.mean(axis=0)),
            "deviation": rounded(gains.std(axis=0, ddof=1)),
            "break_even": {
                "of_mean": percent_or_none(break_even(row["accuracies"], gains.mean(axis=0).tolist())),
                "mean": round(float(np.mean(found)), 2) if found else None,
                "deviation": round(float(np.std(found, ddof=1)), 2) if len(found) > 1 else None,
                "never": len(points) - len(found),
            },
        }
    return row


def measure_check(
    clip: Clip, labels: Tensor, *, groups: Sequence[Group], flow: FlowEstimator, accuracies: Sequence[float]
) -> list[Row]:
    """The library's own correction with simulated answerers, against what the study reads off its counts."""
    case = case_of(clip, labels, groups=groups, flow=flow)
    known = [asked for views in case.asked for asked in views]
    rows = []
    for (rule, (views, agreement, errors)), accuracy in product(RULES.items(), accuracies):
        answerer = Answerer(known, accuracy=accuracy, seed=0, errors=errors)
        result = correct_labels(
            clip.frames,
            labels,
            vlm=answerer,
            groups=groups,
            class_names=CLASS_NAMES,
            flow=flow,
            views=views,
            agreement=agreement,
        )
        lot = draw(case, seed=0, errors=errors)
        new = new_classes(case, lot, accuracy=accuracy, views=views, agreement=agreement)
        metric = MeanIoU(NUM_CLASSES)
        metric.update(result.labels, clip.labels)
        rows.append(
            {
                "rule": rule,
                "accuracy": accuracy,
                "equal_pixels": float((result.labels == painted(case, new)).double().mean()),
                "mIoU": round(100 * metric.compute(), 6),
                "mIoU_by_counts": round(mean_iou_after([case], [new]), 6),
                "questions": len(case.questions),
                "calls": answerer.calls,
                "changed": result.count("changed"),
            }
        )
    return rows
