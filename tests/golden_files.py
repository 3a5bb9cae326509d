"""Reference outputs stored as slices, and the weights, names and clips they were made with.

A stored tensor may be a strided slice of the full one; ``Golden`` slices what it is given likewise. Weights are not
stored: every tensor of a model is drawn from its name, shape and seed alone, in integer arithmetic on raw PCG64 words,
so any platform draws the same bits.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


KEY_LISTS = {
    **{f"vspw_{stage}_{net}": f"{stage}_{net}" for stage in ("minvis", "ctvis") for net in ("r50", "vitl")},
    **{f"vspw_{stage}_{net}": f"dvis_plus_{stage}_{net}" for stage in ("online", "offline") for net in ("r50", "vitl")},
    **{f"vspw_dvis1_{stage}_swinl": f"dvis1_{stage}_swinl" for stage in ("minvis", "online", "offline")},
}
"""Name of the key list, ``keys/<name>.json``, of every preset."""


class GoldenFolders:
    """Where golden files may lie; ``folders / "ops/swin_small.npz"`` is the first that exists, else the test skips.

    A file may also lie there gzip-compressed, as ``<name>.gz``.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = folders

    def __truediv__(self, relative: str) -> Path:
        for folder in self.folders:
            for name in (relative, f"{relative}.gz"):
                if (folder / name).exists():
                    return folder / name
        pytest.skip(f"no {relative} in {' or '.join(map(str, self.folders))}: set MVCSEG_SHARED_GOLDEN")


class Golden:
    """The tensors of one ``.npz`` file, described by the ``.json`` beside it.

    Attributes:
        arrays: what is stored, by name.
        meta: seeds, sizes and calls.
        index: full shape and strides by name, where the file states them.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path) as stored:
            self.arrays: dict[str, np.ndarray] = {name: stored[name] for name in stored.files}
        description = json.loads(path.with_suffix(".json").read_text())
        self.meta: dict[str, Any] = description["meta"]
        self.index: dict[str, Any] = description["tensors"]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def tensor(self, name: str) -> Tensor:
        """What is stored, as a tensor."""
        return torch.from_numpy(self.arrays[name])

    def frames(self) -> Tensor:
        """The clip of a ``forward/`` file, uint8 ``(T, 3, H, W)``."""
        return make_frames(self.meta["T"], *self.meta["input_hw"], seed=self.meta["frames_seed"])

    def images(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The clip as a backbone takes it: normalised, padded to multiples of 32, ``(T, 3, Hp, Wp)``."""
        mean, std = (torch.tensor(values, dtype=dtype).view(3, 1, 1) for values in (MEAN, STD))
        images = (self.frames().to(dtype) - mean) / std
        return functional.pad(images, (0, -images.shape[3] % 32, 0, -images.shape[2] % 32))

    def slice(self, name: str, full: Tensor) -> np.ndarray:
        """The part of a full tensor that the file keeps."""
        array = full.detach().cpu().numpy()
        entry = self.index.get(name)
        if not isinstance(entry, dict) or "strides" not in entry:
            return array
        assert list(array.shape) == entry["shape"], f"{name}: {array.shape}, expected {entry['shape']}"
        return array[tuple(slice(None, None, stride) for stride in entry["strides"])]

    def bits(self, name: str) -> np.ndarray:
        """A packed boolean array."""
        shape = self.index[name]["shape"]
        return np.unpackbits(self.arrays[name], count=math.prod(shape)).astype(bool).reshape(shape)

    def deviation(self, name: str, full: Tensor) -> float:
        """Root mean square difference from the stored slice, in units of its standard deviation."""
        got, expected = self.slice(name, full).astype(np.float64), self.arrays[name].astype(np.float64)
        assert got.shape == expected.shape, f"{name}: {got.shape}, expected {expected.shape}"
        return float(np.sqrt(np.mean((got - expected) ** 2)) / max(expected.std(), 1e-12))

    def check(self, name: str, full: Tensor, *, rtol: float = 2e-5) -> float:
        """Assert that ``deviation`` is at most ``rtol``; returns it."""
        deviation = self.deviation(name, full)
        assert deviation <= rtol, f"{name}: rms difference / standard deviation {deviation:.2e} > {rtol:.0e}"
        return deviation


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, gzip-compressed where its name says so."""
    content = path.read_bytes()
    value: dict[str, Any] = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    return value


def read_entries(path: Path, *, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Entries of a key list whose names start with ``prefix``, under the rest of their name."""
    entries = read_json(path)["entries"]
    return {name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)}


