"""Semantic decoding on the CPU: where few classes can win, only those are computed.

A pixel's mask value is a mean of the mask pixels around it, and every term of a class's score grows with it. So the
largest and the smallest mask pixels of a small cell bound each class's score there from above and from below, and a
class whose upper bound lies below the best lower bound wins nowhere in the cell. Cells with one class left are done.
What is left of a tile of cells is computed for the union of their classes.

Labels are those of all classes, bit for bit: pixels whose best two scores are closer than rounding could have moved
them send their tile back to the full product.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import torch
from torch import Tensor

from mvcseg.ops.semantic_decoding import STRIDE, MaskProbabilities, class_scores, full_precision, strip_labels

_CELL = 2
"""Side of a cell in mask pixels."""
_TILE = 1 << 19
"""Mask values in a tile: two megabytes in float32."""
_SLACK = 1e-4
"""Share by which bounds are loosened; rounding of interpolation, sigmoid and sums stays below a tenth of it."""
_SMALLEST_FLOOR = 1e-30
"""Bounds below it decide nothing: numbers that small lose digits."""


@torch.no_grad()
def tile_labels(
    masks: Tensor, table: Tensor, *, size: tuple[int, int], output_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The best class of every pixel of one frame; arguments and result as in ``strip_labels``."""
    masks = full_precision(masks)
    weight = full_precision(table).to(masks).t().contiguous()
    shares_of = MaskProbabilities(masks, size=size, output_size=output_size)
    can_win = _can_win(masks, weight, reach=_CELL + (1 if size == output_size else 2))
    if 2 * int(can_win.sum()) > can_win.numel():
        return strip_labels(masks, table, size=size, output_size=output_size)  # nothing known of any class
    rows, columns = (
        (first // _CELL).clamp(max=cells - 1)
        for first, cells in zip(shares_of.first_mask_pixels(), can_win.shape, strict=False)
    )
    is_open = can_win.sum(dim=-1) > 1
    labels = can_win.to(torch.uint8).argmax(dim=-1).to(torch.uint8)[rows[:, None], columns]
    is_number = torch.ones((), dtype=torch.bool)
    side = max(1, isqrt(_TILE // masks.shape[-1]) // (STRIDE * _CELL))
    for box in _open_boxes(is_open, side):
        top, bottom = _pixels(rows, box[0])
        left, right = _pixels(columns, box[1])
        if top == bottom or left == right:
            continue  # padding, or cells between the rows of a smaller output
        classes = can_win[slice(*box[0]), slice(*box[1])].flatten(0, 1).any(dim=0).nonzero().squeeze(1)
        shares = shares_of.window((top, bottom), (left, right))
        target = labels[top:bottom, left:right]
        if 2 * len(classes) > len(weight) or not _decide(shares, weight, classes, target):
            best, winners = class_scores(shares, weight).max(dim=-1)
            target.copy_(winners)
            is_number &= ~best.isnan().any()
    return labels, is_number


def _can_win(masks: Tensor, weight: Tensor, *, reach: int) -> Tensor:
    """Classes ``(rows, columns, K)`` bool that may be the best of some pixel of each cell of ``reach`` mask pixels."""
    lowest, highest = _of_cells(masks, torch.minimum, reach), _of_cells(masks, torch.maximum, reach)
    floor = class_scores(lowest.sigmoid(), weight).amax(dim=-1, keepdim=True)
    ceiling = class_scores(highest.sigmoid(), weight)
    is_out = (ceiling * (1 + _SLACK) < floor * (1 - _SLACK)) & (floor > _SMALLEST_FLOOR)
    # an infinite mask value makes means that are no numbers, a negative weight turns the bounds around
    is_sound = (highest - lowest).isfinite().all(dim=-1, keepdim=True) & (weight >= 0).all()
    return ~(is_out & is_sound)


def _of_cells(masks: Tensor, choose: Callable[..., Tensor], reach: int) -> Tensor:
    """Least or greatest value ``(rows, columns, Q)`` of each cell with the mask pixels it reaches into."""
    for dim in (0, 1):
        cells = max(1, -(-(masks.shape[dim] - 1) // _CELL))
        chosen = _every(masks, dim, 0, cells).clone()
        for offset in range(1, reach):
            values = _every(masks, dim, offset, cells)
            known = chosen.narrow(dim, 0, values.shape[dim])  # the last cells may end with the masks
            choose(known, values, out=known)
        masks = chosen
    return masks


def _every(masks: Tensor, dim: int, offset: int, cells: int) -> Tensor:
    """The mask pixels ``offset`` after the first of each cell."""
    window = slice(offset, offset + _CELL * (cells - 1) + 1, _CELL)
    return masks[window] if dim == 0 else masks[:, window]


def _open_boxes(is_open: Tensor, side: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Smallest boxes around the open cells of each tile of ``side`` by ``side`` cells, as half-open ranges."""
    boxes = []
    for top in range(0, len(is_open), side):
        for left in range(0, is_open.shape[1], side):
            tile = is_open[top : top + side, left : left + side]
            ranges = [axis.nonzero().squeeze(1).tolist() for axis in (tile.any(dim=1), tile.any(dim=0))]
            if ranges[0]:
                (upper, lower), (near, far) = [(axis[0], axis[-1] + 1) for axis in ranges]
                boxes.append(((top + upper, top + lower), (left + near, left + far)))
    return boxes


def _pixels(cells: Tensor, span: tuple[int, int]) -> tuple[int, int]:
    """Output pixels whose cell lies in a range, with ``cells`` the cell of each, ascending."""
    first, last = torch.searchsorted(cells, cells.new_tensor(span)).tolist()
    return first, last


def _decide(shares: Tensor, weight: Tensor, classes: Tensor, labels: Tensor) -> bool:
    """Write the best of some classes ``(k,)`` into ``labels``; False where rounding might change one of them."""
    scores = class_scores(shares, weight[classes])
    best, winners = scores.max(dim=-1, keepdim=True)
    rounding = 4 * shares.shape[-1] * torch.finfo(scores.dtype).eps
    if int((scores >= best * (1 - rounding)).sum()) != best.numel():
        return False
    labels.copy_(classes.to(torch.uint8)[winners.squeeze(-1)])
    return True
