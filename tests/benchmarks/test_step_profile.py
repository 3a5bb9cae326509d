"""Where a training step's time goes, part by part."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import mvcseg.mvc


@pytest.fixture
def profile(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = script("step_profile")
    stages = {"small": {"K": 5, "B": 1, "T": 2, "H": 64, "W": 64}}
    monkeypatch.setattr(module, "STAGES", stages)
    monkeypatch.setattr(script("training_steps"), "STAGES", stages)
    return module


def test_a_parts_seconds_are_its_own(profile: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(profile, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    parts = profile.Parts("cpu")

    def inner() -> None:
        now[0] += 2

    def outer() -> None:
        now[0] += 10
        parts.timed(inner, "inner")()
        now[0] += 100

    parts.timed(outer, "outer")()
    assert dict(parts.seconds) == {"outer": 110, "inner": 2}


def test_what_backward_calls_is_done_again(profile: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(profile, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    parts = profile.Parts("cpu")

    def layer() -> None:
        now[0] += 3

    layer_timed = parts.timed(layer, "matching: costs")
    parts.timed(layer_timed, "backward")()
    layer_timed()
    assert parts.seconds == {"again: matching": 3, "matching: costs": 3, "backward": 0}


def test_a_profile_sums_up_and_everything_is_put_back(profile: ModuleType) -> None:
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first of its kind changes the class once and for all
    before = (torch.Tensor.backward, torch.optim.AdamW.step, mvcseg.mvc.apply_mask)
    row = profile.profiled("small", scale=0.5, count=2, device="cpu")
    assert (torch.Tensor.backward, torch.optim.AdamW.step, mvcseg.mvc.apply_mask) == before
    assert row["clip"] == {"B": 1, "T": 2, "H": 32, "W": 32}
    assert {"model", "backward", "optimizer", "losses of pixels"} <= set(row["parts"]["plain"])
    assert "mask" in row["parts"]["mvc"]
    assert "mask" not in row["parts"]["plain"]
    assert 0 < len(row["operators"]["plain"]) <= profile.OPERATORS
    weights = sum(each.numel() for each in profile.build_steps("small", scale=0.5).model.parameters())
    assert row["bytes"]["gradients"] == 4 * weights
    lines = profile.table_of("small", row)
    assert lines[0] == "small, 1 x 2 x 32 x 32"
    assert any(line.strip().startswith("a step") for line in lines)


def test_other_stages_are_kept_in_the_file(
    profile: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "profile.json"
    out.write_text('{"stages": {"other": 1}}')
    monkeypatch.setattr(sys, "argv", ["step_profile.py", "--stage", "small", "--steps", "1", "--out", str(out)])
    profile.main()
    assert set(json.loads(out.read_text())["stages"]) == {"other", "small"}
