"""A DVIS++ small enough for a CPU, and its first two stages: segmenter, then tracker.

The backbone is the encoder of ENet with its published CamVid weights, frozen, as the report's is a frozen DINOv2; two
more strided convolutions bring it to stride 32. Everything else starts from random weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ablation_training
import camvid_nets
import torch
from ablation_data import training_clips
from ablation_plan import Job, Recipe
from camvid_scores import NUM_CLASSES, Clip
from camvid_segmenters import data_root
from torch import Tensor, nn

from mvcseg.models.dvis import DVIS
from mvcseg.models.dvis.model import PIXEL_MEAN, PIXEL_STD
from mvcseg.models.dvis.noise import QueryNoise
from mvcseg.models.dvis.tracker import ReferringTracker
from mvcseg.models.mask2former import Mask2FormerHead
from mvcseg.training.stage_objective import stage_objective
from mvcseg.training.stages import Stage, build_stage

WIDTH = 64
QUERIES = 20
NUM_POINTS = 512
"""Of each mask; at the small size a mask has 1280 pixels."""
TRACKER_SEED = 1000
"""Added to a run's seed, so that the second stage sees other clips than the first."""


def train(
    job: Job, recipe: Recipe, videos: Sequence[Clip], *, crop_size: tuple[int, int], device: torch.device
) -> tuple[DVIS, dict[str, Any]]:
    """Both stages of a run, and their steps and losses."""
    model = new_model(seed=job.seed).to(device)
    tracker, model.tracker = model.tracker, None
    factor = 2 if job.method == "plain-twice" else 1

    def take(stage: Stage, *, steps: int, clip_length: int, seed: int) -> float:
        clips = training_clips(
            videos,
            clip_length=clip_length,
            crop_size=crop_size,
            seed=seed,
            num_samples=steps * recipe.batch_size,
        )
        objective = stage_objective(stage, num_points=NUM_POINTS)
        return ablation_training.train(
            stage, clips, steps=steps, recipe=recipe, mask=job.mask, seed=seed, objective=objective
        )

    steps = (recipe.steps * factor, recipe.tracker_steps * factor)
    losses = [take(build_stage(model), steps=steps[0], clip_length=recipe.clip_length, seed=job.seed)]
    model.tracker = tracker
    stage = build_stage(model, noise=QueryNoise("wa", probability=0.5))
    seed = job.seed + TRACKER_SEED
    losses.append(take(stage, steps=steps[1], clip_length=recipe.tracker_clip_length, seed=seed))
    facts = {"steps": sum(steps), "loss": round(losses[0], 4), "tracker_loss": round(losses[1], 4)}
    return model.eval(), facts


def new_model(*, seed: int) -> DVIS:
    """Segmenter with re-identification head, and tracker: the online model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = FrozenEncoder()
        head = Mask2FormerHead(
            FrozenEncoder.channels,
            num_classes=NUM_CLASSES,
            num_queries=QUERIES,
            has_reid=True,
            width=WIDTH,
            encoder_layers=1,
            encoder_hidden=2 * WIDTH,
            decoder_layers=3,
            decoder_hidden=4 * WIDTH,
        )
        tracker = ReferringTracker(NUM_CLASSES, width=2 * WIDTH, hidden=4 * WIDTH, layers=2, mask_width=WIDTH)
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
