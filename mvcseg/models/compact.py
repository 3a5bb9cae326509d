"""A temporal segmenter small enough to ship: a convolutional encoder, attention over the frames of a clip, skips.

Frames go through the encoder one by one down to a grid of eighths. There every location attends over the
frames of its clip, between residual blocks that carry what it learns to its neighbours, so that something
hidden in one frame can be named from another. A light decoder with skips brings the grid back to half size.
Group norm throughout: the statistics never mix clips, in train mode neither, so tiny batches, gradient
accumulation and masked beside clean frames change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.ops.doubled import doubled, doubled_windows
from mvcseg.ops.score_windows import best_classes
from mvcseg.ops.workspace import Workspace
from mvcseg.segmenter import IMAGENET_MEAN, IMAGENET_STD, check_numbers
from mvcseg.shapes import check_float, check_num_classes, check_positive, check_shapes

COARSEST_STRIDE = 8
"""Pixels a side of one cell of the coarse grid; frames are padded to a multiple of it."""
SMALLEST_SIDE = 32
"""Least height and width of a frame in pixels."""
CHANNELS_PER_GROUP = 8
"""Channels normalised together."""


class CompactSegmenter(nn.Module):
    """A small video segmenter meeting the ``Segmenter`` protocol; with the defaults some 0.27 million parameters.

    Args:
        num_classes: K, 1 to 255.
        width: channels at half size; quarter size has twice, the coarse grid four times as many. A multiple of 8.
        depth: residual blocks at quarter size, and as many on the coarse grid, each followed by attention over
            frames.
        heads: attention heads; must divide ``4 * width``.

    Attributes:
        class_names: name of each class, empty where none were given; kept in saved files.
        metadata: what the file it was loaded from says about it (scores, seed, command), else empty.

    Raises:
        ConfigError: a number is outside what is said above.

    Example:
        >>> segmenter = CompactSegmenter(7, width=8).eval()
        >>> segmenter(torch.rand(2, 3, 3, 33, 50)).shape
        torch.Size([2, 3, 7, 33, 50])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int, *, width: int = 16, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        check_positive(width=width, depth=depth, heads=heads)
        if width % CHANNELS_PER_GROUP:
            raise ConfigError(f"width: expected a multiple of {CHANNELS_PER_GROUP}, got {width}")
        if 4 * width % heads:
            raise ConfigError(f"heads: expected a divisor of 4 * width = {4 * width}, got {heads}")
        self.num_classes = check_num_classes(num_classes)
        self.width, self.depth, self.heads = width, depth, heads
        self.class_names: tuple[str, ...] = ()
        self.metadata: dict[str, Any] = {}
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

        self.encode_half = nn.Sequential(_normed_conv(3, width, stride=2), nn.ReLU(), _Residual(width))
        self.encode_quarter = nn.Sequential(
            _normed_conv(width, 2 * width, stride=2), nn.ReLU(), *(_Residual(2 * width) for _ in range(depth))
        )
        self.encode_eighth = nn.Sequential(_normed_conv(2 * width, 4 * width, stride=2), nn.ReLU())
        self.spreading = nn.ModuleList(_Residual(4 * width, dilation=2) for _ in range(depth))
        self.mixing = nn.ModuleList(_FrameAttention(4 * width, heads=heads) for _ in range(depth))
        self.to_quarter = nn.Conv2d(4 * width, 2 * width, kernel_size=1)
        self.quarter_fusion = _Residual(2 * width)
        self.to_half = nn.Conv2d(2 * width, width, kernel_size=1)
        self.half_fusion = _Residual(width)
        self.classifier = nn.Conv2d(width, num_classes, kernel_size=1)
        self.to(memory_format=torch.channels_last)

    @property
    def architecture(self) -> dict[str, int]:
        """The constructor's numbers: ``CompactSegmenter(**model.architecture)`` has the same shapes."""
        return {"num_classes": self.num_classes, "width": self.width, "depth": self.depth, "heads": self.heads}

    def forward(self, frames: Tensor, /) -> Tensor:
        """Logits ``(B, T, K, H, W)`` of frames ``(B, T, 3, H, W)`` in ``[0, 1]``.

        Raises:
            ShapeError: frames are not ``(B, T, 3, H, W)`` with B, T >= 1 and H, W >= 32.
            DTypeError: frames are not floating-point.
        """
        logits = doubled(self.classifier(self._half_size(frames)))[..., : frames.shape[-2], : frames.shape[-1]]
        return rearrange(logits, "(b t) k h w -> b t k h w", b=len(frames))

    @torch.no_grad()
    def clip_labels(self, frames: Tensor, /, *, output_size: tuple[int, int]) -> Tensor:
        """Class ids ``(B, T, height, width)`` uint8 of frames ``(B, T, 3, H, W)`` in ``[0, 1]``.

        They are the arg-max of ``forward``'s logits, the lowest class where several are largest; at another size than
        the frames', of its probabilities resized. Full-size logits never exist as a whole.

        Raises:
            ShapeError, DTypeError: as ``forward``.
            DataError: logits are NaN.
        """
        half = self._half_size(frames)
        classify: Callable[[Tensor], Tensor] = self.classifier
        if half.device.type != "cpu":  # a library may choose another kernel, with another rounding, for another size
            half, classify = self.classifier(half), nn.Identity()
        labels, is_number = best_classes(
            [doubled_windows(one, classify) for one in torch.split(half, 1)],
            size=(frames.shape[-2], frames.shape[-1]),
            output_size=output_size,
            num_classes=self.num_classes,
            memory=Workspace(half),
        )
        check_numbers(is_number)
        return rearrange(labels, "(b t) h w -> b t h w", b=len(frames))

    def _half_size(self, frames: Tensor) -> Tensor:
        """What classes are told from, ``(B * T, width, h, w)``, at half the size of the padded frames."""
        sizes = check_shapes(frames=(frames, "b t 3 h w"))
        check_float(frames=frames)
        height, width = sizes["h"], sizes["w"]
        if min(height, width) < SMALLEST_SIDE or sizes["b"] < 1 or sizes["t"] < 1:
            raise ShapeError(
                f"frames: expected (b t 3 h w) with b, t >= 1 and h, w >= {SMALLEST_SIDE}, got {tuple(frames.shape)}"
            )
        images = rearrange(frames, "b t c h w -> (b t) c h w")
        images = (images - self.mean.to(images)) / self.std.to(images)
        # After normalisation zero is the mean colour, the same fill that hides a masked patch.
        images = functional.pad(images, (0, -width % COARSEST_STRIDE, 0, -height % COARSEST_STRIDE))
        half = self.encode_half(images.contiguous(memory_format=torch.channels_last))
        quarter = self.encode_quarter(half)
        coarse = self.encode_eighth(quarter)
        for spread, mix in zip(self.spreading, self.mixing, strict=True):
            coarse = mix(spread(coarse), frames_per_clip=sizes["t"])
        quarter = self.quarter_fusion(quarter + doubled(self.to_quarter(coarse)))
        fused: Tensor = self.half_fusion(half + doubled(self.to_half(quarter)))
        return fused


