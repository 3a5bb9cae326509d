"""Tensors of a checkpoint file, whatever wrote it, without running anything in it.

Known are torch files (``weights_only=True`` always), safetensors, and pickled dicts of NumPy arrays. What a file is
decides its content; its name decides nothing.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.errors import CheckpointError
from mvcseg.models.dvis.pickles import PickledArray, read_array_pickle

_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch.save wrote first until 1.6
_WRONG_KINDS: list[tuple[bytes, str]] = [
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"),
    (b"<", "a web page: the download gave a page instead of the file"),
    (b"\x1f\x8b", "gzip-compressed: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x93NUMPY", "a single NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
]


@dataclass(frozen=True)
class StoredState:
    """What a checkpoint file holds.

    Attributes:
        container: "torch", "safetensors" or "pickle".
        tensors: by the names in the file, after unwrapping ``"model"`` and a ``module.`` that all names carry.
        iteration: of training, where the file states it.
        author: what ``"__author__"`` states.
        metadata: header of a safetensors file.
        mapped: the file whose pages the tensors are, in memory from their first use until the last tensor is gone;
            None where they lie in memory.
    """

    container: str
    tensors: dict[str, Tensor]
    iteration: int | None = None
    author: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    mapped: Path | None = None


def read_state(path: Path) -> StoredState:
    """The tensors of a checkpoint file, on the CPU; those of torch and safetensors files stay on disk until read.

    Raises:
        CheckpointError: the file is empty, cut short, no checkpoint, holds more than tensors and plain containers, or
            no tensors at all. Nothing in it has been run.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{shown(path)}: cannot be read ({error.strerror or error})") from error
    if not start:
        raise CheckpointError(f"{shown(path)}: is empty")
    if len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size:
        return _read_safetensors(path)
    if start.startswith(b"PK"):
        return replace(_unwrap(path, _load_torch(path, size=size, is_zip=True), container="torch"), mapped=path)
    if start.startswith(_OLD_TORCH):
        return _unwrap(path, _load_torch(path, size=size, is_zip=False), container="torch")
    for magic, kind in _WRONG_KINDS:
        if start.lstrip().startswith(magic):
            raise CheckpointError(f"{shown(path)}: is {kind}")
    if start[0] == 0x80 or path.suffix in (".pkl", ".pickle"):
        return _unwrap(path, read_array_pickle(path), container="pickle")
    raise CheckpointError(f"{shown(path)}: is no checkpoint: expected a torch, safetensors or pickle (.pkl) file")


def _read_safetensors(path: Path) -> StoredState:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{shown(path)}: cut short or no safetensors file ({_told(error)})") from error
    if not tensors:
        raise CheckpointError(f"{shown(path)}: holds no tensors")
    return StoredState("safetensors", _without_module(tensors), metadata=metadata, mapped=path)


def _load_torch(path: Path, *, size: int, is_zip: bool) -> object:
    try:
        if is_zip:
            _check_zip(path, size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on protocols: an error says what matters
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise CheckpointError(
                f"{shown(path)}: refused: it names {named[1]}; only tensors and plain containers are read, and "
                "nothing in the file was run"
            ) from None
        raise CheckpointError(
            f"{shown(path)}: refused: it holds more than tensors and plain containers, is damaged, or was saved with "
            "another pickle protocol than torch.save's default; nothing in the file was run"
        ) from None
    except (
        zipfile.BadZipFile,
        struct.error,
        RuntimeError,
        EOFError,
        OSError,
        MemoryError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        AssertionError,
    ) as error:
        raise CheckpointError(
            f"{shown(path)}: cut short or no torch file ({_told(error)}); download or copy it again"
        ) from error


def _check_zip(path: Path, size: int) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if not any(entry.filename.endswith("data.pkl") for entry in entries):
        raise ValueError("a zip archive without tensors")
    # torch stores without compressing, so that records can be mapped; anything else may unpack to any size.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("compressed, as torch.save never writes")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("records overlap")


def _unwrap(path: Path, content: object, *, container: str) -> StoredState:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{shown(path)}: expected a dict of tensors, got {type(content).__name__}")
    wrapped = content.get("model")
    state = wrapped if isinstance(wrapped, Mapping) else content
    tensors: dict[str, Tensor] = {}
    others = []
    for name, value in state.items():
        if isinstance(name, str) and isinstance(value, PickledArray):
            tensors[name] = value.tensor()
        elif isinstance(name, str) and isinstance(value, Tensor):
            tensors[name] = value
        else:
            others.append(name)
    if not tensors:
        found = ", ".join(shown(str(name))[:40] for name in list(state)[:5])
        raise CheckpointError(f"{shown(path)}: holds no tensors{f', only {found}' if found else ''}")
    if state is wrapped and others:
        raise CheckpointError(
            f"{shown(path)}: expected tensors only, got {shown(repr(others[0]))[:80]} of another kind"
        )
    iteration, author = content.get("iteration"), content.get("__author__")
    return StoredState(
        container,
        _without_module(tensors),
        iteration=iteration if type(iteration) is int else None,
        author=author if isinstance(author, str) else None,
    )


def _without_module(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix of data-parallel training, if all names carry it."""
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _told(error: BaseException) -> str:
    return shown(" ".join(str(error).split()))[:160] or type(error).__name__
