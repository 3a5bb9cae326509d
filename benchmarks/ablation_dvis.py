"""A DVIS++ small enough for a CPU, and its first two stages: segmenter, then tracker.

The backbone is the encoder of ENet with its published CamVid weights, frozen, as the report's is a frozen DINOv2; two
more strided convolutions bring it to stride 32. Everything else starts from random weights.
"""

from __future__ import annotations

import camvid_nets
import torch
from camvid_scores import NUM_CLASSES
from camvid_segmenters import data_root
from torch import Tensor, nn

from mvcseg.models.dvis import DVIS
from mvcseg.models.dvis.model import PIXEL_MEAN, PIXEL_STD
from mvcseg.models.dvis.tracker import ReferringTracker
from mvcseg.models.mask2former import Mask2FormerHead

WIDTH = 64
QUERIES = 20


def new_model(*, seed: int) -> DVIS:
    """Segmenter and tracker: the online model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = FrozenEncoder()
        head = Mask2FormerHead(
            FrozenEncoder.channels,
            num_classes=NUM_CLASSES,
            num_queries=QUERIES,
            has_reid=False,
            width=WIDTH,
            encoder_layers=1,
            encoder_hidden=2 * WIDTH,
            decoder_layers=3,
            decoder_hidden=4 * WIDTH,
        )
        tracker = ReferringTracker(NUM_CLASSES, width=WIDTH, hidden=4 * WIDTH, layers=2, mask_width=WIDTH)
    return DVIS(backbone, head, tracker=tracker)


class FrozenEncoder(nn.Module):
    """ENet's encoder, never trained, and two strided convolutions that are."""

    channels = (64, 128, 128, 128)

    def __init__(self) -> None:
        super().__init__()
        self.net = camvid_nets.load_enet(data_root() / "weights" / "enet_camvid" / "model.safetensors")
        self.net.requires_grad_(False)
        self.coarser = nn.ModuleList(
            nn.Sequential(nn.Conv2d(128, 128, 3, stride=2, padding=1, bias=False), nn.GroupNorm(16, 128), nn.ReLU())
            for _ in range(2)
        )
        self.train()

    def train(self, mode: bool = True) -> FrozenEncoder:
        """As ever; the frozen net stays in eval mode."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maps of strides 4 to 32 of images normalised as DVIS does."""
        with torch.no_grad():
            quarter, eighth = _encoded(self.net, _in_unit_range(images))
        sixteenth = self.coarser[0](eighth)
        return quarter, eighth, sixteenth, self.coarser[1](sixteenth)


def _in_unit_range(images: Tensor) -> Tensor:
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) / 255 for values in (PIXEL_MEAN, PIXEL_STD))
    return images * std + mean


def _encoded(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """ENet's features of strides 4 and 8; its parts come in the order in which they run."""
    features, quarter = images, images
    for name, part in net.named_children():
        if name == "upsample4_0":
            break
        features = part(features)
        if isinstance(features, tuple):  # features and the places of the pooled maxima
            features = features[0]
        if name == "regular1_4":
            quarter = features
    return quarter, features
