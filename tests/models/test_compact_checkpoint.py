"""Compact models come back from files as they were; a file that is none of theirs says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mvcseg import PatchMask, apply_mask
from mvcseg.data.toy import write_toy_set
from mvcseg.data.vspw import VSPW
from mvcseg.errors import CheckpointError, ConfigError
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.compact_checkpoint import load_compact, packaged_checkpoint, save_compact

NAMES = ("sea", "river", "lake")


@pytest.fixture
def model() -> CompactSegmenter:
    return CompactSegmenter(3, width=8, depth=1).train()


def rewritten(path: Path, *, header: dict[str, str] | None = None, **tensors: torch.Tensor) -> Path:
    """The file with parts of its header or tensors replaced."""
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()} | tensors  # noqa: SIM118
        save_file(state, path, metadata={**file.metadata(), **(header or {})})
    return path


def test_a_model_comes_back_as_it_was(model: CompactSegmenter, tmp_path: Path, generator: torch.Generator) -> None:
    save_compact(model, tmp_path / "m.safetensors", class_names=NAMES, metadata={"scores": {"mIoU": 0.5}})
    loaded = load_compact(tmp_path / "m.safetensors")
    frames = torch.rand(1, 2, 3, 32, 40, generator=generator)
    assert torch.equal(loaded(frames), model.eval()(frames))
    assert (loaded.class_names, loaded.metadata, loaded.training) == (NAMES, {"scores": {"mIoU": 0.5}}, False)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_names_on_the_model_are_saved(model: CompactSegmenter, tmp_path: Path) -> None:
    model.class_names = NAMES
    save_compact(model, tmp_path / "m.safetensors")
    assert load_compact(tmp_path / "m.safetensors").class_names == NAMES


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file"):
        load_compact(tmp_path / "none.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short_is_refused(model: CompactSegmenter, tmp_path: Path, share: float) -> None:
    path = tmp_path / "m.safetensors"
    save_compact(model, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"m\.safetensors: cut short or no safetensors file .*again"):
        load_compact(path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"expected a file of save_compact .*got format None"):
        load_compact(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"version": "9"}, "expected version 1 of mvcseg.compact, got '9'; update mvcseg"),
        ({"architecture": "{"}, "names no model this version can build"),
        ({"architecture": '{"num_classes": 3, "layers": 4}'}, "names no model this version can build"),
        ({"architecture": '{"num_classes": 3, "width": 12}'}, "names no model this version can build"),
        ({"architecture": "[3]"}, "names no model this version can build"),
        ({"architecture": '{"num_classes": 3, "width": 8000000, "depth": 1}'}, "does not fit the model"),
        ({"architecture": '{"num_classes": 3, "width": 8, "depth": 1000000000}'}, "names no model"),
        ({"class_names": '["a"]'}, "names 1 classes for 3"),
        ({"class_names": "3"}, "names no model this version can build"),
        (
            {"architecture": '{"num_classes": 4, "width": 8, "depth": 1}', "class_names": "[]"},
            "expected \\(4, 8, 1, 1\\)",
        ),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    model: CompactSegmenter, tmp_path: Path, header: dict[str, str], message: str
) -> None:
    path = tmp_path / "m.safetensors"
    save_compact(model, path, class_names=NAMES)
    with pytest.raises(CheckpointError, match=message):
        load_compact(rewritten(path, header=header))


def test_wrong_tensors_are_named(model: CompactSegmenter, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_compact(model, path)
    with pytest.raises(CheckpointError, match=r"extra unexpected"):
        load_compact(rewritten(path, extra=torch.zeros(1)))
    save_compact(model, path)
    with pytest.raises(CheckpointError, match=r"classifier\.bias holds NaN or infinite weights"):
        load_compact(rewritten(path, **{"classifier.bias": torch.tensor([0.0, torch.nan, 0.0])}))


def test_nan_weights_are_not_written_and_the_older_file_stays(model: CompactSegmenter, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_compact(model, path)
    before = path.read_bytes()
    with torch.no_grad():
        model.classifier.bias[0] = torch.inf
    with pytest.raises(CheckpointError, match=r"model: classifier\.bias hold NaN"):
        save_compact(model, path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_named(model: CompactSegmenter, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"file"):
        save_compact(model, tmp_path / "file" / "m.safetensors")


def test_wrong_names_and_metadata_are_refused(model: CompactSegmenter, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="class_names: expected 3 names, one a class, got 2"):
        save_compact(model, tmp_path / "m.safetensors", class_names=["a", "b"])
    with pytest.raises(ConfigError, match="metadata: expected what JSON can hold"):
        save_compact(model, tmp_path / "m.safetensors", metadata={"score": float("nan")})
    with pytest.raises(ConfigError, match="name: expected 'plain' or 'mvc', got 'best'"):
        packaged_checkpoint("best")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["plain", "mvc"])
def test_a_packaged_checkpoint_says_how_it_came_about(name: str) -> None:
    path = packaged_checkpoint(name)  # type: ignore[arg-type]
    assert path.stat().st_size <= 3e6
    model = load_compact(path)
    assert len(model.class_names) == model.num_classes == 12
    assert model.metadata["scores"]["mIoU"] > 0.6
    written = model.metadata["config"]
    asked = json.loads(path.with_suffix(".json").read_text())
    assert {key: written[key] for key in asked} | {"mask": None} == asked | {"mask": None}
    assert (written["mask"] is None) == (name == "plain")


def test_the_packaged_checkpoints_differ_by_the_mask_alone() -> None:
    plain, mvc = (load_compact(packaged_checkpoint(name)).metadata["config"] for name in ("plain", "mvc"))  # type: ignore[arg-type]
    assert [key for key in plain if plain[key] != mvc[key]] == ["mask"]


def test_mvc_names_what_is_hidden_and_plain_training_does_not(tmp_path: Path, generator: torch.Generator) -> None:
    root = write_toy_set(tmp_path / "toy", videos={"val": 1}, frames=8)
    video = VSPW(root, split="val")[0]
    frames, labels = video.frames[:][None].float() / 255, video.labels[:]
    hidden = apply_mask(frames, PatchMask(patch_size=16, ratio=0.5)(frames, generator=generator))
    right = {}
    for name in ("plain", "mvc"):
        with torch.inference_mode():
            pred = load_compact(packaged_checkpoint(name))(hidden).argmax(dim=2)[0]  # type: ignore[arg-type]
        right[name] = float((pred == labels)[labels != 255].float().mean())
    assert right["mvc"] > right["plain"] + 0.1
    assert right["mvc"] > 0.7
