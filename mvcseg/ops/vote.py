"""Eq. 8: the per-pixel majority of several label maps, with a stated rule for ties.

Labels are compared for equality only, so any integers vote, 255 and values outside ``0..K-1`` among them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.shapes import check_integer, check_num_classes

_CHUNK = 1 << 16
"""Pixels worked on at once on the CPU: a chunk of eight byte maps and its counts stays in the cache."""


def majority(label_maps: Tensor, *, num_classes: int) -> Tensor:
    """The label most maps agree on at each pixel; the first map's label where no single one leads.

    On a tie the first map decides even if its label is not among the tied ones: Eq. 8 read literally, with
    the views ordered by falling resolution.

    Args:
        label_maps: ``(V, ...)`` integers of any dtype, the deciding map first.
        num_classes: K, 1 to 255. Labels outside ``0..K-1`` vote like any other.

    Returns:
        ``(...)`` labels of the same dtype.

    Raises:
        DTypeError: ``label_maps`` is no tensor of integers.
        ShapeError: there is no map to vote.
        ConfigError: ``num_classes`` is outside 1 to 255.

    Source: arXiv 2406.04979, Eq. 8.

    Example:
        >>> maps = torch.tensor([[7, 7, 7], [3, 3, 3], [3, 5, 3], [5, 4, 5], [6, 6, 5]])
        >>> majority(maps, num_classes=8)  # 3 leads; nothing leads; 3 and 5 tie, so the first map decides
        tensor([3, 7, 7])
    """
    return _vote(label_maps, num_classes, _literal)


def majority_among_tied(label_maps: Tensor, *, num_classes: int) -> Tensor:
    """The label most maps agree on at each pixel; on a tie the tied label that comes first in map order.

    Args:
        label_maps: ``(V, ...)`` integers of any dtype, the map that wins ties first.
        num_classes: K, 1 to 255. Labels outside ``0..K-1`` vote like any other.

    Returns:
        ``(...)`` labels of the same dtype.

    Raises:
        DTypeError: ``label_maps`` is no tensor of integers.
        ShapeError: there is no map to vote.
        ConfigError: ``num_classes`` is outside 1 to 255.

    Example:
        >>> maps = torch.tensor([[7], [3], [3], [5], [5]])
        >>> majority_among_tied(maps, num_classes=8), majority(maps, num_classes=8)
        (tensor([3]), tensor([7]))
    """
    return _vote(label_maps, num_classes, _among_tied)


def _vote(label_maps: Tensor, num_classes: int, rule: Callable[[Tensor], Tensor]) -> Tensor:
    if not isinstance(label_maps, Tensor):
        raise DTypeError(f"label_maps: expected a torch.Tensor (v ...), got {type(label_maps).__name__}")
    check_integer(label_maps=label_maps)
    check_num_classes(num_classes)
    if label_maps.ndim == 0 or len(label_maps) == 0:
        raise ShapeError(f"label_maps: expected (v ...) with at least one map, got {tuple(label_maps.shape)}")
    maps = label_maps.flatten(1) if label_maps.ndim > 1 else label_maps[:, None]
    signed = _SIGNED.get(maps.dtype)
    if signed is not None:
        maps = maps.view(signed)
    if maps.device.type == "cpu":
        winner = torch.empty_like(maps[0])
        for start in range(0, maps.shape[1], _CHUNK):
            winner[start : start + _CHUNK] = rule(maps[:, start : start + _CHUNK])
    else:
        winner = rule(maps)
    return winner.view(label_maps.dtype).view(label_maps.shape[1:])


# PyTorch compares these as signed integers of the same width; equality of bits is all a vote needs.
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def _literal(maps: Tensor) -> Tensor:
    counts = _agreements(maps)
    leading = counts == counts.amax(dim=0)
    info = torch.iinfo(maps.dtype)
    highest = torch.where(leading, maps, info.min).amax(dim=0)
    lowest = torch.where(leading, maps, info.max).amin(dim=0)
    return torch.where(highest == lowest, highest, maps[0])


def _among_tied(maps: Tensor) -> Tensor:
    counts = _agreements(maps)
    label, most = maps[0], counts[0]
    for other, count in zip(maps[1:], counts[1:], strict=True):
        label = torch.where(count > most, other, label)
        most = torch.maximum(most, count)
    return label


def _agreements(maps: Tensor) -> Tensor:
    """How many maps have the label of map v at each pixel, ``(V, N)``, itself included."""
    dtype = torch.uint8 if len(maps) < 256 else torch.int32
    counts = torch.ones(maps.shape, dtype=dtype, device=maps.device)
    for shift in range(1, len(maps)):
        equal = maps[shift:] == maps[:-shift]
        counts[shift:] += equal
        counts[:-shift] += equal
    return counts
