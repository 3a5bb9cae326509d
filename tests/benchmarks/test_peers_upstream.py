"""The reference implementation as a peer: what can be tested without its sources."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from mvcseg.models.dvis import PRESETS
from mvcseg.models.dvis.names import expected_entries

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("peers_upstream")


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("upstream_dvis")


def test_missing_sources_are_one_line_and_status_2(tmp_path: Path) -> None:
    script = str(BENCHMARKS / "peers_upstream.py")
    command = [sys.executable, script, "speed", "--dvis-plus", str(tmp_path), "--detectron2", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"--dvis-plus {tmp_path}: holds no configs/")


def test_what_is_missing_is_named(upstream: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "DVIS_Plus" / upstream.CONFIG
    config.parent.mkdir(parents=True)
    config.touch()
    with pytest.raises(upstream.MissingSources, match=r"--detectron2 .*: holds no detectron2/modeling"):
        upstream.check_sources(tmp_path, tmp_path)
    package = tmp_path / "detectron2" / "modeling"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(upstream, "PACKAGES", ("torch", "no_such_package"))
    with pytest.raises(upstream.MissingSources, match="imports no_such_package, which is not installed"):
        upstream.check_sources(tmp_path, tmp_path)
    monkeypatch.setattr(upstream, "PACKAGES", ("torch",))
    assert upstream.check_sources(tmp_path, tmp_path) == (tmp_path / "DVIS_Plus", tmp_path)


def test_stages_are_clocked_while_the_block_runs_and_not_after(upstream: ModuleType) -> None:
    owner = nn.Sequential(nn.ReLU())
    with upstream.clocked(owner, {"first": "0.forward"}) as seconds:
        assert owner(torch.tensor([-1.0, 2.0])).tolist() == [0, 2]
    assert set(seconds) == {"first"}
    assert 0 < seconds["first"] < 60
    before = dict(seconds)
    owner(torch.zeros(2))
    assert seconds == before
    assert "forward" not in owner[0].__dict__


def test_an_attribute_that_was_there_is_put_back(upstream: ModuleType) -> None:
    own = SimpleNamespace(step=len)
    with upstream.clocked(own, {"step": "step"}):
        assert own.step([1, 2]) == 2
    assert own.step is len


def test_labels_get_the_data_sets_numbers(peers: ModuleType) -> None:
    order = PRESETS[peers.PRESET].class_order
    assert order is not None
    assert peers.in_dataset_order(torch.tensor([[0, 5]])).tolist() == [[order[0], order[5]]]


def test_what_stages_leave_is_the_rest(peers: ModuleType) -> None:
    stages = [dict.fromkeys(peers.STAGES, 1.0), dict.fromkeys(peers.STAGES, 2.0)]
    rows = peers.by_stage(stages, [10.0, 11.0], frames=2)
    assert rows == dict.fromkeys(peers.STAGES, 0.75) | {peers.REST: (6 + 3) / 2 / 2}


def test_factors_are_those_of_the_weights_they_name(peers: ModuleType) -> None:
    decided = {name: peers.factor_of(name) for name in expected_entries(PRESETS[peers.PRESET])}
    assert decided["refiner.class_embed.weight"] == 10
    assert decided["tracker.mask_embed.layers.2.weight"] == 2.5
    assert decided["sem_seg_head.predictor.transformer_ffn_layers.8.linear2.weight"] == 0.1
    assert decided["refiner.transformer_obj_self_attention_layers.0.self_attn.out_proj.weight"] == 0.1
    assert decided["refiner.conv_short_aggregate_layers.5.0.weight"] == 0.1
    others = ("backbone.", "sem_seg_head.pixel_decoder.")
    assert {factor for name, factor in decided.items() if name.startswith(others) or name.endswith("bias")} == {1.0}
