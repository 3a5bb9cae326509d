from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from dvis_files import CLASSES, DVISFiles

from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import CheckpointError, ConfigError, ShapeError
from mvcseg.loading import choose_device, load_checkpoint, load_function
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.compact_checkpoint import save_compact
from mvcseg.models.dvis import DVIS

MINE = """
import torch
import mvcseg

def build():
    return mvcseg.PerFrame(torch.nn.Conv2d(3, 2, 1), num_classes=2, logits_of=lambda out: out)

def named():
    segmenter = build()
    segmenter.class_names = ["sky", "sea"]
    return segmenter

def wrongly_named():
    segmenter = build()
    segmenter.class_names = ["sky"]
    return segmenter

def broken():
    raise OSError("no such weights")

def leaves():
    raise SystemExit(5)

def nothing():
    return None
"""


def test_a_checkpoint_comes_with_its_classes_and_an_identity(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        torch.manual_seed(seed)
        save_compact(CompactSegmenter(3, width=8), tmp_path / name, class_names=["x", "y", "z"])
    first, second = load_checkpoint(tmp_path / "a"), load_checkpoint(tmp_path / "b")
    assert first.class_names == ("x", "y", "z")
    assert first.segmenter.num_classes == 3
    assert first.identity != second.identity
    assert first.identity == load_checkpoint(tmp_path / "a").identity


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


def test_a_function_of_a_file_gives_a_segmenter(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    assert load_function(f"{path}:build").class_names == ("class 0", "class 1")
    loaded = load_function(f"{path}:named")
    assert loaded.class_names == ("sky", "sea")
    assert not loaded.segmenter.training  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("mine.py", "expected FILE.py:FUNCTION"),
        ("mine.txt:build", "expected FILE.py:FUNCTION"),
        ("other.py:build", "is no file"),
        ("mine.py:missing", "raised AttributeError"),
        ("mine.py:broken", "raised OSError: no such weights"),
        ("mine.py:leaves", "raised SystemExit: 5"),
        ("mine.py:nothing", "expected nothing.* to return a Segmenter .*got NoneType"),
        ("mine.py:wrongly_named", "expected 2 class_names, got 1"),
        ("bad.py:build", "raised SyntaxError"),
    ],
)
def test_a_function_that_cannot_be_had_is_told(
    reference: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "bad.py").write_text("def build(:")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=told):
        load_function(reference)


def test_a_librarys_own_error_in_the_users_file_comes_through(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from mvcseg.errors import ShapeError\ndef build():\n    raise ShapeError('frames: wrong')")
    with pytest.raises(ShapeError, match="frames: wrong"):
        load_function(f"{path}:build")


def test_devices_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:99", "meta"):
        with pytest.raises(ConfigError, match=f"device: '{name}' cannot be used"):
            choose_device(name)


def test_a_published_file_is_found_out_and_has_the_data_sets_names(dvis_files: DVISFiles) -> None:
    found = load_checkpoint(dvis_files.checkpoint("vspw_minvis_r50"))
    assert isinstance(found.segmenter, DVIS)
    assert not found.segmenter.training
    assert found.class_names == VSPW_CLASSES
    assert (found.short_side, found.long_side) == (720, 1333)
    assert re.fullmatch(r"checkpoint [0-9a-f]{16} as vspw_minvis_r50", found.identity)
    named = load_checkpoint(dvis_files.checkpoint("vspw_minvis_r50"), preset="vspw_minvis_r50")
    assert dataclasses.replace(named, segmenter=found.segmenter) == found


def test_a_file_of_ones_own_model_comes_with_its_configuration(dvis_files: DVISFiles, tmp_path: Path) -> None:
    loaded = load_checkpoint(
        dvis_files.checkpoint("offline"), preset=dvis_files.config("offline"), spill_folder=str(tmp_path)
    )
    assert loaded.class_names == tuple(f"class {index}" for index in range(CLASSES))
    assert (loaded.short_side, loaded.long_side) == (64, 100)
    assert isinstance(loaded.segmenter, DVIS)
    assert loaded.segmenter.refiner is not None
    assert loaded.segmenter.spill_folder == str(tmp_path)
    with pytest.raises(CheckpointError, match=r"offline\.pth: is DVIS.*offline.*no preset fits.*mvcseg inspect"):
        load_checkpoint(dvis_files.checkpoint("offline"))


def test_the_identity_is_that_of_weights_and_configuration(dvis_files: DVISFiles, tmp_path: Path) -> None:
    """Where the configuration lies does not count; what it says does."""

    def identity(**changes: object) -> str:
        fields = json.loads(Path(dvis_files.config("online")).read_text())
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps(fields | changes))
        return load_checkpoint(dvis_files.checkpoint("online"), preset=str(path)).identity

    first, again, other = identity(), identity(), identity(class_order=[4, 3, 2, 1, 0])
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("name", "preset", "told"),
    [
        ("vspw_minvis_r50", "vspw_online_r50", r"vspw_minvis_r50\.pth: does not fit preset 'vspw_online_r50'"),
        ("online", "vspw_online_r50", r"online\.pth: does not fit preset 'vspw_online_r50'"),
        ("nowhere", "vspw_online_r50", r"nowhere\.pth"),
    ],
)
def test_a_wrong_preset_says_what_differs(name: str, preset: str, told: str, dvis_files: DVISFiles) -> None:
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(dvis_files.checkpoint(name), preset=preset)


