"""Cuts: consecutive frames that show nothing of each other, seen from what the flow could not bring together.

A frame that was moved along the flow looks like the frame it was moved to, block by block, whatever the camera did;
across a cut it does not, though the whole may be alike (sky above, road below). Measured as the correlation of grey
values in blocks of 16 pixels, after averaging over 4 x 4 against noise. The median over the blocks of real pairs,
CamVid at 15 Hz and VSPW, is 0.97 to 1.00, of pairs three frames apart 0.94 to 1.00, with strong noise, a flash or
one blurred frame 0.72 at least; of pairs from different videos, or from far apart in one, 0.14 to 0.41.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST_CORRELATION = 0.5
_AVERAGED = 4
_BLOCK = 4  # of averaged pixels, so 16 pixels
_LEAST_CONTRAST = 6.0  # standard deviation in grey values, below which a block says nothing
_LEAST_BLOCKS, _LEAST_SHARE = 8, 0.05


def is_cut(moved: NDArray[Any], grey: NDArray[Any]) -> bool:
    """Whether a frame shows nothing of the frame before, as far as can be seen.

    Frames in which fewer than 8 blocks, or 5 % of them, have any structure are not said to be cut.

    Args:
        moved: grey values ``(H, W)``, 0 to 255, of the frame before, moved along the flow; negative outside.
        grey: those of the frame.

    Example:
        >>> scene, other = np.random.default_rng(0).integers(0, 256, (2, 64, 64))
        >>> is_cut(scene, scene), is_cut(scene, 255 - scene // 2), is_cut(scene, other)
        (False, True, True)
    """
    is_inside = moved >= 0
    number = _sums(is_inside, _AVERAGED)
    both = np.where(is_inside, np.stack([moved, grey]), 0)
    one, other = _sums(both, _AVERAGED) / np.maximum(number, 1)
    is_inside = number >= _AVERAGED**2 / 2
    one, other = np.where(is_inside, one, 0), np.where(is_inside, other, 0)
    number = _sums(is_inside, _BLOCK)
    moments = _sums(np.stack([one, other, one * one, other * other, one * other]), _BLOCK) / np.maximum(number, 1)
    variance, other_variance = moments[2] - moments[0] ** 2, moments[3] - moments[1] ** 2
    is_told = (number >= _BLOCK**2 / 2) & (np.maximum(variance, other_variance) > _LEAST_CONTRAST**2)
    if is_told.sum() < max(_LEAST_BLOCKS, _LEAST_SHARE * is_told.size):
        return False
    together = (moments[4] - moments[0] * moments[1])[is_told]
    apart = np.sqrt(np.maximum((variance * other_variance)[is_told], 1e-9))
    return bool(np.median(together / apart) < _LEAST_CORRELATION)


def _sums(values: NDArray[Any], side: int) -> NDArray[np.float64]:
    """Sums over squares of the last two axes, the last ones cut at the border."""
    height, width = values.shape[-2:]
    rows = np.add.reduceat(values, np.arange(0, height, side), axis=-2, dtype=np.float64)
    sums: NDArray[np.float64] = np.add.reduceat(rows, np.arange(0, width, side), axis=-1)
    return sums
