"""Swin Transformer over images of any size, under the parameter names of the published checkpoints.

Attention stays inside square windows, which every second block shifts by half a window. Maps that the window does not
divide are padded right and bottom with zeros, which take part in the attention; padding comes before the shift, and
the window never shrinks on small maps.

timm's Swin shifts before it pads, which gives other values wherever padding is needed, so the blocks are written here;
``from_timm`` and ``to_timm`` translate the names of its ImageNet weights.

Source: Liu et al., Swin Transformer, arXiv 2103.14030.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mvcseg.errors import ConfigError
from mvcseg.models.backbones.renaming import Renaming
from mvcseg.models.backbones.window_attention import WindowAttention
from mvcseg.models.layers.linear import Linear
from mvcseg.shapes import check_positive, check_shapes

_TIMM_NAMES = Renaming(
    [(f"layers.{stage}.downsample.{{rest}}", f"layers.{stage + 1}.downsample.{{rest}}") for stage in range(3)]
)


def to_timm(name: str) -> str:
    """The name in timm of an entry of ``Swin``'s state dict: there a stage begins with what ends the one before here.

    ``norm0`` to ``norm3`` and the ``relative_position_index`` buffers have no counterpart in timm.

    Example:
        >>> to_timm("layers.0.downsample.norm.weight")
        'layers.1.downsample.norm.weight'
    """
    return _TIMM_NAMES.from_official(name)


def from_timm(name: str) -> str:
    """The inverse of ``to_timm``."""
    return _TIMM_NAMES.to_official(name)


class Swin(nn.Module):
    """Hierarchical transformer: maps of C, 2 C, 4 C and 8 C channels at strides 4, 8, 16 and 32.

    Args:
        width: C, channels of the first stage.
        depths: blocks in each of the four stages.
        heads: attention heads in each stage; divide its channels.
        window: side of the windows, in tokens.

    Attributes:
        channels: of the four maps.

    Raises:
        ConfigError: a number is below 1, not four stages are given, or heads do not divide the channels.
    """

    channels: tuple[int, int, int, int]

    def __init__(
        self, width: int, *, depths: tuple[int, int, int, int], heads: tuple[int, int, int, int], window: int
    ) -> None:
        super().__init__()
        check_positive(width=width, window=window)
        for name, numbers in (("depths", depths), ("heads", heads)):
            if len(numbers) != 4 or min(numbers) < 1:
                raise ConfigError(f"{name}: expected four integers of at least 1, one a stage, got {numbers!r}")
        self.channels = (width, 2 * width, 4 * width, 8 * width)
        for channels, count in zip(self.channels, heads, strict=True):
            if channels % count:
                raise ConfigError(f"heads: expected divisors of {self.channels}, got {heads!r}")
        self.patch_embed = PatchEmbed(width)
        self.layers = nn.ModuleList(
            Stage(channels, depth=depth, heads=count, window=window, is_last=channels == self.channels[-1])
            for channels, depth, count in zip(self.channels, depths, heads, strict=True)
        )
        self.norm0, self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for channels in self.channels)
        self.apply(_reset)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised maps at strides 4, 8, 16 and 32.

        Args:
            images: normalised, ``(N, 3, H, W)``, of any size; maps have the sizes rounded up.

        Raises:
            ShapeError: ``images`` is not of that shape.
        """
        check_shapes(images=(images, "n 3 h w"))
        x = self.patch_embed(images)
        maps = []
        for stage, norm in zip(self.layers, (self.norm0, self.norm1, self.norm2, self.norm3), strict=True):
            full, x = stage(x)
            maps.append(norm(full).permute(0, 3, 1, 2))
        return maps[0], maps[1], maps[2], maps[3]


def swin_t() -> Swin:
    """Swin-T: 96 channels, window 7."""
    return Swin(96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7)


def swin_l() -> Swin:
    """Swin-L as in the published segmentation checkpoints: 192 channels, window 12."""
    return Swin(192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=12)


class PatchEmbed(nn.Module):
    """Cells of 4 x 4 pixels as tokens: ``(N, 3, H, W)`` to ``(N, ceil(H / 4), ceil(W / 4), C)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, stride=4)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens of images, which are padded right and bottom with zeros to whole cells."""
        height, width = images.shape[-2:]
        padded = functional.pad(images, (0, -width % 4, 0, -height % 4))
        return self.norm(self.proj(padded).permute(0, 2, 3, 1))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Blocks at one resolution, shifted and unshifted in turn, and the step to half of it (none after the last)."""

    def __init__(self, width: int, *, depth: int, heads: int, window: int, is_last: bool) -> None:
        super().__init__()
        shifts = [window // 2 if index % 2 else 0 for index in range(depth)]
        self.blocks = nn.Sequential(*(Block(width, heads=heads, window=window, shift=shift) for shift in shifts))
        self.downsample = None if is_last else PatchMerging(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The stage's map and the next one's input.

        Args:
            x: ``(N, H, W, C)``.

        Returns:
            ``(N, H, W, C)``, and ``(N, ceil(H / 2), ceil(W / 2), 2 C)``, which in the last stage is the map again.
        """
        x = self.blocks(x)
        return x, x if self.downsample is None else self.downsample(x)


class Block(nn.Module):
    """Pre-norm window attention and MLP, each with a residual; ``(N, H, W, C)`` to the same."""

    def __init__(self, width: int, *, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads=heads, window=window, shift=shift)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, H, W, C)`` of ``(N, H, W, C)``."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two linear layers four times as wide between, with GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, 4 * width)
        self.fc2 = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` of ``(..., C)``."""
        return self.fc2(functional.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class PatchMerging(nn.Module):
    """Two by two tokens become one: their channels side by side (down before right), normed, halved."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, ceil(H / 2), ceil(W / 2), 2 C)`` of ``(N, H, W, C)``; odd sides are padded with zeros."""
        n, height, width, channels = x.shape
        padded = functional.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        cells = padded.reshape(n, (height + 1) // 2, 2, (width + 1) // 2, 2, channels)
        return self.reduction(self.norm(cells.permute(0, 1, 3, 4, 2, 5).flatten(3)))  # type: ignore[no-any-return]


def _reset(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
