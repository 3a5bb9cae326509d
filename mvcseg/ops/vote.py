"""Eq. 8: the per-pixel majority of several label maps, with a stated rule for ties.

Labels are compared for equality only, so any integers vote, 255 and values outside ``0..K-1`` among them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.shapes import check_integer, check_num_classes

_CHUNK = 1 << 16
"""Pixels worked on at once on the CPU: eight byte maps of a chunk and their counts stay in the cache."""
_WIDE_CHUNK = 1 << 13
"""Pixels of wider labels read at once, so that they leave the main memory once."""
_Maps = npt.NDArray[Any]


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
    return _vote(label_maps, num_classes, among_tied=False)


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
    return _vote(label_maps, num_classes, among_tied=True)


def _vote(label_maps: Tensor, num_classes: int, *, among_tied: bool) -> Tensor:
    if not isinstance(label_maps, Tensor):
        raise DTypeError(f"label_maps: expected a torch.Tensor (v ...), got {type(label_maps).__name__}")
    check_integer(label_maps=label_maps)
    check_num_classes(num_classes)
    if label_maps.ndim == 0 or len(label_maps) == 0:
        raise ShapeError(f"label_maps: expected (v ...) with at least one map, got {tuple(label_maps.shape)}")
    maps = label_maps.flatten(1) if label_maps.ndim > 1 else label_maps[:, None]
    # Equality of bits is all a vote needs, and PyTorch can do little with wide unsigned integers.
    maps = maps.view(_SIGNED.get(maps.dtype, maps.dtype))
    if maps.device.type == "cpu":
        winner = torch.from_numpy(_vote_by_chunks(maps.numpy(), among_tied))
    else:
        winner = _vote_at_once(maps, among_tied)
    return winner.view(label_maps.dtype).view(label_maps.shape[1:])


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def _vote_at_once(maps: Tensor, among_tied: bool) -> Tensor:
    """The vote as whole-tensor operations, for accelerators."""
    counts = torch.stack([(maps == one).sum(dim=0, dtype=torch.int32) for one in maps])
    most = counts.amax(dim=0)
    leads = counts == most
    leader = maps.gather(0, leads.byte().argmax(dim=0, keepdim=True))[0]
    if among_tied:
        return leader
    tied = (leads & (maps != leader)).any(dim=0)
    return torch.where(tied, maps[0], leader)


def _vote_by_chunks(maps: _Maps, among_tied: bool) -> _Maps:
    """The vote in NumPy, whose operations on small arrays cost a fraction of PyTorch's.

    Where the first map's label has half the votes or more it wins by either rule. Only the other pixels, few
    where the maps agree, get the full count.
    """
    views, pixels = maps.shape
    winner = np.empty(pixels, dtype=maps.dtype)
    opened: list[tuple[npt.NDArray[np.intp], _Maps]] = []
    for start in range(0, pixels, _CHUNK):
        chunk = _narrowed(maps[:, start : start + _CHUNK])
        own = winner[start : start + _CHUNK]
        left = np.flatnonzero(_agreements(chunk, 0) < (views + 1) // 2 - 1)
        if 2 * len(left) > len(own):
            own[:] = _count(chunk, among_tied)
        else:
            own[:] = chunk[0]
            opened.append((left + start, np.take(chunk, left, axis=1)))
    if opened:
        where, votes = (np.concatenate(part, axis=-1) for part in zip(*opened, strict=True))
        for start in range(0, len(where), _CHUNK):
            winner[where[start : start + _CHUNK]] = _count(votes[:, start : start + _CHUNK], among_tied)
    return winner


def _narrowed(maps: _Maps) -> _Maps:
    """The same labels as bytes where bytes hold them."""
    if maps.dtype.itemsize == 1:
        return maps
    small = np.empty(maps.shape, dtype=np.uint8)
    for start in range(0, maps.shape[1], _WIDE_CHUNK):
        part = maps[:, start : start + _WIDE_CHUNK]
        used_bits = int(np.bitwise_or.reduce(np.bitwise_or.reduce(part, axis=0)))
        if not 0 <= used_bits <= 255:
            return maps
        small[:, start : start + _WIDE_CHUNK] = part
    return small


def _count(maps: _Maps, among_tied: bool) -> _Maps:
    """The vote of maps ``(V, N)`` with every pixel counted.

    Each map counts its agreements with *later* maps only: that is complete for the first map of every label and
    less for the others, so each leading label is found once, at its first map.
    """
    agreements = np.stack([_agreements(maps, view) for view in range(len(maps))])
    leads = agreements == agreements.max(axis=0)
    if among_tied:
        winner: _Maps = maps[-1].copy()
        for one, lead in zip(maps[-2::-1], leads[-2::-1], strict=True):
            _replace(winner, one, lead)
        return winner
    leaders = leads.view(np.uint8).sum(axis=0, dtype=agreements.dtype)
    winner = np.bitwise_or.reduce(maps & _bits(leads, maps.dtype), axis=0)  # the label itself where one leads
    _replace(winner, maps[0], leaders > 1)
    return winner


def _agreements(maps: _Maps, view: int) -> _Maps:
    """How many later maps have the label of map ``view``."""
    equal = maps[view + 1 :] == maps[view]
    number: _Maps = equal.view(np.uint8).sum(axis=0, dtype=np.uint8 if len(maps) < 256 else np.uint16)
    return number


def _replace(labels: _Maps, others: _Maps, where: npt.NDArray[np.bool_]) -> None:
    """``labels[where] = others[where]`` by bits: `numpy.copyto` takes forty times as long on bytes."""
    labels ^= (labels ^ others) & _bits(where, labels.dtype)


def _bits(where: npt.NDArray[np.bool_], dtype: np.dtype[Any]) -> _Maps:
    """All bits set where True, none elsewhere."""
    return np.negative(where.view(np.int8)).astype(dtype, copy=False)
