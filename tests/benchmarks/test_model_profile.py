"""The profile of a model, at a size that proves the script and no figure."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from tiny_dvis import tiny_dvis, video

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
STAGES = ["normalise", "backbone", "pixel decoder", "query decoder", "tracker", "refiner", "mask logits"]


def test_every_stage_is_timed_counted_and_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    bench = importlib.import_module("model_profile")
    stages = bench.profiled(tiny_dvis("offline").requires_grad_(False), video(3), turns=2)
    assert list(stages) == [*STAGES, "semantic labels"]
    assert all(row["fastest_ms"] <= row["ms"] and row["top_calls_ms"] for row in stages.values())
    assert all(stages[name]["gflop"] > 0 for name in STAGES[1:])
    stored = json.loads((BENCHMARKS / "results/model_profile.json").read_text())
    assert {"before", "after"} <= set(stored)
    assert all(list(profile["stages"]) == list(stages) for profile in stored.values())
