"""DVIS++ models of ``mvcseg train`` in and out of files: safetensors with the published tensor names.

The header's metadata holds the format's name and version, the ``DVISConfig`` that builds the model, the size of
frames it is tested with, the class names and what the caller adds, all as JSON. The published layout holds the same
tensors, so ``load_official`` reads such a file too, and ``torch.save({"model": load_file(path)}, "model.pth")`` with
``safetensors.torch.load_file`` turns it into a file for the public code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mvcseg.data.files import shown, write_aside
from mvcseg.errors import CheckpointError, ConfigError, DataError
from mvcseg.models.dvis.checkpoint import fill_model, not_finite, official_state_dict
from mvcseg.models.dvis.config import DVISConfig, from_json, to_json
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.reading import StoredState, read_state

FORMAT = "mvcseg.dvis"
"""What a file's header calls its format."""
VERSION = "1"
"""Version of the layout; a file of another version is refused."""

TestSize = tuple[int | None, int | None]
"""Shorter side of the frames a model is tested with, and the cap on the longer one; None is the video's own."""


@dataclass(frozen=True)
class TrainedDVIS:
    """A model of ``mvcseg train`` with what its file says of it.

    Attributes:
        model: in eval mode.
        config: that builds it.
        class_names: K names; none where the file gives none.
        test_size: shorter side of the frames it is tested with and cap on the longer one, in pixels.
        metadata: what the writer added.
    """

    model: DVIS
    config: DVISConfig
    class_names: tuple[str, ...] = ()
    test_size: TestSize = (None, None)
    metadata: Mapping[str, Any] = field(default_factory=dict)


def save_trained(
    model: DVIS,
    path: str | os.PathLike[str],
    *,
    config: DVISConfig,
    class_names: Sequence[str] = (),
    test_size: TestSize | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a model to one safetensors file, under its final name only when complete.

    Args:
        model: on any device, in either mode.
        path: of the file; an existing one is replaced.
        config: that built it.
        class_names: one name for each class, or none.
        test_size: shorter side of the frames it is tested with and cap on the longer one, None for the video's own;
            left out, those of ``config``.
        metadata: anything JSON can hold: scores, seed, command.

    Raises:
        ConfigError: the number of names is not the number of classes, or ``metadata`` is no JSON.
        CheckpointError: a weight is NaN or infinite, or the file cannot be written.
    """
    from safetensors.torch import save

    if class_names and len(class_names) != model.num_classes:
        raise ConfigError(f"class_names: expected {model.num_classes} names, one a class, got {len(class_names)}")
    state = {name: tensor.cpu() for name, tensor in official_state_dict(model).items()}
    broken = not_finite(state)
    if broken:
        raise CheckpointError(f"model: {', '.join(broken[:3])} hold NaN or infinite weights; nothing was written")
    size = (config.short_side, config.long_side) if test_size is None else test_size
    try:
        header = {
            "format": FORMAT,
            "version": VERSION,
            "config": to_json(config),
            "test_size": json.dumps(size),
            "class_names": json.dumps(list(class_names)),
            "metadata": json.dumps(dict(metadata or {}), allow_nan=False),
        }
    except (TypeError, ValueError) as error:
        raise ConfigError(f"metadata: expected what JSON can hold, got {metadata!r} ({error})") from error
    try:
        with write_aside(path) as aside:
            aside.write_bytes(save(state, metadata=header))
    except DataError as error:
        raise CheckpointError(str(error)) from error


def load_trained(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> TrainedDVIS:
    """The model of a file of ``save_trained``.

    Args:
        path: of the file.
        device: where the model goes.

    Raises:
        CheckpointError: the file is missing, cut short, of another format, its header is broken, or its tensors are
            not those of the model it names; the message names the file.
    """
    stored = read_state(Path(path))
    if not is_trained(stored):
        raise CheckpointError(
            f"{shown(path)}: expected a file of save_trained (format {FORMAT!r}), got format "
            f"{stored.metadata.get('format')!r}; `mvcseg inspect {shown(path)}` says what it holds"
        )
    header = stored.metadata
    if header.get("version") != VERSION:
        raise CheckpointError(
            f"{shown(path)}: expected version {VERSION} of {FORMAT}, got {header.get('version')!r}; update mvcseg"
        )
    try:
        config = from_json(header["config"])
        names = tuple(str(name) for name in json.loads(header["class_names"]))
        short_side, long_side = (None if side is None else int(side) for side in json.loads(header["test_size"]))
        metadata = dict(json.loads(header["metadata"]))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{shown(path)}: its header names no model this version can build ({error})") from error
    if names and len(names) != config.num_classes:
        raise CheckpointError(f"{shown(path)}: names {len(names)} classes for {config.num_classes} of the model")
    model = fill_model(stored, config, path=path).to(device)
    return TrainedDVIS(model, config, names, (short_side, long_side), metadata)


def is_trained(stored: StoredState) -> bool:
    """Whether a file was written by ``save_trained``."""
    return stored.metadata.get("format") == FORMAT
