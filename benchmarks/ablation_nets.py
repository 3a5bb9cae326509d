"""The study's models, each made anew from its seed."""

from __future__ import annotations

import camvid_nets
import torch
from ablation_plan import LONG
from camvid_scores import NUM_CLASSES
from camvid_segmenters import data_root
from torch import Tensor, nn

from mvcseg import PerFrame
from mvcseg.models.compact import CompactSegmenter


def new_model(name: str, *, seed: int) -> nn.Module:
    """A model of the study, weights drawn from the seed where they are not published ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {"frame": frame_net, "compact": compact_net}[name.removesuffix(LONG)]()


def frame_net() -> PerFrame:
    """ENet with its published CamVid weights, the statistics of its batch norms kept as they are.

    Masked frames would shift running statistics that clean frames are judged with.
    """
    weights = data_root() / "weights" / "enet_camvid" / "model.safetensors"
    net = FixedStatistics(camvid_nets.load_enet(weights))
    return PerFrame(net, num_classes=NUM_CLASSES, logits_of=_classes, multiple_of=8)


def compact_net() -> CompactSegmenter:
    """The library's compact temporal segmenter, from random weights."""
    return CompactSegmenter(NUM_CLASSES)


class FixedStatistics(nn.Module):
    """A net whose batch norms never leave eval mode."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.train()

    def train(self, mode: bool = True) -> FixedStatistics:
        """As ever, the norms left out."""
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.training = False
        return self

    def forward(self, images: Tensor) -> Tensor:
        """What the net says of images ``(N, 3, H, W)``."""
        return self.net(images)


def _classes(logits: Tensor) -> Tensor:
    """Without the last logit, "unlabelled"."""
    return logits[:, :NUM_CLASSES]
