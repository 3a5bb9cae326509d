"""CGNet (M=3, N=21) for CamVid, written from its description; attribute names are the checkpoint's.

The published weights were trained on CamVid's train and val frames: scores on val say nothing, only those on test do.

Source: Wu et al., CGNet: A Light-weight Context Guided Network for Semantic Segmentation, IEEE TIP 2021.
"""

from __future__ import annotations

from pathlib import Path

import torch
from camvid_segmenters import CLASS_NAMES, NUM_CLASSES
from torch import Tensor, nn
from torch.nn import functional

from mvcseg import PerFrame

# Taken off R, G and B in this order, as the original does (they are the means of B, G and R); 0 to 255.
MEAN = (105.65772519, 103.32976184, 99.62539586)
BLOCKS = (2, 20)
"""Blocks at 1/4 and 1/8 of the size after the one that halves it."""


def cgnet(weights: Path) -> PerFrame:
    """CGNet as a segmenter; ``weights`` is the folder that holds ``cgnet_camvid/``."""
    from safetensors.torch import load_file

    torch.set_flush_denormal(True)  # subnormal activations cost a CPU many times the arithmetic
    net = CGNet()
    net.load_state_dict(load_file(weights / "cgnet_camvid" / "model.safetensors"), strict=True)
    mean = [value / 255 for value in MEAN]
    std = [1 / 255] * 3  # the net takes 0 to 255
    segmenter = PerFrame(
        net.eval(), num_classes=NUM_CLASSES, logits_of=lambda logits: logits, mean=mean, std=std, multiple_of=8
    )
    segmenter.class_names = CLASS_NAMES
    return segmenter


class CGNet(nn.Module):
    """Three levels at 1/2, 1/4 and 1/8 of the size, the picture fed in again at each."""

    def __init__(self) -> None:
        super().__init__()
        self.level1_0 = _Conv(3, 32, 3, stride=2, has_norm=True)
        self.level1_1 = _Conv(32, 32, 3, has_norm=True)
        self.level1_2 = _Conv(32, 32, 3, has_norm=True)
        self.b1 = _NormAct(35)
        self.level2_0 = _Down(35, 64, dilation=2, reduction=8)
        self.level2 = nn.ModuleList(_Block(64, dilation=2, reduction=8) for _ in range(BLOCKS[0]))
        self.bn_prelu_2 = _NormAct(131)
        self.level3_0 = _Down(131, 128, dilation=4, reduction=16)
        self.level3 = nn.ModuleList(_Block(128, dilation=4, reduction=16) for _ in range(BLOCKS[1]))
        self.bn_prelu_3 = _NormAct(256)
        self.classifier = nn.Sequential(_Conv(256, NUM_CLASSES, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, 11, H, W)`` of images ``(N, 3, H, W)`` less `MEAN`."""
        half = functional.avg_pool2d(images, 3, stride=2, padding=1)
        quarter = functional.avg_pool2d(half, 3, stride=2, padding=1)
        features = self.level1_2(self.level1_1(self.level1_0(images)))
        first = self.level2_0(self.b1(torch.cat([features, half], dim=1)))
        features = first
        for block in self.level2:
            features = block(features)
        first = self.level3_0(self.bn_prelu_2(torch.cat([features, first, quarter], dim=1)))
        features = first
        for block in self.level3:
            features = block(features)
        logits = self.classifier(self.bn_prelu_3(torch.cat([first, features], dim=1)))
        return functional.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


class _Conv(nn.Module):
    """A convolution without bias that keeps the size, with batch norm and PReLU where it has a norm."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        has_norm: bool = False,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3) if has_norm else nn.Identity()
        self.act = nn.PReLU(out) if has_norm else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(features)))


class _NormAct(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)
        self.act = nn.PReLU(channels)

    def forward(self, features: Tensor) -> Tensor:
        return self.act(self.bn(features))


class _Gate(nn.Module):
    """Channels weighed by what the whole picture shows."""

    def __init__(self, channels: int, *, reduction: int) -> None:
        super().__init__()
        inner = channels // reduction
        self.fc = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        return features * self.fc(features.mean(dim=(2, 3)))[:, :, None, None]


class _Block(nn.Module):
    """Local and surrounding context side by side, gated, added to the input."""

    def __init__(self, channels: int, *, dilation: int, reduction: int) -> None:
        super().__init__()
        inner = channels // 2
        self.conv1x1 = _Conv(channels, inner, 1, has_norm=True)
        self.F_loc = _Conv(inner, inner, 3, groups=inner)
        self.F_sur = _Conv(inner, inner, 3, dilation=dilation, groups=inner)
        self.bn_prelu = _NormAct(channels)
        self.F_glo = _Gate(channels, reduction=reduction)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.conv1x1(features)
        joined = self.bn_prelu(torch.cat([self.F_loc(inner), self.F_sur(inner)], dim=1))
        return features + self.F_glo(joined)


class _Down(nn.Module):
    """The same at half the size, with nothing added."""

    def __init__(self, channels: int, out: int, *, dilation: int, reduction: int) -> None:
        super().__init__()
        self.conv1x1 = _Conv(channels, out, 3, stride=2, has_norm=True)
        self.F_loc = _Conv(out, out, 3, groups=out)
        self.F_sur = _Conv(out, out, 3, dilation=dilation, groups=out)
        self.bn = nn.BatchNorm2d(2 * out, eps=1e-3)
        self.act = nn.PReLU(2 * out)
        self.reduce = _Conv(2 * out, out, 1)
        self.F_glo = _Gate(out, reduction=reduction)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.conv1x1(features)
        joined = self.act(self.bn(torch.cat([self.F_loc(inner), self.F_sur(inner)], dim=1)))
        return self.F_glo(self.reduce(joined))
