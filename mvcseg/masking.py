"""Patch masks over clips: Eq. 1 and 2 of arXiv 2406.04979.

Eq. 1 keeps a cell of a frame when a uniform draw v exceeds the ratio r; Eq. 2 multiplies the frame with the
mask. The report masks every frame of a clip on its own and gives neither cell size nor ratio. Its parent
method MIC (arXiv 2212.01322) multiplies images that are already normalised, so a hidden cell shows the data
set's mean colour; ``apply_mask`` works on frames in ``[0, 1]`` and fills with that mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError
from mvcseg.segmenter import IMAGENET_MEAN
from mvcseg.shapes import check_float, check_positive, check_shapes

Grid = Literal["crop", "stretch"]


def patch_mask(
    frames: Tensor,
    *,
    patch_size: int,
    ratio: float,
    grid: Grid = "crop",
    tube: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random visibility of square cells, drawn anew for every frame.

    A cell is kept when a uniform draw on ``(0, 1]`` exceeds ``ratio``: a share ``1 - ratio`` survives on
    average, ratio 0 keeps every cell and ratio 1 none.

    Args:
        frames: clip whose size and device the mask follows, ``(B, T, C, H, W)``.
        patch_size: side of a cell in pixels, at least 1.
        ratio: share of cells hidden, in ``[0, 1]``.
        grid: ``"crop"``: exact squares from the top left, the last row and column cut at the border.
            ``"stretch"``: MIC's grid of ``max(1, round(side / patch_size))`` cells a side, stretched to the
            frame (halves round to even).
        tube: one mask for all frames of a clip, instead of one for each frame.
        generator: source of randomness. One on the CPU gives the same mask on every device.

    Returns:
        ``(B, T, 1, H, W)`` bool on the device of ``frames``, True where the frame stays visible. With
        ``tube`` the time axis is an expanded view of one mask.

    Raises:
        ShapeError: ``frames`` is not five-dimensional.
        ConfigError: ``ratio`` is outside ``[0, 1]``, ``patch_size`` below 1, or ``grid`` unknown.

    Source: arXiv 2406.04979, Eq. 1; MIC's grid: lhoyer/MIC (Apache-2.0), ``masking_transforms.py``.

    Example:
        >>> clip = torch.zeros(1, 2, 3, 128, 200)
        >>> mask = patch_mask(clip, patch_size=64, ratio=0.5, generator=torch.Generator().manual_seed(0))
        >>> mask.shape
        torch.Size([1, 2, 1, 128, 200])
        >>> mask[0, 0, 0, ::64, ::64].int()
        tensor([[1, 0, 1, 1],
                [1, 0, 1, 0]], dtype=torch.int32)
    """
    sizes = check_shapes(frames=(frames, "b t c h w"))
    _check_numbers(patch_size, ratio, grid)
    height, width = sizes["h"], sizes["w"]
    cells = [_cell_count(side, patch_size, grid) for side in (height, width)]
    source = generator.device if generator is not None else frames.device
    draws = torch.rand(sizes["b"], 1 if tube else sizes["t"], 1, *cells, generator=generator, device=source)
    kept = ((1 - draws) > ratio).to(frames.device, non_blocking=True)
    rows, columns = (
        _cell_of_pixel(side, count, patch_size, grid, frames.device)
        for side, count in zip((height, width), cells, strict=True)
    )
    kept = kept.index_select(-2, rows).index_select(-1, columns)
    return kept.expand(-1, sizes["t"], -1, -1, -1)


