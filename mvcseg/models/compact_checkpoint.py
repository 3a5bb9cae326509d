"""Compact segmenters in and out of files: safetensors whose header says how to build the model.

The header's metadata holds the format's name and version, the constructor's numbers, the class names and what
the caller adds (scores, seed, command), all as JSON. Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mvcseg.data.files import write_aside
from mvcseg.errors import CheckpointError, ConfigError, DataError
from mvcseg.models.compact import CompactSegmenter

FORMAT = "mvcseg.compact"
"""What a file's header calls its format."""
VERSION = "1"
"""Version of the layout; a file of another version is refused."""


def save_compact(
    model: CompactSegmenter,
    path: str | Path,
    *,
    class_names: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a model to one safetensors file, under its final name only when complete.

    Args:
        model: on any device, in either mode.
        path: of the file; an existing one is replaced.
        class_names: one name for each class; empty writes the model's own ``class_names``.
        metadata: anything JSON can hold: scores, seed, command.

    Raises:
        ConfigError: the number of names is not the number of classes, or ``metadata`` is no JSON.
        CheckpointError: a weight is NaN or infinite, or the file cannot be written.
    """
    from safetensors.torch import save

    names = tuple(class_names) or model.class_names
    if names and len(names) != model.num_classes:
        raise ConfigError(f"class_names: expected {model.num_classes} names, one a class, got {len(names)}")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    broken = _not_finite(state)
    if broken:
        raise CheckpointError(f"model: {', '.join(broken[:3])} hold NaN or infinite weights; nothing was written")
    try:
        header = {
            "format": FORMAT,
            "version": VERSION,
            "architecture": json.dumps(model.architecture),
            "class_names": json.dumps(names),
            "metadata": json.dumps(dict(metadata or {}), allow_nan=False),
        }
    except (TypeError, ValueError) as error:
        raise ConfigError(f"metadata: expected what JSON can hold, got {metadata!r} ({error})") from error
    try:
        with write_aside(path) as aside:
            aside.write_bytes(save(state, metadata=header))
    except DataError as error:
        raise CheckpointError(str(error)) from error


def load_compact(path: str | Path, *, device: torch.device | str = "cpu") -> CompactSegmenter:
    """The model of a file of ``save_compact``, in eval mode, its ``class_names`` and ``metadata`` set.

    Args:
        path: of the file; ``packaged_checkpoint("mvc")`` is one that ships with this library.
        device: where the model goes.

    Raises:
        CheckpointError: the file is missing, cut short, of another format, or its tensors are not those of the
            architecture that its header names; the message names the file and what to do.
    """
    path = Path(path)
    header, state = _read(path)
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: expected a file of save_compact (format {FORMAT!r}), got format {header.get('format')!r}; "
            f"`mvcseg inspect {path}` says what it holds"
        )
    if header.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: expected version {VERSION} of {FORMAT}, got {header.get('version')!r}; update mvcseg"
        )
    try:
        architecture = json.loads(header["architecture"])
        class_names = tuple(str(name) for name in json.loads(header["class_names"]))
        metadata = dict(json.loads(header["metadata"]))
        if architecture.get("depth", 1) > len(state):  # each block has weights of its own
            raise ValueError(f"depth {architecture['depth']} for {len(state)} tensors")
        # Without storage until its shapes are known to fit: a broken header may name any size.
        with torch.device("meta"):
            model = CompactSegmenter(**architecture)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its header names no model this version can build ({error})") from error
    if class_names and len(class_names) != model.num_classes:
        raise CheckpointError(f"{path}: names {len(class_names)} classes for {model.num_classes} of the model")
    _check_state(path, model.state_dict(), state)
    model = CompactSegmenter(**architecture)
    model.load_state_dict(state)
    model.class_names, model.metadata = class_names, metadata
    return model.to(device).eval()


def packaged_checkpoint(name: Literal["plain", "mvc"]) -> Path:
    """Path of a checkpoint that ships with the library, trained on the toy set of ``mvcseg demo``.

    Args:
        name: "plain", or "mvc" for the one trained with masked video consistency; all else was equal.

    Raises:
        ConfigError: another name.

    Example:
        >>> load_compact(packaged_checkpoint("mvc")).training
        False
    """
    if name not in ("plain", "mvc"):
        raise ConfigError(f"name: expected 'plain' or 'mvc', got {name!r}")
    return Path(__file__).parent / "weights" / f"{name}.safetensors"


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header metadata and tensors of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cut short or no safetensors file ({error}); copy or train it again") from error


def _check_state(path: Path, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Names, shapes and finite values, or one error that says which are wrong."""
    faults = [f"{name} missing" for name in expected.keys() - state.keys()]
    faults += [f"{name} unexpected" for name in state.keys() - expected.keys()]
    faults += [
        f"{name}: expected {tuple(expected[name].shape)}, got {tuple(tensor.shape)}"
        for name, tensor in state.items()
        if name in expected and expected[name].shape != tensor.shape
    ]
    faults += [f"{name} holds NaN or infinite weights" for name in _not_finite(state)]
    if faults:
        shown = "; ".join(sorted(faults)[:3])
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise CheckpointError(f"{path}: does not fit the model its header names: {shown}{more}; train or copy it again")


def _not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors with a NaN or an infinity."""
    return [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
