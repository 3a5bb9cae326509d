from __future__ import annotations

import gzip
import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mvcseg.errors import CheckpointError
from mvcseg.models.dvis.reading import read_state

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(7), "half": torch.ones(2).bfloat16()}


def torch_file(path: Path, content: Any, *, is_old: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not is_old)
    return path


def assert_equal(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_torch_file_gives_its_tensors(is_old: bool, is_wrapped: bool, tmp_path: Path) -> None:
    content = {"model": STATE, "iteration": 20_000, "optimizer": {"state": {}}} if is_wrapped else STATE
    stored = read_state(torch_file(tmp_path / "any.name", content, is_old=is_old))
    assert_equal(stored.tensors, STATE)
    assert (stored.container, stored.iteration) == ("torch", 20_000 if is_wrapped else None)


def test_a_safetensors_file_gives_its_tensors_and_header(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.pth", metadata={"by": "hand"})
    stored = read_state(tmp_path / "x.pth")
    assert_equal(stored.tensors, STATE)
    assert (stored.container, stored.metadata) == ("safetensors", {"by": "hand"})


@pytest.mark.parametrize("suffix", ["pkl", "pth"])
def test_a_pickle_of_arrays_gives_tensors(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    arrays = {"w": np.arange(3, dtype=np.float32), "n": np.array(2)}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone", "matching_heuristics": True}, protocol=2))
    stored = read_state(path)
    assert_equal(stored.tensors, {"w": torch.arange(3.0), "n": torch.tensor(2)})
    assert (stored.container, stored.author) == ("pickle", "someone")


def test_the_prefix_of_data_parallel_training_goes_where_all_names_carry_it(tmp_path: Path) -> None:
    all_of_them = {f"module.{name}": tensor for name, tensor in STATE.items()}
    assert_equal(read_state(torch_file(tmp_path / "a", all_of_them)).tensors, STATE)
    some = {**all_of_them, "other": torch.ones(1)}
    assert_equal(read_state(torch_file(tmp_path / "b", some)).tensors, some)


def test_tensors_beside_other_entries_of_a_plain_dict_are_found(tmp_path: Path) -> None:
    stored = read_state(torch_file(tmp_path / "a", {**STATE, "epoch": 3}))
    assert_equal(stored.tensors, STATE)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("content", [Hostile(), {"model": {**STATE, "x": Hostile()}}], ids=["bare", "nested"])
def test_a_hostile_torch_file_is_refused_and_runs_nothing(
    content: Any, is_old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = torch_file(tmp_path / "x.pth", content, is_old=is_old)
    with pytest.raises(CheckpointError, match=r"x\.pth: refused: it names \w+\.system; .*nothing in the file was run"):
        read_state(path)
    assert not Path("ran").exists()


def test_the_advice_to_load_unsafely_is_not_passed_on(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "x.pth", {"model": {"w": Path("x")}})
    with pytest.raises(CheckpointError) as caught:
        read_state(path)
    assert "weights_only" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.__suppress_context__


def test_a_compressed_torch_file_is_refused(tmp_path: Path) -> None:
    """A few kilobytes could unpack to gigabytes."""
    torch_file(tmp_path / "x.pth", {"w": torch.zeros(1_000_000)})
    with zipfile.ZipFile(tmp_path / "x.pth") as plain, zipfile.ZipFile(tmp_path / "y.pth", "w") as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"compressed, as torch[.]save never writes"):
        read_state(tmp_path / "y.pth")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["torch", "old torch", "safetensors", "pickle"])
def test_a_truncated_file_is_one_error(kind: str, share: float, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut.pkl"
    state = {"w": torch.arange(1000.0)}
    if kind == "safetensors":
        save_file(state, whole)
    elif kind == "pickle":
        whole.write_bytes(pickle.dumps({"model": {"w": np.arange(1000.0)}}))
    else:
        torch_file(whole, state, is_old=kind == "old torch")
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"cut\.pkl: (cut short|refused)"):
        read_state(cut)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def numpy_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\n  <html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer"),
        (gzip.compress(b"x"), "gzip-compressed: unpack it first"),
        (numpy_file(), "a single NumPy array"),
        (zipped({"a.txt": b"x"}), "a zip archive without tensors"),
        (zipped({"a/data.pkl": b"nonsense", "a/version": b"3"}), "cut short|refused"),
        (b"PK\x03\x04 and nothing more", "cut short or no torch file"),
        (b"some words", "is no checkpoint: expected a torch, safetensors or pickle"),
        (bytes(100), "is no checkpoint"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{ no json at all, certainly none", "cut short or no safetensors file"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_no_checkpoint_is_named(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=told) as caught:
        read_state(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "holds no tensors$"),
        ({"model": {}}, "holds no tensors$"),
        ({"epoch": 3, "name\x1b": "x"}, r"holds no tensors, only epoch, name\\x1b"),
        ([torch.ones(1)], "expected a dict of tensors, got list"),
        (torch.ones(1), "expected a dict of tensors, got Tensor"),
        ({"model": {"w": torch.ones(1), "x": 3}}, "expected tensors only, got 'x' of another kind"),
        ({"model": {"w": torch.ones(1), 5: torch.ones(1)}}, "expected tensors only, got 5 of another kind"),
    ],
    ids=str,
)
def test_content_without_a_dict_of_tensors_is_an_error(content: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=told) as caught:
        read_state(torch_file(tmp_path / "x.pth", content))
    assert str(caught.value).isprintable()


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(tmp_path / "none.pth")


def test_a_file_of_another_pickle_protocol_is_told_so_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"model": {"weight": torch.zeros(2)}}, path, pickle_protocol=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CheckpointError, match="pickle protocol"):
            read_state(path)