def describe_state(module: nn.Module, *, names: Callable[[str], str] | None = None) -> dict[str, dict[str, Any]]:
    """Shape, dtype and kind of every state-dict entry, as a key list states them."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return {
        names(name) if names else name: {
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "kind": "parameter" if name in parameters else "buffer",
        }
        for name, tensor in module.state_dict().items()
    }


def fill_module(
    module: nn.Module, *, prefix: str = "", names: Callable[[str], str] | None = None, seed: int = 2
) -> nn.Module:
    """Draw every weight of a module from its checkpoint name.

    Args:
        module: filled in place, in its own dtype.
        prefix: stands before every name, ``backbone.`` say.
        names: from the module's own names to the checkpoint's; None where they agree.
        seed: of the draw.
    """
    fill_state(module.state_dict(), prefix=prefix, names=names, seed=seed)
    return module


def fill_state(
    state: MutableMapping[str, Tensor],
    *,
    prefix: str = "",
    names: Callable[[str], str] | None = None,
    seed: int = 2,
) -> list[str]:
    """Draw the floating-point entries of a state dict in place; returns the names drawn."""
    drawn = []
    for name, tensor in state.items():
        full_name = prefix + (names(name) if names else name)
        array = fill_array(full_name, tuple(tensor.shape), seed=seed) if tensor.is_floating_point() else None
        if array is not None:
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(array))
            drawn.append(full_name)
    return drawn


KEPT = {"num_batches_tracked", "relative_position_index", "empty_weight", "pixel_mean", "pixel_std"}
TOKENS = {"cls_token", "mask_token", "pos_embed", "absolute_pos_embed"}
QUERY_HEADS = ("mask_embed.layers", "ref_proj.layers", "reid_embed.layers")


def fill_array(name: str, shape: tuple[int, ...], *, seed: int = 2) -> np.ndarray | None:
    """float32 values of one state-dict entry; None leaves it as it is."""
    last = name.rpartition(".")[2]
    if name.startswith("criterion.") or ".criterion." in name or last in KEPT:
        return None
    if last == "running_var":
        return (0.6 + 0.8 * unit_uniform(name, shape, seed=seed)).astype(np.float32)
    mean, deviation = _spread(name, last, shape)
    centre = len(shape) > 1 and deviation is None and _follows_relu(name)
    draw = unit_normal(name, shape, seed=seed, centre_rows=centre)
    if deviation is None:
        deviation = _gain(name) / np.sqrt(float(_fan_in(name, shape)))
    # adding a zero mean would turn -0.0 into 0.0
    return np.asarray(deviation * draw if mean == 0.0 else mean + deviation * draw, dtype=np.float32)


def unit_normal(
    name: str, shape: tuple[int, ...], *, seed: int, salt: int = 0, centre_rows: bool = False
) -> np.ndarray:
    """About N(0, 1) in float64: the sum of each word's four 16-bit parts, whose mean is 131070."""
    parts = _words(name, math.prod(shape), seed=seed, salt=salt).view("<u2").reshape(-1, 4)
    centred = parts.sum(axis=1, dtype=np.int64) - 131070
    if not centre_rows:
        return (centred.astype(np.float64) / 37837.222).reshape(shape)
    rows = centred.reshape(shape[0], -1)
    width = rows.shape[1]
    return ((rows * width - rows.sum(axis=1, keepdims=True)).astype(np.float64) / (width * 37837.222)).reshape(shape)


def unit_uniform(name: str, shape: tuple[int, ...], *, seed: int, salt: int = 0) -> np.ndarray:
    """Uniform on [0, 1) in float64: the leading 24 bits of each word."""
    return ((_words(name, math.prod(shape), seed=seed, salt=salt) >> np.uint64(40)) / 2.0**24).reshape(shape)


