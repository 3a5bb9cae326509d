"""Files of trained DVIS++ models: what they hold, and that the published layout is a line away."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mvcseg import loading
from mvcseg.errors import CheckpointError, ConfigError
from mvcseg.models.dvis import DVIS, DVISConfig, build_dvis, explain, load_official, load_trained, save_trained
from mvcseg.models.dvis.config import SwinSizes, to_json
from mvcseg.models.dvis.trained import FORMAT

CONFIG = DVISConfig(
    SwinSizes(8, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=2),
    num_classes=4,
    num_queries=5,
    has_reid=True,
    has_tracker=True,
    class_order=(2, 0, 3, 1),
    tracker_layers=1,
    hidden=16,
    width=32,
    encoder_layers=1,
    encoder_hidden=16,
    decoder_layers=2,
    decoder_hidden=16,
    short_side=96,
)
NAMES = ("sky", "tree", "road", "car")


@pytest.fixture(scope="module")
def model() -> DVIS:
    torch.manual_seed(0)
    return build_dvis(CONFIG)


@pytest.fixture
def path(model: DVIS, tmp_path: Path) -> Path:
    save_trained(model, tmp_path / "m.safetensors", config=CONFIG, class_names=NAMES, metadata={"seed": 3})
    return tmp_path / "m.safetensors"


def assert_same(model: DVIS, other: DVIS) -> None:
    there = other.state_dict()
    assert there.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, there[name]), name


def test_a_file_gives_back_the_model_and_all_that_was_said_of_it(model: DVIS, path: Path) -> None:
    trained = load_trained(path)
    assert_same(trained.model, model)
    assert not trained.model.training
    assert (trained.config, trained.class_names, trained.metadata) == (CONFIG, NAMES, {"seed": 3})
    assert trained.test_size == (96, 1333)
    order = trained.model.class_order
    assert order is not None
    assert order.tolist() == [2, 0, 3, 1]


def test_a_model_may_be_tested_at_the_videos_own_size(model: DVIS, tmp_path: Path) -> None:
    save_trained(model, tmp_path / "m.safetensors", config=CONFIG, test_size=(None, None))
    assert load_trained(tmp_path / "m.safetensors").test_size == (None, None)
    loaded = loading.load_checkpoint(tmp_path / "m.safetensors")
    assert (loaded.short_side, loaded.long_side) == (None, None)
    assert loaded.class_names == ("class 0", "class 1", "class 2", "class 3")


def test_the_commands_need_no_preset(model: DVIS, path: Path, tmp_path: Path) -> None:
    loaded = loading.load_checkpoint(path, spill_folder=str(tmp_path))
    assert isinstance(loaded.segmenter, DVIS)
    assert_same(loaded.segmenter, model)
    assert (loaded.class_names, loaded.short_side, loaded.long_side) == (NAMES, 96, 1333)
    assert loaded.segmenter.spill_folder == str(tmp_path)


def test_the_published_layout_is_a_line_away(model: DVIS, path: Path, tmp_path: Path) -> None:
    assert_same(load_official(path, preset=CONFIG), model)
    torch.save({"model": load_file(path)}, tmp_path / "m.pth")
    assert_same(load_official(tmp_path / "m.pth", preset=CONFIG), model)
    (tmp_path / "m.json").write_text(to_json(CONFIG))
    assert_same(loading.load_checkpoint(path, preset=str(tmp_path / "m.json")).segmenter, model)  # type: ignore[arg-type]


def test_inspect_tells_what_a_file_holds(path: Path) -> None:
    told = explain(path).to_dict()
    assert told["kind"].startswith("DVIS++ online model with SwinSizes(")
    assert told["kind"].endswith(", of `mvcseg train`")
    assert told["class_names"] == list(NAMES)
    assert told["metadata"] == {"seed": 3}
    assert told["test_size"] == [96, 1333]


def test_wrong_names_metadata_and_weights_are_refused(model: DVIS, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(ConfigError, match="class_names: expected 4 names, one a class, got 1"):
        save_trained(model, path, config=CONFIG, class_names=["sky"])
    with pytest.raises(ConfigError, match="metadata: expected what JSON can hold"):
        save_trained(model, path, config=CONFIG, metadata={"loss": float("nan")})
    broken = build_dvis(CONFIG)
    with torch.no_grad():
        broken.sem_seg_head.predictor.query_feat.weight[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match=r"query_feat\.weight hold NaN"):
        save_trained(broken, path, config=CONFIG)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_trained(model, tmp_path / "file" / "m.safetensors", config=CONFIG)
    assert not path.exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": "other"}, r"expected a file of save_trained \(format 'mvcseg.dvis'\), got format 'other'"),
        ({"version": "9"}, "expected version 1 of mvcseg.dvis, got '9'; update mvcseg"),
        ({"config": "{"}, "its header names no model this version can build"),
        ({"class_names": json.dumps(["sky"])}, "names 1 classes for 4 of the model"),
        ({"test_size": "3"}, "its header names no model"),
        ({"config": to_json(dataclasses.replace(CONFIG, num_queries=6))}, "does not fit the configuration given"),
    ],
)
def test_a_broken_file_is_named(changes: dict[str, str], told: str, model: DVIS, path: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
    assert header["format"] == FORMAT
    other = tmp_path / "other.safetensors"
    save_file(load_file(path), other, metadata=header | changes)
    with pytest.raises(CheckpointError, match=r"other\.safetensors: .*" + told):
        load_trained(other)


def test_a_file_cut_short_is_named(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"m\.safetensors: "):
        load_trained(path)
