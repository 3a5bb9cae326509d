"""The DINOv2 vision transformer with patches of 16 pixels, under the parameter names of the published checkpoints.

Pre-norm blocks with layer scale; a class token stands before the patch tokens, which run row by row. The stored
positions form a 37 x 37 grid and are resized for every other image size.

Source: Oquab et al., DINOv2, arXiv 2304.07193; Dosovitskiy et al., arXiv 2010.11929.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.models.layers.linear import Linear
from mvcseg.shapes import check_positive, check_shapes

PATCH = 16
"""Side of a patch, in pixels."""


class VisionTransformer(nn.Module):
    """Patch tokens of an image, refined by self-attention over the whole image.

    Args:
        width: C, channels of a token.
        depth: number of blocks.
        heads: attention heads; divide ``width``.
        is_gated: whether the blocks' MLPs are gated (SwiGLU), as in DINOv2 ViT-g.
        grid: side of the stored square of positions.

    Raises:
        ConfigError: a number is below 1, or ``heads`` does not divide ``width``.
    """

    def __init__(self, width: int, *, depth: int, heads: int, is_gated: bool = False, grid: int = 37) -> None:
        super().__init__()
        check_positive(width=width, depth=depth, heads=heads, grid=grid)
        if width % heads:
            raise ConfigError(f"heads: expected a divisor of width={width}, got {heads}")
        self.width, self.heads = width, heads
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchEmbed(width)
        self.blocks = nn.ModuleList(Block(width, heads=heads, is_gated=is_gated) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.apply(_reset)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)

    def embed(self, images: Tensor) -> Tensor:
        """Class token and patch tokens with their positions, before the first block.

        Args:
            images: normalised, ``(N, 3, H, W)``, sides multiples of 16.

        Returns:
            ``(N, 1 + H / 16 * W / 16, C)``.

        Raises:
            ShapeError: ``images`` is not of that shape.
        """
        sizes = check_shapes(images=(images, "n 3 h w"))
        height, width = sizes["h"], sizes["w"]
        if height % PATCH or width % PATCH:
            raise ShapeError(f"images: expected sides that are multiples of {PATCH}, got {height} x {width}; pad first")
        patches = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.to(patches.dtype).expand(len(images), -1, -1), patches], dim=1)
        return tokens + resize_positions(self.pos_embed, height=height, width=width).to(tokens.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Normed tokens after the last block, ``(N, 1 + H / 16 * W / 16, C)``; arguments as in ``embed``."""
        tokens = self.embed(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)  # type: ignore[no-any-return]


def vit_s() -> VisionTransformer:
    """DINOv2 ViT-S: 384 channels, 12 blocks."""
    return VisionTransformer(384, depth=12, heads=6)


def vit_b() -> VisionTransformer:
    """DINOv2 ViT-B: 768 channels, 12 blocks."""
    return VisionTransformer(768, depth=12, heads=12)


def vit_l() -> VisionTransformer:
    """DINOv2 ViT-L: 1024 channels, 24 blocks."""
    return VisionTransformer(1024, depth=24, heads=16)


def vit_g() -> VisionTransformer:
    """DINOv2 ViT-g: 1536 channels, 40 blocks with gated MLPs."""
    return VisionTransformer(1536, depth=40, heads=24, is_gated=True)


def resize_positions(positions: Tensor, *, height: int, width: int) -> Tensor:
    """Position embeddings for an image, resized from the stored square grid (bicubic, ``align_corners=False``).

    Sampling steps follow the released weights' own resizing: grid side over ``patches + 0.1``, slightly finer than the
    sizes' ratio. The class token's entry is kept.

    Args:
        positions: class entry and square grid, row by row, ``(1, 1 + G * G, C)``.
        height: of the image, in pixels, a multiple of 16.
        width: of the image, likewise.

    Returns:
        ``(1, 1 + height / 16 * width / 16, C)``.
    """
    side = math.isqrt(positions.shape[1] - 1)
    rows, columns = height // PATCH, width // PATCH
    if rows == columns == side:
        return positions
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    resized = functional.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


class PatchEmbed(nn.Module):
    """Patches as tokens: ``(N, 3, H, W)`` to ``(N, H / 16 * W / 16, C)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)

    def forward(self, images: Tensor) -> Tensor:
        """One token for each patch, row by row."""
        return self.proj(images).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm self-attention and MLP, each scaled by channel and added; ``(N, L, C)`` to the same."""

    def __init__(self, width: int, *, heads: int, is_gated: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads=heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = GatedMLP(width) if is_gated else FeedForward(width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, L, C)`` of ``(N, L, C)``."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head self-attention; ``(N, L, C)`` to the same."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, L, C)`` of ``(N, L, C)``."""
        n, length, width = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        gathered = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(gathered.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` of ``(..., C)``."""
        return x * self.gamma


class FeedForward(nn.Module):
    """Two linear layers four times as wide between, with GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, 4 * width)
        self.fc2 = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` of ``(..., C)``."""
        return self.fc2(functional.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class GatedMLP(nn.Module):
    """SwiGLU: one half of the hidden channels, through SiLU, gates the other; 8/3 as wide between, rounded up to 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = -(-(4 * width * 2 // 3) // 8) * 8
        self.w12 = Linear(width, 2 * hidden)
        self.w3 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` of ``(..., C)``."""
        gate, hidden = self.w12(x).chunk(2, dim=-1)
        return self.w3(functional.silu(gate) * hidden)  # type: ignore[no-any-return]


def _reset(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
