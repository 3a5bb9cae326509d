"""Published checkpoints into models, and models back into the published layout.

Loading is strict: a file that does not hold exactly the model's tensors ends in one ``CheckpointError`` that says what
it is and what it would fit. A model saved with ``official_state_dict`` loads in the public code as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.errors import CheckpointError
from mvcseg.models.backbones.window_attention import relative_position_index
from mvcseg.models.compact_checkpoint import FORMAT as COMPACT_FORMAT
from mvcseg.models.dvis.build import build_empty
from mvcseg.models.dvis.config import PRESETS, DVISConfig, SwinSizes, find_config
from mvcseg.models.dvis.identify import identify
from mvcseg.models.dvis.mismatch import compare, reason
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.names import (
    EMPTY_WEIGHT,
    NO_OBJECT_WEIGHT,
    entries_of,
    expected_entries,
    from_official,
    normalised,
    to_official,
)
from mvcseg.models.dvis.reading import StoredState, read_state
from mvcseg.models.dvis.sources import fetch

_PIECE = 64 << 20
"""About the bytes of a mapped file that are copied into a model at once."""


def load_official(
    path: str | os.PathLike[str],
    *,
    preset: str | DVISConfig,
    sha256: str | None = None,
    device: torch.device | str = "cpu",
) -> DVIS:
    """A model with the weights of a published file, or of one in its layout, in eval mode.

    Args:
        path: a local file (torch, safetensors, or detectron2's ``.pkl``), or ``hf://owner/repo/file``,
            ``hf://owner/repo@revision/file``. ``mvcseg inspect`` says which preset fits.
        preset: a name of ``PRESETS``, or a configuration of your own.
        sha256: digest that the file must have; None for none beyond those known.
        device: where the model goes.

    Returns:
        The model; its weights are float32, exactly the file's where those are.

    Raises:
        ConfigError: no preset has the name.
        CheckpointError: the file is missing, unreadable, tries to run something, does not hold exactly the tensors of
            the model, or holds NaN or infinite numbers. The message names what differs and what would fit.
    """
    return fill_model(read_state(fetch(path, sha256=sha256)), find_config(preset), path=path).to(device)


def fill_model(stored: StoredState, config: DVISConfig, *, path: str | os.PathLike[str]) -> DVIS:
    """A model with stored weights, in eval mode.

    Args:
        stored: what a file holds.
        config: of the model.
        path: of the file, for messages.

    Raises:
        CheckpointError: the tensors are not exactly the model's, or hold NaN or infinite numbers.
    """
    name = _name_of(config)
    if stored.metadata.get("format") == COMPACT_FORMAT:
        raise CheckpointError(
            f"{shown(path)}: is a compact model of `mvcseg train`, not {name}; load it without a preset"
        )
    state = normalised(stored.tensors)
    expected = expected_entries(config)
    mismatch = compare(expected, entries_of(state))
    if mismatch:
        identity = identify({name: tuple(tensor.shape) for name, tensor in state.items()})
        raise CheckpointError(f"{shown(path)}: does not fit {name}: {mismatch}: {reason(identity, config, mismatch)}")
    _check_plain(os.fspath(path), state)
    model = build_empty(config)
    broken = []
    for piece in _pieces(stored, path=path):
        broken += not_finite(piece)
        if isinstance(config.backbone, SwinSizes):
            _check_index(os.fspath(path), piece, window=config.backbone.window)
        own = {from_official(entry, backbone=model.backbone): tensor for entry, tensor in piece.items()}
        model.load_state_dict(own, strict=False)  # all names have been compared
        del own, piece
    _check_finite(os.fspath(path), broken)
    return model


def _pieces(stored: StoredState, *, path: str | os.PathLike[str]) -> Iterator[dict[str, Tensor]]:
    """The tensors of ``normalised``, some at a time.

    Pages of a mapped file count as memory for as long as any tensor lies in its mapping, so every piece maps the
    file anew and lets go of it: a model is filled in little more memory than its own.

    Raises:
        CheckpointError: the file has changed meanwhile.
    """
    state = normalised(stored.tensors)
    if stored.mapped is None:
        yield state
        return
    before, names, size = _identity(stored.mapped), list(state), 0
    pieces: list[list[str]] = [[]]
    for name in names:
        if size > _PIECE:
            pieces, size = [*pieces, []], 0
        pieces[-1].append(name)
        size += state[name].nbytes
    for piece in pieces:
        fresh = normalised(read_state(stored.mapped).tensors)
        if _identity(stored.mapped) != before:
            raise CheckpointError(f"{shown(path)}: changed while it was read; load it again")
        yield {name: fresh.pop(name) for name in piece}
        del fresh


def _identity(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def official_state_dict(model: DVIS) -> dict[str, Tensor]:
    """A model's tensors as the published files hold them: their names, shapes, types, and the training loss's weights.

    ``torch.save({"model": official_state_dict(model)}, file)`` writes a file that the public code loads, and
    ``load_official`` too.

    Args:
        model: of ``build_dvis`` or ``load_official``.

    Returns:
        Detached and contiguous; may share memory with the model.
    """
    state = {
        to_official(name, backbone=model.backbone): tensor.detach().contiguous()
        for name, tensor in model.state_dict().items()
    }
    weight = torch.ones(model.num_classes + 1)
    weight[-1] = NO_OBJECT_WEIGHT
    return state | {EMPTY_WEIGHT: weight}


def _name_of(config: DVISConfig) -> str:
    return next((f"preset {name!r}" for name, other in PRESETS.items() if other == config), "the configuration given")


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of floating-point tensors with NaN, with what is infinite in float32, or without plain values."""
    return [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point()
        and (tensor.layout is not torch.strided or tensor.is_meta or not _is_finite(tensor))
    ]


def _is_finite(tensor: Tensor) -> bool:
    """By least and greatest, which any NaN becomes; ``isfinite`` would make two copies."""
    return tensor.numel() == 0 or all(bool(bound.isfinite()) for bound in tensor.to(torch.float32).aminmax())


def _check_plain(path: str, state: Mapping[str, Tensor]) -> None:
    """Dense tensors with values."""
    odd = [name for name, tensor in state.items() if tensor.layout is not torch.strided or tensor.is_meta]
    if odd:
        raise CheckpointError(f"{shown(path)}: {shown(odd[0])} is no plain tensor of numbers")


def _check_finite(path: str, broken: list[str]) -> None:
    if broken:
        which = "tensor holds" if len(broken) == 1 else "tensors hold"
        raise CheckpointError(
            f"{shown(path)}: {len(broken)} {which} NaN or infinite numbers, first {shown(broken[0])}; training "
            "diverged, or the file is damaged"
        )


def _check_index(path: str, state: Mapping[str, Tensor], *, window: int) -> None:
    """The index buffers of Swin follow from the window; others would read a wrong bias, or outside the table."""
    index = relative_position_index(window)
    for name, tensor in state.items():
        if name.endswith(".relative_position_index") and not torch.equal(tensor.long(), index):
            raise CheckpointError(f"{shown(path)}: {shown(name)} is not the index of a window of {window}: damaged")
