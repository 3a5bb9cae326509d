"""ResNet of 18, 34, 50 or 101 layers with frozen batch norm.

The stride of a stage sits on the (first) 3 x 3 convolution of its first block. Published DVIS++ checkpoints have 50
layers; 18 and 34 are for small models of one's own. Norms never learn and never update: their four
vectors are buffers, as in the published checkpoints. Entries of the state dict have the names of torchvision and timm,
whose nets these are; the blocks are written here because importing either costs 190 MiB and seconds.

On the CPU, channels-last is the faster layout: ``net.to(memory_format=torch.channels_last)``.

Source: He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.errors import ConfigError
from mvcseg.models.backbones.folded import EPSILON, normed_convolution
from mvcseg.models.backbones.renaming import Renaming
from mvcseg.shapes import check_shapes

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks in each stage, by depth."""
SHALLOW = (18, 34)
"""Depths whose blocks are two 3 x 3 convolutions instead of a bottleneck of three."""

_NAMES = Renaming(
    [
        ("stem.conv1.norm.{leaf}", "bn1.{leaf}"),
        ("stem.conv1.{leaf}", "conv1.{leaf}"),
        *(
            (f"res{stage + 1}.{{block}}.{official}", f"layer{stage}.{{block}}.{own}")
            for stage in (1, 2, 3, 4)
            for official, own in (
                ("conv{i}.norm.{leaf}", "bn{i}.{leaf}"),
                ("conv{i}.{leaf}", "conv{i}.{leaf}"),
                ("shortcut.norm.{leaf}", "downsample.1.{leaf}"),
                ("shortcut.{leaf}", "downsample.0.{leaf}"),
            )
        ),
    ]
)


def to_official(name: str) -> str:
    """The published checkpoint's name, without ``backbone.``, for an entry of ``ResNet``'s state dict.

    Example:
        >>> to_official("layer1.0.downsample.1.running_var")
        'res2.0.shortcut.norm.running_var'
    """
    return _NAMES.to_official(name)


def from_official(name: str) -> str:
    """The inverse of ``to_official``.

    Example:
        >>> from_official("res5.2.conv3.weight")
        'layer4.2.conv3.weight'
    """
    return _NAMES.from_official(name)


class FrozenBatchNorm(nn.Module):
    """Batch norm by fixed statistics, an affine map of each channel; ``(N, C, H, W)`` to the same, eps 1e-5.

    Args:
        channels: C.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` of ``(N, C, H, W)``."""
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=EPSILON)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: ``(N, C, H, W)`` to ``(N, width, H / stride, W / stride)``.

    Args:
        channels: C.
        width: of both convolutions.
        stride: of the first.
        downsample: convolution and norm that make the shortcut's map fit the sum; None where it fits.
    """

    expansion = 1

    def __init__(self, channels: int, width: int, *, stride: int, downsample: nn.Sequential | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """The sum of branch and shortcut, rectified."""
        inner = functional.relu(normed_convolution(x, self.conv1, self.bn1), inplace=True)
        inner = normed_convolution(inner, self.conv2, self.bn2)
        inner += x if self.downsample is None else normed_convolution(x, *self.downsample)
        return functional.relu(inner, inplace=True)


class Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 and a shortcut: ``(N, C, H, W)`` to ``(N, 4 width, H / s, W / s)``.

    Args:
        channels: C.
        width: of the first two convolutions.
        stride: s, of the second.
        downsample: convolution and norm that make the shortcut's map fit the sum; None where it fits.
    """

    expansion = 4

    def __init__(self, channels: int, width: int, *, stride: int, downsample: nn.Sequential | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = FrozenBatchNorm(width * self.expansion)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """The sum of branch and shortcut, rectified."""
        inner = functional.relu(normed_convolution(x, self.conv1, self.bn1), inplace=True)
        inner = functional.relu(normed_convolution(inner, self.conv2, self.bn2), inplace=True)
        inner = normed_convolution(inner, self.conv3, self.bn3)
        inner += x if self.downsample is None else normed_convolution(x, *self.downsample)
        return functional.relu(inner, inplace=True)


class ResNet(nn.Module):
    """Maps at strides 4, 8, 16 and 32, of 256 to 2048 channels; of 64 to 512 in ResNet-18 and ResNet-34.

    Args:
        depth: 18, 34, 50 or 101.

    Attributes:
        channels: of the four maps.

    Raises:
        ConfigError: another depth.

    Example:
        >>> [tuple(feature.shape) for feature in ResNet(50)(torch.zeros(1, 3, 32, 64))]
        [(1, 256, 8, 16), (1, 512, 4, 8), (1, 1024, 2, 4), (1, 2048, 1, 2)]
    """

    channels: tuple[int, int, int, int]

    def __init__(self, depth: int) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ConfigError(f"depth: expected one of {', '.join(map(str, BLOCKS))}, got {depth!r}")
        block = BasicBlock if depth in SHALLOW else Bottleneck
        self.channels = (64, 128, 256, 512) if depth in SHALLOW else (256, 512, 1024, 2048)
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), FrozenBatchNorm(64)
        first, second, third, fourth = BLOCKS[depth]
        self.layer1 = _stage(block, 64, 64, count=first, stride=1)
        self.layer2 = _stage(block, self.channels[0], 128, count=second, stride=2)
        self.layer3 = _stage(block, self.channels[1], 256, count=third, stride=2)
        self.layer4 = _stage(block, self.channels[2], 512, count=fourth, stride=2)
        # norms start as the identity: one of weight zero, usual at the end of a branch, would silence it for good
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maps at strides 4, 8, 16 and 32.

        Args:
            images: normalised, ``(N, 3, H, W)``; sides are best multiples of 32.

        Raises:
            ShapeError: ``images`` is not of that shape.
        """
        check_shapes(images=(images, "n 3 h w"))
        stem = functional.relu(normed_convolution(images, self.conv1, self.bn1), inplace=True)
        pooled = functional.max_pool2d(stem, 3, stride=2, padding=1)
        del stem  # the largest map
        res2 = self.layer1(pooled)
        res3 = self.layer2(res2)
        res4 = self.layer3(res3)
        return res2, res3, res4, self.layer4(res4)


def _stage(
    block: type[BasicBlock] | type[Bottleneck], channels: int, width: int, *, count: int, stride: int
) -> nn.Sequential:
    wide = width * block.expansion
    downsample = None
    if stride != 1 or channels != wide:
        downsample = nn.Sequential(nn.Conv2d(channels, wide, 1, stride=stride, bias=False), FrozenBatchNorm(wide))
    blocks = [block(channels, width, stride=stride, downsample=downsample)]
    blocks += [block(wide, width, stride=1, downsample=None) for _ in range(count - 1)]
    return nn.Sequential(*blocks)
