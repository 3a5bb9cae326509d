"""Two small published CamVid nets, written from their descriptions: ENet and ESPNet (p=2, q=8).

Attribute names are the checkpoints', so both load strictly. They take images ``(N, 3, H, W)``, sides a multiple
of 8, and give twelve logits per pixel at the images' size: the eleven CamVid classes, then "unlabelled".

Sources: ENet, arXiv 1606.02147; ESPNet, arXiv 1803.06815.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_LOGITS = 12
"""Logits of both checkpoints: 0 to 10 are CamVid's classes, 11 is "unlabelled"."""


def load_enet(path: Path | str) -> ENet:
    """ENet with the weights of a safetensors file, in eval mode; images are RGB in ``[0, 1]``."""
    return _load(ENet(), path)


def load_espnet(path: Path | str) -> ESPNet:
    """ESPNet with the weights of a safetensors file, in eval mode; images are **BGR**, normalised by the caller."""
    return _load(ESPNet(), path)


def _load(net: nn.Module, path: Path | str):
    from safetensors.torch import load_file

    net.load_state_dict(load_file(path), strict=True)
    return net.eval()


# ---------------------------------------------------------------------------------------------- ENet


class ENet(nn.Module):
    """Bottlenecks at 1/4 and 1/8 of the resolution, max-unpooling on the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.initial_block = _InitialBlock()
        self.downsample1_0 = _Down(16, 64)
        for index in range(1, 5):
            self.add_module(f"regular1_{index}", _Bottleneck(64))
        self.downsample2_0 = _Down(64, 128)
        for stage, first in ((2, 1), (3, 0)):
            for offset, (kind, dilation) in enumerate(_MIDDLE):
                block = _Bottleneck(128, dilation=dilation, asymmetric=kind == "asymmetric")
                self.add_module(f"{kind}{stage}_{first + offset}", block)
        self.upsample4_0 = _Up(128, 64)
        self.regular4_1 = _Bottleneck(64)
        self.regular4_2 = _Bottleneck(64)
        self.upsample5_0 = _Up(64, 16)
        self.regular5_1 = _Bottleneck(16)
        self.transposed_conv = nn.ConvTranspose2d(16, NUM_LOGITS, 3, stride=2, padding=1, output_padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, 12, H, W)`` of RGB images ``(N, 3, H, W)`` in ``[0, 1]``."""
        features, half = self.downsample1_0(self.initial_block(images))
        for index in range(1, 5):
            features = self.get_submodule(f"regular1_{index}")(features)
        features, quarter = self.downsample2_0(features)
        for stage, first in ((2, 1), (3, 0)):
            for offset, (kind, _) in enumerate(_MIDDLE):
                features = self.get_submodule(f"{kind}{stage}_{first + offset}")(features)
        features = self.regular4_2(self.regular4_1(self.upsample4_0(features, quarter)))
        features = self.regular5_1(self.upsample5_0(features, half))
        return self.transposed_conv(features)


_MIDDLE = (
    ("regular", 1),
    ("dilated", 2),
    ("asymmetric", 1),
    ("dilated", 4),
    ("regular", 1),
    ("dilated", 8),
    ("asymmetric", 1),
    ("dilated", 16),
)


class _InitialBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main_branch = nn.Conv2d(3, 13, 3, stride=2, padding=1, bias=False)
        self.batch_norm = nn.BatchNorm2d(16)
        self.out_prelu = nn.PReLU(16)

    def forward(self, images: Tensor) -> Tensor:
        pooled = functional.max_pool2d(images, 3, stride=2, padding=1)
        return self.out_prelu(self.batch_norm(torch.cat([self.main_branch(images), pooled], dim=1)))


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, *, dilation: int = 1, asymmetric: bool = False) -> None:
        super().__init__()
        inner = channels // 4
        self.ext_conv1 = _conv_norm_act(nn.Conv2d(channels, inner, 1, bias=False))
        if asymmetric:
            self.ext_conv2 = nn.Sequential(
                *_conv_norm_act(nn.Conv2d(inner, inner, (5, 1), padding=(2, 0), bias=False)),
                *_conv_norm_act(nn.Conv2d(inner, inner, (1, 5), padding=(0, 2), bias=False)),
            )
        else:
            middle = nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation, bias=False)
            self.ext_conv2 = _conv_norm_act(middle)
        self.ext_conv3 = _conv_norm_act(nn.Conv2d(inner, channels, 1, bias=False))
        self.out_prelu = nn.PReLU(channels)

    def forward(self, features: Tensor) -> Tensor:
        return self.out_prelu(features + self.ext_conv3(self.ext_conv2(self.ext_conv1(features))))


class _Down(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        inner = channels // 4
        self.ext_conv1 = _conv_norm_act(nn.Conv2d(channels, inner, 2, stride=2, bias=False))
        self.ext_conv2 = _conv_norm_act(nn.Conv2d(inner, inner, 3, padding=1, bias=False))
        self.ext_conv3 = _conv_norm_act(nn.Conv2d(inner, out, 1, bias=False))
        self.out_prelu = nn.PReLU(out)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        main, indices = functional.max_pool2d(features, 3, stride=2, padding=1, return_indices=True)
        side = self.ext_conv3(self.ext_conv2(self.ext_conv1(features)))
        main = functional.pad(main, (0, 0, 0, 0, 0, side.shape[1] - main.shape[1]))
        return self.out_prelu(main + side), indices


class _Up(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        inner = channels // 4
        self.main_conv1 = nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))
        self.ext_conv1 = _conv_norm_act(nn.Conv2d(channels, inner, 1, bias=False))
        transposed = nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.ext_conv2 = _conv_norm_act(transposed)
        self.ext_conv3 = _conv_norm_act(nn.Conv2d(inner, out, 1, bias=False))
        self.out_prelu = nn.PReLU(out)

    def forward(self, features: Tensor, indices: Tensor) -> Tensor:
        main = functional.max_unpool2d(self.main_conv1(features), indices, 2)
        return self.out_prelu(main + self.ext_conv3(self.ext_conv2(self.ext_conv1(features))))