def _normed_conv(channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """3 x 3 convolution and group norm, padded so that only the stride changes the size."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False),
        nn.GroupNorm(out_channels // CHANNELS_PER_GROUP, out_channels),
    )


class _Residual(nn.Module):
    """Two normed convolutions around an identity."""

    def __init__(self, channels: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.first = _normed_conv(channels, channels, dilation=dilation)
        self.second = _normed_conv(channels, channels)

    def forward(self, maps: Tensor) -> Tensor:
        residual: Tensor = self.second(functional.relu(self.first(maps)))
        return functional.relu(maps + residual)


class _FrameAttention(nn.Module):
    """Every location attends over the frames of its clip, nearer frames first.

    The logit of a pair of frames falls with their distance by a learned slope per head, so any number of
    frames is in range and the order of time counts by distance only (Press et al., arXiv 2108.12409).
    """

    def __init__(self, channels: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.slope = nn.Parameter(torch.linspace(0.0, -3.0, heads))  # softplus of it: 0.7 down to 0.05 a frame
        self.out = nn.Linear(channels, channels)
        # Attention starts as the identity; frames are mixed once mixing pays.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, maps: Tensor, *, frames_per_clip: int) -> Tensor:
        height, width = maps.shape[-2:]
        tokens = rearrange(maps, "(b t) c h w -> (b h w) t c", t=frames_per_clip)
        query, key, value = rearrange(
            self.to_qkv(self.norm(tokens)), "n t (three e d) -> three n e t d", three=3, e=self.heads
        )
        time = torch.arange(frames_per_clip, device=maps.device)
        distance = (time[:, None] - time[None, :]).abs()
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        scores = scores - functional.softplus(self.slope)[:, None, None] * distance
        mixed = scores.softmax(dim=-1).to(value.dtype) @ value
        tokens = tokens + self.out(rearrange(mixed, "n e t d -> n t (e d)"))
        maps = rearrange(tokens, "(b h w) t c -> (b t) c h w", h=height, w=width)
        return maps.contiguous(memory_format=torch.channels_last)