def make_frames(count: int, height: int, width: int, *, seed: int) -> Tensor:
    """uint8 ``(T, 3, H, W)``: twelve soft-edged shapes drifting over a gradient, with grain."""
    shapes = unit_uniform("clip", (12, 8), seed=seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    background = np.stack(
        [40.0 + 120.0 * y / height, 60.0 + 90.0 * x / width, 150.0 - 70.0 * (x + y) / (height + width)]
    )
    frames = []
    for t in range(count):
        image = background
        for number, (row, column, down, right, size, *colour) in enumerate(shapes):
            dy = np.abs(y - (row + 0.06 * t * (down - 0.5)) * height)
            dx = np.abs(x - (column + 0.06 * t * (right - 0.5)) * width)
            distance = (dy, np.maximum(np.sqrt(dy**2 + dx**2), dx), np.sqrt(dy**2 + dx**2))[number % 3]
            cover = np.clip(((0.06 + 0.16 * size) * min(height, width) - distance) / 2.0, 0.0, 1.0)
            image = image * (1 - cover) + (255.0 * np.asarray(colour))[:, None, None] * cover
        grain = 6.0 * unit_normal("clip/grain", (3, height, width), seed=seed, salt=1 + t)
        frames.append(np.clip(np.floor(image + grain + 0.5), 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(frames))


def _words(name: str, count: int, *, seed: int, salt: int) -> np.ndarray:
    key = (seed << 40) + (salt << 32) + zlib.crc32(name.encode())
    return np.asarray(np.random.PCG64(key).random_raw(count), dtype="<u8")


def _spread(name: str, last: str, shape: tuple[int, ...]) -> tuple[float, float | None]:
    """Mean and standard deviation of an entry; None where the fan-in decides."""
    if last == "running_mean":
        return 0.0, 0.1
    if "sampling_offsets" in name and last == "bias":
        return 0.0, 2.0
    if last == "gamma":
        return 0.3, 0.06
    if last in TOKENS:
        return 0.0, 0.2
    if last == "relative_position_bias_table":
        return 0.0, 0.3
    if any(part in name for part in ("query_feat", "query_embed", "level_embed")):
        return 0.0, 1.0
    if last in ("bias", "in_proj_bias"):
        return 0.0, 0.2 if "class_embed" in name and last == "bias" else 0.05
    return (1.0, 0.1) if len(shape) <= 1 else (0.0, None)


def _fan_in(name: str, shape: tuple[int, ...]) -> int:
    return shape[0] if name.endswith("backbone.up.weight") else math.prod(shape[1:])


def _follows_relu(name: str) -> bool:
    if not name.endswith(".weight"):
        return False
    if any(head in name for head in QUERY_HEADS):
        return not name.endswith("layers.0.weight")
    return "transformer_ffn_layers" in name and "linear2" in name


def _gain(name: str) -> float:
    """Factor on ``1 / sqrt(fan-in)``, by role; the first rule that applies counts."""
    rules: list[tuple[bool, float]] = [
        ("class_embed" in name, 3.0),
        ("mask_embed.layers.2" in name, 0.7),
        (any(head in name for head in QUERY_HEADS), 1.4),
        ("activation_proj" in name, 2.0),
        ("attention_weights" in name, 1.5),
        ("in_proj_weight" in name, 1.5),
        ("out_proj.weight" in name, 0.1),
        ("transformer_ffn_layers" in name and "linear2" in name, 0.2),
        ("conv_short_aggregate_layers" in name, 0.4),
        ("pixel_decoder.transformer" in name and ("linear2" in name or "output_proj" in name), 0.4),
        (name.startswith("backbone.") and ".qkv." in name, 1.5),
        (name.startswith("backbone.") and ".conv3." in name and ".res" in name, 0.5),
        (name.startswith("backbone.") and any(f".conv{i}." in name for i in (1, 2, 3)), 1.4),
        (name.startswith("backbone.") and ".spm." in name, 1.4),
    ]
    return next((gain for applies, gain in rules if applies), 1.0)
