"""RAFT-small, optical flow as a net, written from its description: a flow of the user's own for scores and selection.

``flow(source, target)`` meets the library's flow protocol. Attribute names are the checkpoint's, so it loads
strictly.

Source: Teed and Deng, RAFT, arXiv 2003.12039.
"""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

LEVELS = 4
RADIUS = 3
PAIRS_AT_ONCE = 4
"""Pairs whose correlations are held together: 40 MB each at 360 x 480."""


def load_raft_small(path: Path | str, *, iterations: int = 12) -> RAFTSmall:
    """RAFT-small with the weights of a safetensors file, in eval mode."""
    from safetensors.torch import load_file

    net = RAFTSmall(iterations=iterations)
    net.load_state_dict(load_file(path), strict=True)
    return net.eval()


class RAFTSmall(nn.Module):
    """Flow from one frame to another by repeated look-ups in the correlation of all pairs of positions.

    Args:
        iterations: updates of the flow; 12 is usual.
    """

    def __init__(self, *, iterations: int = 12) -> None:
        super().__init__()
        self.iterations = iterations
        self.fnet = _Encoder(128, norm=nn.InstanceNorm2d)
        self.cnet = _Encoder(160, norm=None)
        self.update_block = _Update()

    @torch.inference_mode()
    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Flow ``(N, 2, H, W)`` in pixels ``(dx, dy)`` with ``target(x + flow(x)) ~ source(x)``.

        Args:
            source: RGB frames ``(N, 3, H, W)`` in ``[0, 1]``.
            target: the same shape.
        """
        batches = zip(source.split(PAIRS_AT_ONCE), target.split(PAIRS_AT_ONCE), strict=True)
        return torch.cat([self._flow(*pairs) for pairs in batches])

    def _flow(self, source: Tensor, target: Tensor) -> Tensor:
        height, width = source.shape[-2:]
        padding = (0, -width % 8, 0, -height % 8)
        source, target = (functional.pad(2 * frames - 1, padding, mode="replicate") for frames in (source, target))
        pyramid = _correlation_pyramid(self.fnet(source), self.fnet(target))
        hidden, context = self.cnet(source).split([96, 64], dim=1)
        hidden, context = hidden.tanh(), context.relu()
        grid = _positions(hidden)
        flow = torch.zeros_like(grid)
        for _ in range(self.iterations):
            correlation = _look_up(pyramid, grid + flow)
            hidden, change = self.update_block(hidden, context, correlation, flow)
            flow = flow + change
        flow = 8 * functional.interpolate(flow, scale_factor=8, mode="bilinear", align_corners=True)
        return flow[..., :height, :width]


class _Encoder(nn.Module):
    def __init__(self, out: int, *, norm: type[nn.InstanceNorm2d] | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, stride=2, padding=3)
        self.norm1 = _norm(norm, 32)
        self.layer1 = nn.Sequential(_Bottleneck(32, 32, 1, norm), _Bottleneck(32, 32, 1, norm))
        self.layer2 = nn.Sequential(_Bottleneck(32, 64, 2, norm), _Bottleneck(64, 64, 1, norm))
        self.layer3 = nn.Sequential(_Bottleneck(64, 96, 2, norm), _Bottleneck(96, 96, 1, norm))
        self.conv2 = nn.Conv2d(96, out, 1)

    def forward(self, frames: Tensor) -> Tensor:
        features = self.norm1(self.conv1(frames)).relu()
        return self.conv2(self.layer3(self.layer2(self.layer1(features))))


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, out: int, stride: int, norm: type[nn.InstanceNorm2d] | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out // 4, 1)
        self.conv2 = nn.Conv2d(out // 4, out // 4, 3, stride=stride, padding=1)
        self.conv3 = nn.Conv2d(out // 4, out, 1)
        self.norm1, self.norm2, self.norm3 = _norm(norm, out // 4), _norm(norm, out // 4), _norm(norm, out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride), _norm(norm, out))

    def forward(self, features: Tensor) -> Tensor:
        branch = self.norm1(self.conv1(features)).relu()
        branch = self.norm2(self.conv2(branch)).relu()
        branch = self.norm3(self.conv3(branch)).relu()
        return (self.downsample(features) + branch).relu()


def _norm(norm: type[nn.InstanceNorm2d] | None, channels: int) -> nn.Module:
    return nn.Identity() if norm is None else norm(channels)


class _Update(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = _MotionEncoder()
        self.gru = _GRU(96, 146)
        self.flow_head = _FlowHead(96)

    def forward(self, hidden: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        motion = self.encoder(flow, correlation)
        hidden = self.gru(hidden, torch.cat([context, motion], dim=1))
        return hidden, self.flow_head(hidden)


class _MotionEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * (2 * RADIUS + 1) ** 2, 96, 1)
        self.convf1 = nn.Conv2d(2, 64, 7, padding=3)
        self.convf2 = nn.Conv2d(64, 32, 3, padding=1)
        self.conv = nn.Conv2d(128, 80, 3, padding=1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        from_flow = self.convf2(self.convf1(flow).relu()).relu()
        both = torch.cat([self.convc1(correlation).relu(), from_flow], dim=1)
        return torch.cat([self.conv(both).relu(), flow], dim=1)


class _GRU(nn.Module):
    def __init__(self, hidden: int, inputs: int) -> None:
        super().__init__()
        self.convz = nn.Conv2d(hidden + inputs, hidden, 3, padding=1)
        self.convr = nn.Conv2d(hidden + inputs, hidden, 3, padding=1)
        self.convq = nn.Conv2d(hidden + inputs, hidden, 3, padding=1)

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        both = torch.cat([hidden, inputs], dim=1)
        update, reset = self.convz(both).sigmoid(), self.convr(both).sigmoid()
        candidate = self.convq(torch.cat([reset * hidden, inputs], dim=1)).tanh()
        return (1 - update) * hidden + update * candidate


class _FlowHead(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 128, 3, padding=1)
        self.conv2 = nn.Conv2d(128, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv2(self.conv1(hidden).relu())


def _correlation_pyramid(source: Tensor, target: Tensor) -> list[Tensor]:
    """Dot products of all pairs of positions, ``(N h w, 1, h', w')`` per level."""
    n, channels, height, width = source.shape
    products = torch.einsum("ncp,ncq->npq", source.flatten(2), target.flatten(2)) / channels**0.5
    pyramid = [products.reshape(n * height * width, 1, height, width)]
    for _ in range(LEVELS - 1):
        pyramid.append(functional.avg_pool2d(pyramid[-1], 2, stride=2))
    return pyramid


def _look_up(pyramid: list[Tensor], positions: Tensor) -> Tensor:
    """Correlations around positions ``(N, 2, h, w)``, ``(N, levels * 49, h, w)``, the x offset outermost."""
    n, _, height, width = positions.shape
    steps = torch.arange(-RADIUS, RADIUS + 1, dtype=positions.dtype, device=positions.device)
    dx, dy = torch.meshgrid(steps, steps, indexing="ij")
    centres = rearrange(positions, "n xy h w -> (n h w) 1 1 xy")
    sampled = []
    for level, correlation in enumerate(pyramid):
        points = centres / 2**level + torch.stack([dx, dy], dim=-1)
        size = points.new_tensor([correlation.shape[-1] - 1, correlation.shape[-2] - 1]).clamp_min(1)
        values = functional.grid_sample(correlation, 2 * points / size - 1, align_corners=True)
        sampled.append(rearrange(values, "(n h w) 1 x y -> n (x y) h w", n=n, h=height, w=width))
    return torch.cat(sampled, dim=1)


def _positions(features: Tensor) -> Tensor:
    """Pixel positions ``(N, 2, h, w)`` as ``(x, y)``."""
    n, _, height, width = features.shape
    y, x = torch.meshgrid(
        torch.arange(height, dtype=features.dtype, device=features.device),
        torch.arange(width, dtype=features.dtype, device=features.device),
        indexing="ij",
    )
    return torch.stack([x, y]).expand(n, 2, height, width)
