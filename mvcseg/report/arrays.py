"""Pictures as people hold them: tensors or NumPy arrays, channels before or behind the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.errors import DTypeError, ShapeError


def has_channels_last(frames: Sequence[int], labels: Sequence[int], *, argument: str = "frames") -> bool:
    """Whether the three channels of frames stand behind the pixels; the size of the label maps tells.

    Args:
        frames: shape of the frames, ``(T, 3, H, W)`` or ``(T, H, W, 3)``, with or without T.
        labels: shape of their label maps, ``(T, H, W)`` or ``(H, W)``.
        argument: what the message calls the frames.

    Raises:
        ShapeError: the frames have neither shape, or both, as 3 x 3 pixels have.

    Example:
        >>> has_channels_last((8, 60, 80, 3), (8, 60, 80)), has_channels_last((3, 60, 80), (60, 80))
        (True, False)
    """
    axes, before, behind = ("t h w", "t 3 h w", "t h w 3") if len(labels) == 3 else ("h w", "3 h w", "h w 3")
    fits = len(frames) == len(labels) + 1
    is_first = fits and frames[-3] == 3 and tuple(frames[-2:]) == tuple(labels[-2:])
    is_last = fits and frames[-1] == 3 and tuple(frames[-3:-1]) == tuple(labels[-2:])
    if is_first == is_last:
        raise ShapeError(
            f"{argument}: expected ({before}) or ({behind}) for labels ({axes}) of {tuple(labels)}, got {tuple(frames)}"
        )
    return is_last


def to_tensor(values: object, *, argument: str) -> Tensor:
    """A tensor of the values of a tensor or array; an array is copied, since it may be read-only or run backwards.

    Raises:
        DTypeError: it is neither, or an array of something else than numbers.

    Example:
        >>> to_tensor(np.arange(6, dtype=np.uint16)[::-2], argument="labels")
        tensor([5, 3, 1])
    """
    if isinstance(values, Tensor):
        return values
    if not isinstance(values, np.ndarray):
        raise DTypeError(f"{argument}: expected a tensor or an array, got {type(values).__name__}")
    if values.dtype.kind not in "buif":
        raise DTypeError(f"{argument}: expected an array of numbers, got {values.dtype}")
    # of unsigned integers only bytes can do everything that a tensor can
    wanted = np.int64 if values.dtype.kind == "u" and values.dtype.itemsize > 1 else values.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(values, dtype=wanted, order="C"))


def to_channels(frames: Tensor, *, are_last: bool) -> Tensor:
    """Frames with their channels before the pixels, ``(..., 3, H, W)``."""
    return frames.movedim(-1, -3) if are_last else frames


def to_array(frames: Tensor, *, are_last: bool) -> NDArray[Any]:
    """Frames ``(..., 3, H, W)`` as an array, the channels behind the pixels where they ``are_last``."""
    array: NDArray[Any] = np.ascontiguousarray((frames.movedim(-3, -1) if are_last else frames).cpu().numpy())
    return array