def test_a_compact_model_takes_no_preset(tmp_path: Path) -> None:
    save_compact(CompactSegmenter(3, width=8), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.safetensors: is a compact model .* load it without a preset"):
        load_checkpoint(tmp_path / "a.safetensors", preset="vspw_minvis_r50")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "config: expected JSON"),
        ("[]", "config: expected a JSON object, got list"),
        ("{}", r"backbone: expected a JSON object"),
        ('{"backbone": "ResNet-51"}', "did you mean 'ResNet-50'"),
        ('{"backbone": "ResNet-50", "querys": 3}', "'querys' is unknown"),
        ('{"backbone": "ResNet-50", "num_classes": 3}', "class_order: expected a permutation"),
    ],
)
def test_a_broken_configuration_is_told(text: str, told: str, dvis_files: DVISFiles, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told) as error:
        load_checkpoint(dvis_files.checkpoint("online"), preset=str(path))
    assert "mine.json" in str(error.value)


def test_a_preset_that_is_none_is_told(dvis_files: DVISFiles, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'vspw_online_r5' is unknown; did you mean 'vspw_online_r50'"):
        load_checkpoint(dvis_files.checkpoint("online"), preset="vspw_online_r5")
    with pytest.raises(ConfigError, match=r"preset: .*none\.json cannot be read \(No such file"):
        load_checkpoint(dvis_files.checkpoint("online"), preset=str(tmp_path / "none.json"))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"preset: .*binary\.json cannot be read"):
        load_checkpoint(dvis_files.checkpoint("online"), preset=str(tmp_path / "binary.json"))


TRANSFORMERS = """
from tiny_transformers import tiny_net
from mvcseg.adapters import from_transformers

def segformer():
    return from_transformers(tiny_net("segformer"))

def eomt():
    return from_transformers(tiny_net("eomt"))

def wide():
    return from_transformers(tiny_net("eomt", hidden_size=16))
"""


@pytest.mark.parametrize(("kind", "size"), [("segformer", "1GB"), ("eomt", "40KB")])
def test_a_folder_of_transformers_fills_the_net(kind: str, size: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(TRANSFORMERS)
    plain = load_function(f"{path}:{kind}")
    trained: Any = load_function(f"{path}:{kind}").segmenter
    with torch.no_grad():
        for parameter in trained.net.parameters():
            parameter.add_(1)
    trained.net.save_pretrained(tmp_path / "model", max_shard_size=size)
    loaded: Any = load_function(f"{path}:{kind}", weights=tmp_path / "model")
    state = loaded.segmenter.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in trained.state_dict().items())
    assert loaded.identity != plain.identity
    assert not loaded.segmenter.training


def test_a_folder_that_does_not_fit_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TRANSFORMERS + MINE)
    load: Any = load_function(f"{tmp_path}/mine.py:eomt").segmenter
    load.save_pretrained(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    for name, folder, told in (
        ("wide", "model", "model: cannot be loaded into the segmenter"),
        ("segformer", "model", "model: cannot be loaded into the segmenter"),
        ("eomt", "empty", "empty: cannot be loaded into the segmenter"),
        ("build", "model", "model: is a folder; expected a segmenter whose net is a transformers model"),
    ):
        with pytest.raises(CheckpointError, match=told):
            load_function(f"{tmp_path}/mine.py:{name}", weights=tmp_path / folder)
