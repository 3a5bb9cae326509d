from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mvcseg.errors import CheckpointError, ConfigError, DataError, ShapeError
from mvcseg.loading import choose_device, load_checkpoint, load_function
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.compact_checkpoint import save_compact
from mvcseg.vlm import Group, read_groups

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


def test_groups_are_read_by_name_and_by_id(tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_text('[{"noun": "water", "classes": ["river", 2]}]')
    assert read_groups(path, class_names=["sky", "river", "lake"]) == (Group("water", (1, 2)),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "expected"),
        ("[]", "expected"),
        ("[1]", "got the entry 1"),
        ('[{"noun": "water"}]', "got the entry"),
        ('[{"noun": "water", "classes": ["river", "ocean"]}]', "names of classes or ids, got 'ocean'"),
        ('[{"noun": "water", "classes": ["river"]}]', "at least two"),
        ('[{"noun": "water", "classes": ["river", 9]}]', "ids from 0 to 2"),
        ('[{"classes": ["river", "lake"]}]', "noun"),
        ("[", "JSON"),
    ],
)
def test_a_broken_group_file_is_named(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"groups\.json.*{told}"):
        read_groups(path, class_names=["sky", "river", "lake"])
