"""Values of maps at points, and points where a mask is uncertain.

Points are ``(x, y)`` in ``[0, 1]``: 0 is the outer edge of the first pixel, 1 that of the last, so pixel i's centre
lies at ``(i + 0.5) / size`` whatever the resolution of the map (``align_corners=False``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ConfigError
from mvcseg.shapes import check_float, check_shapes

Draw = Callable[[tuple[int, ...]], Tensor]
"""Independent uniform numbers in ``[0, 1)`` of a shape, different ones at every call."""


def draw_from(generator: torch.Generator | None, *, device: torch.device) -> Draw:
    """Draws float32 numbers from a generator, on the generator's device, and moves them.

    Args:
        generator: None takes PyTorch's own generator of ``device``.
        device: where the numbers are wanted.

    Example:
        >>> draw = draw_from(torch.Generator().manual_seed(0), device=torch.device("cpu"))
        >>> draw((2, 3)).shape
        torch.Size([2, 3])
    """
    source = device if generator is None else generator.device

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=generator, device=source).to(device)

    return draw


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps at points, zero outside.

    Args:
        maps: ``(N, C, h, w)``, floating-point.
        points: ``(N, P, 2)``, ``(x, y)`` in ``[0, 1]`` of the map.

    Returns:
        ``(N, C, P)`` in float32 at least. Within half a pixel of the border the zeros outside take part.

    Raises:
        ShapeError: the sizes do not agree.
        DTypeError: ``maps`` or ``points`` are not floating-point.

    Example:
        >>> maps = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
        >>> sample_points(maps, torch.tensor([[[0.5, 0.5], [0.75, 0.25], [0.0, 0.25]]]))
        tensor([[[1.5000, 1.0000, 0.0000]]])
    """
    sizes = check_shapes(maps=(maps, "n c h w"), points=(points, "n p 2"))
    check_float(maps=maps, points=points)
    dtype = torch.promote_types(maps.dtype, torch.float32)
    if 0 in (sizes["n"], sizes["c"], sizes["p"]):
        return maps.new_zeros((sizes["n"], sizes["c"], sizes["p"]), dtype=dtype) + 0.0 * maps.sum()
    grid = (2.0 * points.to(dtype) - 1.0).unsqueeze(1)
    values = functional.grid_sample(maps.to(dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return values[:, :, 0]


def uncertain_points(maps: Tensor, *, num_points: int, oversample: float, importance: float, draw: Draw) -> Tensor:
    """Points of each mask, most of them where its logit is near zero, the rest anywhere.

    ``oversample * num_points`` uniform candidates are drawn and the ``importance * num_points`` of least ``|logit|``
    kept; the remaining points are drawn anew, uniform and independent of the mask. A mean over the latter estimates
    the mean over the mask without bias; a mean over all points weighs the mask's edge more, on purpose.

    Args:
        maps: mask logits ``(N, h, w)``; no gradient flows through the choice.
        num_points: P.
        oversample: candidates a point, at least 1.
        importance: share of points chosen by uncertainty, in ``[0, 1]``; 0 leaves uniform points only.
        draw: called with ``(N, oversample * P, 2)``, then with ``(N, P - importance * P, 2)``.

    Returns:
        ``(N, P, 2)``, the chosen points first.

    Raises:
        ConfigError: a number is outside its range.
        ShapeError: ``maps`` is not three-dimensional.

    Source: PointRend, arXiv 1912.08193, section 3.1 (training).

    Example:
        >>> draw = draw_from(torch.Generator().manual_seed(0), device=torch.device("cpu"))
        >>> uncertain_points(torch.randn(2, 8, 8), num_points=12, oversample=3.0, importance=0.75, draw=draw).shape
        torch.Size([2, 12, 2])
    """
    check_shapes(maps=(maps, "n h w"))
    check_point_numbers(num_points=num_points, oversample=oversample, importance=importance)
    chosen = int(importance * num_points)
    with torch.no_grad():
        candidates = draw((len(maps), int(oversample * num_points), 2))
        logits = sample_points(maps.unsqueeze(1), candidates)[:, 0]
        nearest = logits.abs().topk(chosen, dim=1, largest=False, sorted=False).indices
        kept = candidates.gather(1, nearest.unsqueeze(-1).expand(-1, -1, 2))
        free = draw((len(maps), num_points - chosen, 2))
        return torch.cat([kept, free], dim=1)


def check_point_numbers(*, num_points: int, oversample: float, importance: float) -> None:
    """Require numbers that ``uncertain_points`` can use.

    Raises:
        ConfigError: one is outside its range.
    """
    if num_points < 1:
        raise ConfigError(f"num_points: expected at least 1, got {num_points!r}")
    if not 1 <= oversample < float("inf"):
        raise ConfigError(f"oversample: expected a finite number of at least 1, got {oversample!r}")
    if not 0 <= importance <= 1:
        raise ConfigError(f"importance: expected a share in [0, 1], got {importance!r}")
