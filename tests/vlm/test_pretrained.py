from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_vlms import save_clip

from mvcseg.errors import CheckpointError
from mvcseg.vlm.pretrained import read_pretrained, weights_digest


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder)
    return folder


def read(folder: Path) -> tuple[object, object]:
    return read_pretrained("AutoModel", str(folder), kind="model", dtype=None)


def test_model_comes_ready_for_use(saved: Path) -> None:
    processor, model = read(saved)
    assert type(processor).__name__ == "CLIPProcessor"
    assert not model.training  # type: ignore[attr-defined]


def edit_configuration(key: str, value: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return edit


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:200]) and None


def lose_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def shrink_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.weight"] = torch.zeros(3, 16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickle_for_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")


@pytest.mark.parametrize(
    "break_it",
    [
        shutil.rmtree,
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "config.json").write_text("[]"),
        lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"),
        cut("config.json"),
        cut("model.safetensors"),
        cut("tokenizer.json"),
        cut("processor_config.json"),
        edit_configuration("model_type", "unheard_of"),
        edit_configuration("vision_config", "large"),
        edit_configuration("text_config", {"hidden_size": -3}),
        edit_configuration("projection_dim", "wide"),
        lose_a_weight,
        shrink_a_weight,
        pickle_for_weights,
    ],
)
def test_broken_folder_is_named(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, break_it: Callable[[Path], object]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    break_it(folder)
    with pytest.raises(CheckpointError, match=f"{folder}: no model can be read: .") as caught:
        read(folder)
    assert len(str(caught.value)) < 500


def test_device_that_cannot_hold_the_model_is_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(model: torch.nn.Module, *arguments: object, **more: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr(torch.nn.Module, "to", fails)
    message = f"{saved}: the model cannot be moved to cuda:7: OutOfMemoryError: tried to allocate 20 GiB"
    with pytest.raises(CheckpointError, match=message):
        read_pretrained("AutoModel", str(saved), kind="model", dtype=None, device="cuda:7")


def test_code_that_comes_with_a_model_is_not_run(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    edit_configuration("model_type", "own")(folder)
    edit_configuration("auto_map", {"AutoConfig": "own.Own", "AutoModel": "own.Own", "AutoProcessor": "own.Own"})(
        folder
    )
    with pytest.raises(CheckpointError, match="no model can be read"):
        read(folder)
    assert not (tmp_path / "ran").exists()


def test_digest_changes_with_any_weight_and_with_nothing_else(saved: Path) -> None:
    _, model = read(saved)
    assert isinstance(model, torch.nn.Module)
    before = weights_digest(model)
    assert weights_digest(read(saved)[1]) == before == weights_digest(model.train())  # type: ignore[arg-type]
    for parameter in list(model.parameters())[:: len(list(model.parameters())) // 7]:
        with torch.no_grad():
            parameter += 1e-3
        after = weights_digest(model)
        assert after != before
        before = after
    empty = [torch.nn.ParameterList([torch.zeros(shape)]) for shape in ((0, 3), (3, 0))]
    assert weights_digest(empty[0]) != weights_digest(empty[1])
