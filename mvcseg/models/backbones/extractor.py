"""The extractor of ViT-Adapter: rows of three scales gather from the transformer's patch tokens.

Source: Chen et al., Vision Transformer Adapter for Dense Predictions, arXiv 2205.08534, section 3.4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.models.layers.deformable import DeformableAttention
from mvcseg.models.layers.linear import Linear


class Extractor(nn.Module):
    """Pre-norm deformable attention to the patch tokens, then a convolutional MLP, each added to the rows.

    Args:
        width: C.
        heads: attention heads; divide ``width``.
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width, eps=1e-6)
        self.feat_norm = nn.LayerNorm(width, eps=1e-6)
        self.attn = DeformableAttention(width, levels=1, heads=heads, points=4)
        self.ffn = ConvolutionalMLP(width, hidden=width // 4)
        self.ffn_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, rows: Tensor, patches: Tensor, *, centres: Tensor, grids: list[tuple[int, int]]) -> Tensor:
        """The rows with what they gathered.

        Args:
            rows: tokens at strides 8, 16 and 32 one after another, ``(N, L, C)``.
            patches: the transformer's patch tokens, at stride 16, ``(N, S, C)``.
            centres: place of every row, ``(1, L, 2)`` as ``(x, y)`` in 0..1.
            grids: ``(height, width)`` of the three scales.

        Returns:
            ``(N, L, C)``.
        """
        gathered = self.attn(
            self.query_norm(rows), self.feat_norm(patches), reference_points=centres, spatial_shapes=grids[1:2]
        )
        rows = rows + gathered
        return rows + self.ffn(self.ffn_norm(rows), grids=grids)  # type: ignore[no-any-return]


class ConvolutionalMLP(nn.Module):
    """Two linear layers with a depth-wise 3 x 3 convolution between, which all scales share, and GELU."""

    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.dwconv = DepthwiseConvolution(hidden)
        self.fc2 = Linear(hidden, width)
        for layer in (self.fc1, self.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, rows: Tensor, *, grids: list[tuple[int, int]]) -> Tensor:
        """``(N, L, C)`` of ``(N, L, C)``."""
        return self.fc2(functional.gelu(self.dwconv(self.fc1(rows), grids=grids)))  # type: ignore[no-any-return]


class DepthwiseConvolution(nn.Module):
    """One 3 x 3 kernel a channel, applied to every scale as a map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, rows: Tensor, *, grids: list[tuple[int, int]]) -> Tensor:
        """``(N, L, C)`` of ``(N, L, C)``."""
        return torch.cat([as_rows(self.dwconv(image)) for image in split_maps(rows, grids=grids)], dim=1)


def split_maps(rows: Tensor, *, grids: list[tuple[int, int]]) -> list[Tensor]:
    """Maps ``(N, C, height, width)`` of several grids from their rows one after another, ``(N, L, C)``."""
    parts = rows.split_with_sizes([height * width for height, width in grids], dim=1)
    return [as_map(part, grid=grid) for part, grid in zip(parts, grids, strict=True)]


def as_map(rows: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """``(N, C, height, width)`` of ``(N, height * width, C)``: the same memory, seen as a channels-last map."""
    return rows.reshape(rows.shape[0], *grid, rows.shape[2]).permute(0, 3, 1, 2)


def as_rows(image: Tensor) -> Tensor:
    """``(N, height * width, C)`` of ``(N, C, height, width)``, the inverse of ``as_map``."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def pixel_centres(grids: list[tuple[int, int]], *, like: Tensor) -> Tensor:
    """Centres of the pixels of several grids over one image, row by row, grid after grid.

    Args:
        grids: ``(height, width)`` of each.
        like: tensor whose dtype and device the result takes.

    Returns:
        ``(1, L, 2)`` as ``(x, y)`` in 0..1.

    Example:
        >>> pixel_centres([(1, 2)], like=torch.zeros(()))
        tensor([[[0.2500, 0.5000],
                 [0.7500, 0.5000]]])
    """
    centres = []
    for height, width in grids:
        y, x = ((torch.arange(side, device=like.device) + 0.5).to(like.dtype) / side for side in (height, width))
        centres.append(torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=-1))
    return torch.cat(centres)[None]
