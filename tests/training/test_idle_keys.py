"""Keys without effect are named before a run."""

from __future__ import annotations

from typing import Any

import pytest

from mvcseg import PatchMask
from mvcseg.training import PUBLISHED, TrainConfig
from mvcseg.training.idle_keys import idle_keys, note_idle_keys

SEGMENTER = {"backbone": "ResNet-18", "has_reid": True}
TRACKER = {**SEGMENTER, "has_tracker": True}
REFINER = {**TRACKER, "has_refiner": True}


@pytest.mark.parametrize(
    ("values", "idle"),
    [
        ({}, []),
        ({"width": 8, "mask": PatchMask(8, 0.5), "mask_weight": 0.5}, []),
        ({"num_points": 5, "noise": "wa", "backbone_rate": 0.1}, ["num_points", "noise", "backbone_rate"]),
        ({"model": "own", "width": 8, "num_points": 5}, ["width"]),
        ({"model": "own", "objective": "pixel", "num_points": 5}, ["num_points"]),
        ({"model": SEGMENTER, "noise": "wa", "contrast_weight": 1.0}, ["noise"]),
        ({"model": TRACKER, "noise": "rs", "guide_until": 0.1, "depth": 1}, ["depth"]),
        ({"model": REFINER, "noise": "rs", "guide_until": 0.1}, ["noise"]),
        ({"model": TRACKER, "masked_parts": ("pixels",)}, ["masked_parts"]),
        ({"sampling": "window", "strides": (2,), "window": 3}, ["strides"]),
        ({"window": 3, "reverse": 0.5}, ["window"]),
        ({"long_side": 100}, ["long_side"]),
        ({"short_sides": (64,), "scales": (1.0, 2.0)}, ["scales"]),
        ({"mask_weight": 0.5, "new_classes": True, "drop_factor": 0.5}, ["mask_weight", "new_classes", "drop_factor"]),
    ],
)
def test_what_means_nothing_is_named(values: dict[str, Any], idle: list[str]) -> None:
    assert idle_keys(TrainConfig(steps=2, **values)) == idle


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_runs_have_no_idle_key(name: str) -> None:
    assert idle_keys(TrainConfig.from_dict({"model": name})) == []


def test_notes_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    note_idle_keys(TrainConfig.from_dict({"model": "vspw_online_r50", "steps": 300, "window": 3}))
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "note: without effect in this run: window",
        "note: drops: 14000 lie beyond the last of 300 steps and never happen",
    ]


def test_a_run_with_nothing_idle_has_no_note(capsys: pytest.CaptureFixture[str]) -> None:
    note_idle_keys(TrainConfig(steps=2, schedule="steps", drops=(1,)))
    assert capsys.readouterr().err == ""
