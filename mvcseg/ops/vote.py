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
from mvcseg.ops.places import places
from mvcseg.shapes import check_integer, check_num_classes

_BLOCK = 1 << 24
"""Labels, over all maps, looked at at once on the CPU: what is held beside the maps is as much."""
_CHUNK = 1 << 16
"""Pixels counted at once on the CPU: eight byte maps of a chunk and their counts stay in the cache."""
_DEVICE_BLOCK = 1 << 26
"""Labels, over all maps, voted on at once on an accelerator."""
_THREADED = 1 << 20
"""Labels from which more than one thread pays."""
_NOWHERE = np.empty(0, dtype=np.intp)
_Places = npt.NDArray[np.intp]
_Maps = npt.NDArray[Any]


def majority(label_maps: Tensor, *, num_classes: int) -> Tensor:
    """The label most maps agree on at each pixel; the first map's label where no single one leads.

    On a tie the first map decides even if its label is not among the tied ones: Eq. 8 read literally, with
    the views ordered by falling resolution. On an accelerator the host waits for nothing.

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
    winner = _vote_on_cpu(maps, among_tied) if maps.device.type == "cpu" else _vote_on_device(maps, among_tied)
    return winner.view(label_maps.dtype).view(label_maps.shape[1:])


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def _vote_on_device(maps: Tensor, among_tied: bool) -> Tensor:
    """The vote as whole-tensor operations, for accelerators: nothing is read back, and memory is bounded by blocks."""
    size = max(_DEVICE_BLOCK // len(maps), 1)
    parts = [_vote_at_once(part, among_tied) for part in torch.split(maps, size, dim=1)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _vote_at_once(maps: Tensor, among_tied: bool) -> Tensor:
    counts = torch.stack([(maps == one).sum(dim=0, dtype=torch.int32) for one in maps])
    most = counts.amax(dim=0)
    leads = counts == most
    leader = maps.gather(0, leads.byte().argmax(dim=0, keepdim=True))[0]
    if among_tied:
        return leader
    tied = (leads & (maps != leader)).any(dim=0)
    return torch.where(tied, maps[0], leader)


def _vote_on_cpu(maps: Tensor, among_tied: bool) -> Tensor:
    """The vote block by block: two cheap tests of all pixels, and a full count of those that they leave open."""
    views, pixels = maps.shape
    is_byte = maps.dtype.itemsize == 1
    fits_bytes = is_byte or _holds_bytes(maps)
    winner = torch.empty(pixels, dtype=torch.uint8 if fits_bytes else maps.dtype)
    size = max(_BLOCK // views, _CHUNK)
    equal = np.empty((views - 1, min(size, pixels)), dtype=bool)
    for start in range(0, pixels, size):
        block = maps[:, start : start + size]
        if fits_bytes:
            block = block.view(torch.uint8) if is_byte else block.to(torch.uint8)
        votes: _Maps = block.numpy()
        own: _Maps = winner[start : start + size].numpy()
        where = _settle(votes, equal=equal[:, : len(own)], out=own)
        if where is None:
            for first in range(0, len(own), _CHUNK):
                own[first : first + _CHUNK] = _count(votes[:, first : first + _CHUNK], among_tied)
        elif len(where):
            own[where] = _count(votes.take(where, axis=1), among_tied)
    return winner.view(maps.dtype) if is_byte else winner.to(maps.dtype)


def _holds_bytes(maps: Tensor) -> bool:
    """Whether all labels are in 0 to 255."""
    if maps.numel() == 0:
        return True
    lowest, highest = torch.aminmax(maps)
    return int(lowest) >= 0 and int(highest) <= 255


def _settle(maps: _Maps, *, equal: _Maps, out: _Maps) -> _Places | None:
    """Write the label of every pixel of maps ``(V, N)`` that is easily told, and return the places of the others.

    None where the first test leaves most pixels open: then all are better counted.

    Where the first map's label has half the votes or more it wins by either rule. Where it has fewer, another label
    with half the votes leads alone, since the first map is not among its voters; the last map, the view most unlike the
    first, is tried.
    """
    needed = (len(maps) + 1) // 2 - 1
    if needed == 0:
        out[:] = maps[0]
        return _NOWHERE
    is_open = _agreements_with(maps[0], maps[1:], equal=equal) < needed
    if 2 * np.count_nonzero(is_open) > len(out):
        return None
    out[:] = maps[0]
    where: _Places = places(is_open)
    left = maps.take(where, axis=1)
    by_last = _agreements_with(left[-1], left[1:-1], equal=np.empty(left.shape, dtype=bool)) >= needed
    out[where[by_last]] = left[-1][by_last]
    return where[~by_last]


def _agreements_with(one: _Maps, others: _Maps, *, equal: _Maps) -> _Maps:
    """How many of the other maps have the label of this one; ``equal`` is scratch space.

    PyTorch shares large arrays out to its threads; NumPy begins sooner.
    """
    part = equal[: len(others)]
    number: _Maps
    if part.size < _THREADED or len(others) > 255:
        np.equal(others, one, out=part)
        number = part.view(np.uint8).sum(axis=0, dtype=np.uint8 if len(others) < 256 else np.uint16)
    else:
        torch.eq(torch.from_numpy(others), torch.from_numpy(one), out=torch.from_numpy(part))
        number = torch.from_numpy(part.view(np.uint8)).sum(dim=0, dtype=torch.uint8).numpy()
    return number


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
