"""Figures and tables of how fast clips are read."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from mvcseg import PatchMask
from mvcseg.data.toy import write_toy_set

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("loader_bench")


def test_tables_of_the_page_are_those_of_the_results(bench: ModuleType) -> None:
    page = bench.PAGE.read_text()
    results = json.loads(bench.RESULTS.read_text())
    assert all(page.count(f"<!-- table: {name} -->") == 1 for name in bench.loader_tables.TABLES)
    assert bench.loader_tables.renewed(page, results) == page
    assert {row["setting"] for row in results["alone"]} == set(bench.SETTINGS)


def test_every_figure_is_measured(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_toy_set(tmp_path / "toy", videos={"train": 1}, frames=6, size=(48, 64))
    settings = {
        "bytes": ("toy", {"clip_length": 2, "sampling": "consecutive", "short_sides": (32,)}),
        "floats": ("toy", {"clip_length": 1, "crop_size": (32, 32)}),
    }
    monkeypatch.setattr(bench, "SETTINGS", settings)
    monkeypatch.setattr(bench, "TRAINING", ("floats", {"batch_size": 1, "mask": PatchMask(patch_size=8, ratio=0.5)}))
    results = bench.measured({"toy": root}, workers=[0, 1], frames=4, steps=2, device="cpu")
    assert [(row["setting"], row["workers"], row["packed"]) for row in results["alone"]] == [
        (setting, workers, packed) for setting in settings for workers, packed in ((0, True), (1, True), (1, False))
    ]
    assert all(row["frames_a_second"] > 0 for row in results["alone"])
    assert [row["steps"] for row in results["training"]["rows"]] == [2, 2]
    assert all(0 < row["wait_share"] < 1 for row in results["training"]["rows"])
    tables = bench.loader_tables.renewed("<!-- table: loader -->\n<!-- end -->", results)
    assert tables.count("\n| ") == 4


def test_made_masks_follow_the_frames(bench: ModuleType, tmp_path: Path) -> None:
    toy = write_toy_set(tmp_path / "toy", videos={"val": 1}, frames=2, size=(48, 64))
    root = bench.labelled_sample(toy, tmp_path / "labelled")
    clips = bench.clip_data(root, {"clip_length": 2}, num_samples=1)
    assert clips[0].labels.shape == (2, 48, 64)
    assert 2 < len(clips[0].labels.unique()) <= 12