def _conv_norm_act(conv: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.PReLU())


# -------------------------------------------------------------------------------------------- ESPNet


class ESPNet(nn.Module):
    """An encoder of efficient spatial pyramids and a light decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Encoder()
        self.level3_C = _Conv(131, NUM_LOGITS, 1)
        self.br = _batch_norm(NUM_LOGITS)
        self.conv = _ConvNormAct(19 + NUM_LOGITS, NUM_LOGITS, 3)
        self.up_l3 = nn.Sequential(nn.ConvTranspose2d(NUM_LOGITS, NUM_LOGITS, 2, stride=2, bias=False))
        self.combine_l2_l3 = nn.Sequential(
            _NormAct(2 * NUM_LOGITS), _PlainESP(2 * NUM_LOGITS, NUM_LOGITS, is_residual=False)
        )
        upsample = nn.ConvTranspose2d(NUM_LOGITS, NUM_LOGITS, 2, stride=2, bias=False)
        self.up_l2 = nn.Sequential(upsample, _NormAct(NUM_LOGITS))
        self.classifier = nn.ConvTranspose2d(NUM_LOGITS, NUM_LOGITS, 2, stride=2, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, 12, H, W)`` of normalised BGR images ``(N, 3, H, W)``."""
        half, quarter, eighth = self.encoder(images)
        eighth = self.up_l3(self.br(eighth))
        quarter = self.combine_l2_l3(torch.cat([self.level3_C(quarter), eighth], dim=1))
        return self.classifier(self.conv(torch.cat([self.up_l2(quarter), half], dim=1)))


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.level1 = _ConvNormAct(3, 16, 3, stride=2)
        self.b1 = _NormAct(19)
        self.level2_0 = _DownESP(19, 64)
        self.level2 = nn.Sequential(*(_PlainESP(64, 64) for _ in range(2)))
        self.b2 = _NormAct(131)
        self.level3_0 = _DownESP(131, 128)
        self.level3 = nn.Sequential(*(_PlainESP(128, 128) for _ in range(8)))
        self.b3 = _NormAct(256)
        self.classifier = _Conv(256, NUM_LOGITS, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        small = functional.avg_pool2d(images, 3, stride=2, padding=1)
        half = self.b1(torch.cat([self.level1(images), small], dim=1))
        smaller = functional.avg_pool2d(small, 3, stride=2, padding=1)
        down = self.level2_0(half)
        quarter = self.b2(torch.cat([self.level2(down), down, smaller], dim=1))
        down = self.level3_0(quarter)
        # the down-sampled features come first here, and second in the level above
        eighth = self.b3(torch.cat([down, self.level3(down)], dim=1))
        return half, quarter, self.classifier(eighth)


class _Pyramid(nn.Module):
    """Reduce, five dilated convolutions side by side, running sums of the dilated ones, concatenate."""

    def __init__(self, channels: int, out: int, *, kernel: int, stride: int) -> None:
        super().__init__()
        branch = out // 5
        self.c1 = _Conv(channels, branch, kernel, stride=stride)
        self.d1 = _Conv(branch, out - 4 * branch, 3)
        self.d2 = _Conv(branch, branch, 3, dilation=2)
        self.d4 = _Conv(branch, branch, 3, dilation=4)
        self.d8 = _Conv(branch, branch, 3, dilation=8)
        self.d16 = _Conv(branch, branch, 3, dilation=16)

    def pyramid(self, features: Tensor) -> Tensor:
        reduced = self.c1(features)
        sums = [self.d2(reduced)]
        for dilated in (self.d4, self.d8, self.d16):
            sums.append(sums[-1] + dilated(reduced))
        return torch.cat([self.d1(reduced), *sums], dim=1)


class _DownESP(_Pyramid):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, kernel=3, stride=2)
        self.bn = _batch_norm(out)
        self.act = nn.PReLU(out)

    def forward(self, features: Tensor) -> Tensor:
        return self.act(self.bn(self.pyramid(features)))


class _PlainESP(_Pyramid):
    def __init__(self, channels: int, out: int, *, is_residual: bool = True) -> None:
        super().__init__(channels, out, kernel=1, stride=1)
        self.bn = _NormAct(out)
        self.is_residual = is_residual

    def forward(self, features: Tensor) -> Tensor:
        combined = self.pyramid(features)
        return self.bn(features + combined if self.is_residual else combined)


class _Conv(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = (kernel - 1) // 2 * dilation
        self.conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=padding, dilation=dilation, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(features)


class _NormAct(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = _batch_norm(channels)
        self.act = nn.PReLU(channels)

    def forward(self, features: Tensor) -> Tensor:
        return self.act(self.bn(features))


class _ConvNormAct(_NormAct):
    def __init__(self, channels: int, out: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__(out)
        self.conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(self.conv(features))


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
