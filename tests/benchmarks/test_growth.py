"""Growth: every work runs, powers of made-up curves, the table and the figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

Script = Callable[[str], ModuleType]
WORKS = (
    "DVIS++ offline, R50",
    "predict, compact model",
    "vote over views",
    "vote of label maps",
    "choice of a model",
    "scores",
)


def made_up(power: float, *, axis: str = "length") -> list[dict[str, Any]]:
    field = {"length": "frames"}.get(axis, axis)
    return [
        {"work": "scores", "axis": axis, "frames": 10, "height": 48, "width": 64, "classes": 5, "candidates": 1}
        | {"views": 1, "peak_mib": 100.0}
        | {field: amount}
        | {"seconds_per_frame": amount**power / (amount if axis == "length" else 10)}
        for amount in (1, 2, 4, 8)
    ]


@pytest.mark.parametrize("work", WORKS)
def test_every_work_runs(script: Script, work: str) -> None:
    found = script("growth").point(
        work, {"frames": 18, "height": 48, "width": 64, "classes": 5, "candidates": 2, "views": 3}
    )
    assert found["seconds_per_frame"] > 0
    assert found["peak_mib"] >= found["peak_before_mib"] > 0


def test_every_work_is_planned_and_every_plan_a_work(script: Script) -> None:
    assert set(script("growth").PLAN) == set(script("growth_works").WORKS) == set(WORKS)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("axis", ["length", "views", "classes"])
def test_the_power_of_a_curve(script: Script, power: float, axis: str) -> None:
    assert script("growth").exponent(made_up(power, axis=axis), axis) == pytest.approx(power)


def test_the_lengths_sizes_and_classes_asked_for(script: Script) -> None:
    growth = script("growth")
    amounts = growth.amounts_of("predict, compact model", "length")
    assert [one.frames for one in amounts] == [50, 200, 800, 2000]
    assert len({(one.height, one.width, one.classes) for one in amounts}) == 1
    sizes = growth.amounts_of("scores", "size")
    assert [one.height for one in sizes] == [240, 360, 480, 720, 1080]
    assert [one.classes for one in growth.amounts_of("scores", "classes")] == [19, 60, 124, 255]


def test_a_frame_of_a_panned_scene_is_the_same_however_it_is_read(script: Script) -> None:
    works = script("growth_works")
    scene = works.regions(works.Amounts(frames=70, height=48, width=64, classes=5), flicker=4)
    assert scene[3:6].shape == (3, 48, 64)
    assert torch.equal(scene[3:6][1], scene.frame(4))
    assert not torch.equal(scene.frame(4), scene.frame(5))
    assert int(scene.frame(4).max()) == 4


def test_a_point_is_a_process_and_its_failure_ends_the_run(script: Script) -> None:
    growth = script("growth")
    amounts = growth.replace(growth.SMALL, frames=3, views=2, classes=3)
    assert growth.measured("vote of label maps", amounts)["frames"] == 3
    with pytest.raises(SystemExit, match="vote of label maps"):
        growth.measured("vote of label maps", growth.replace(amounts, classes=999))


def test_table_and_figure(script: Script, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = {"points": made_up(1.0) + made_up(2.0, axis="views")}
    lines = script("growth").table(report).splitlines()
    assert lines[2] == "| scores | length | 1, 8 | 1e+03, 1e+03 | 1.00 | 100, 100 |"
    assert lines[3].split(" | ")[4] == "2.00"
    script("growth_figure").draw(json.loads(json.dumps(report)), tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