def apply_mask(frames: Tensor, mask: Tensor, *, fill: float | Sequence[float] = IMAGENET_MEAN) -> Tensor:
    """The clip with its hidden pixels replaced.

    Args:
        frames: clip in ``[0, 1]``, ``(B, T, C, H, W)``, floating-point.
        mask: ``(B, T, 1, H, W)`` bool, True where the frame stays visible.
        fill: colour of hidden pixels, a number or one for each channel. The default is the mean colour of
            ImageNet, which normalisation turns into zero.

    Returns:
        ``(B, T, C, H, W)``, a new tensor of the dtype of ``frames``; visible pixels unchanged.

    Raises:
        ShapeError: the sizes do not agree.
        DTypeError: ``frames`` is not floating-point, or ``mask`` not bool.
        ConfigError: ``fill`` is neither a number nor C of them, or a number in it is not finite.

    Source: arXiv 2406.04979, Eq. 2.

    Example:
        >>> clip = torch.ones(1, 1, 3, 2, 2)
        >>> mask = torch.tensor([[True, False], [True, True]]).view(1, 1, 1, 2, 2)
        >>> apply_mask(clip, mask, fill=0.0)[0, 0, 0]
        tensor([[1., 0.],
                [1., 1.]])
    """
    sizes = check_shapes(frames=(frames, "b t c h w"), mask=(mask, "b t 1 h w"))
    check_float(frames=frames)
    if mask.dtype != torch.bool:
        raise DTypeError(f"mask: expected bool (True = kept), got {mask.dtype}")
    colours = _colours_of(fill, channels=sizes["c"])
    # new_full writes on the device; a tensor made from a list would be copied there and make the host wait
    colour = torch.cat([frames.new_full((1,), value) for value in colours]).view(1, 1, -1, 1, 1)
    return torch.where(mask, frames, colour)


def _colours_of(fill: float | Sequence[float], *, channels: int) -> list[float]:
    try:
        colours = torch.as_tensor(fill, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):  # what PyTorch answers words, None and ragged lists with
        colours = None
    if colours is None or colours.shape not in ((), (channels,)):
        raise ConfigError(f"fill: expected a number or {channels} of them, one a channel, got {fill!r}")
    if not bool(colours.isfinite().all()):
        raise ConfigError(f"fill: expected finite numbers, got {fill!r}")
    values: list[float] = colours.expand(channels).tolist()
    return values


@dataclass(frozen=True)
class PatchMask:
    """``patch_mask`` with its numbers chosen, as ``MVCWrapper`` takes it.

    Args:
        patch_size: side of a cell in pixels, at least 1.
        ratio: share of cells hidden, in ``[0, 1]``.
        grid: ``"crop"`` or ``"stretch"``, see ``patch_mask``.
        tube: one mask for all frames of a clip.

    Raises:
        ConfigError: a number or the grid is outside what ``patch_mask`` allows.

    Example:
        >>> PatchMask(patch_size=64, ratio=1.0)(torch.zeros(1, 2, 3, 64, 64)).any()
        tensor(False)
    """

    patch_size: int
    ratio: float
    grid: Grid = "crop"
    tube: bool = False

    def __post_init__(self) -> None:
        _check_numbers(self.patch_size, self.ratio, self.grid)

    def __call__(self, frames: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``(B, T, 1, H, W)`` bool for frames ``(B, T, C, H, W)``, True where kept.

        Raises:
            ShapeError: ``frames`` is not five-dimensional.
        """
        return patch_mask(
            frames,
            patch_size=self.patch_size,
            ratio=self.ratio,
            grid=self.grid,
            tube=self.tube,
            generator=generator,
        )


def _check_numbers(patch_size: int, ratio: float, grid: str) -> None:
    check_positive(patch_size=patch_size)
    if not isinstance(ratio, Real) or not 0 <= ratio <= 1:  # also refuses NaN
        raise ConfigError(f"ratio: expected the share of cells hidden, in [0, 1], got {ratio!r}")
    if grid not in get_args(Grid):
        raise ConfigError(f"grid: expected 'crop' or 'stretch', got {grid!r}")


def _cell_count(side: int, patch_size: int, grid: str) -> int:
    if grid == "crop":
        return -(-side // patch_size)
    return max(1, round(side / patch_size))


def _cell_of_pixel(side: int, cells: int, patch_size: int, grid: str, device: torch.device) -> Tensor:
    pixels = torch.arange(side, device=device)
    if grid == "crop":
        return pixels // patch_size
    return pixels * cells // side  # whole-number arithmetic: nearest resizing without rounding error
