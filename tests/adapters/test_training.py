"""Training with masked video consistency of every kind of model that can be brought."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_transformers import KINDS, NUM_CLASSES, QUERY_KINDS, tiny_net
from torch import Tensor, nn

import mvcseg
from mvcseg.adapters import from_transformers, set_objective
from mvcseg.losses import Objective, PixelObjective


def moving_stripes() -> tuple[Tensor, Tensor]:
    """Two clips of two frames: a stripe of one class glides over another; a block stays."""
    generator = torch.Generator().manual_seed(1)
    colours = torch.rand(NUM_CLASSES, 3, generator=generator)
    labels = torch.zeros(2, 2, 32, 48, dtype=torch.long)
    for clip in range(2):
        for frame in range(2):
            left = 8 + 4 * frame + 8 * clip
            labels[clip, frame, :, left : left + 16] = 1 + clip
            labels[clip, frame, 20:, :12] = 3
    noise = 0.02 * torch.randn(2, 2, 3, 32, 48, generator=generator)
    return (colours[labels].movedim(-1, 2) + noise).clamp(0, 1), labels


def losses_of(segmenter: mvcseg.Segmenter, objective: Objective, *, steps: int, rate: float = 3e-3) -> list[float]:
    """Sum of the clean and the masked loss at every step."""
    frames, labels = moving_stripes()
    mask = mvcseg.PatchMask(patch_size=8, ratio=0.3)
    mvc = mvcseg.MVCWrapper(segmenter, mask=mask, objective=objective).train()
    optimizer = torch.optim.AdamW(mvc.parameters(), lr=rate)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        total = 0.0
        for term in mvc.loss_terms(frames, labels, generator=generator):
            term.backward()
            total += term.item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses


def falls(losses: list[float]) -> bool:
    return sum(losses[-3:]) < 0.8 * sum(losses[:3])


@pytest.mark.parametrize("kind", KINDS)
def test_pixel_loss_falls(kind: str) -> None:
    assert falls(losses_of(from_transformers(tiny_net(kind)), PixelObjective(), steps=20))


@pytest.mark.parametrize("kind", QUERY_KINDS)
def test_set_loss_falls_and_weights_load_back(kind: str, tmp_path: Path) -> None:
    segmenter = from_transformers(tiny_net(kind))
    assert falls(losses_of(segmenter, set_objective(segmenter, num_points=64), steps=12))
    segmenter.save_pretrained(tmp_path)
    again = from_transformers(type(segmenter.net).from_pretrained(tmp_path), num_classes=NUM_CLASSES)
    frames = moving_stripes()[0]
    with torch.no_grad():
        assert torch.equal(again.eval()(frames), segmenter.eval()(frames))


def test_a_trained_videomt_labels_the_clip() -> None:
    segmenter = from_transformers(tiny_net("videomt"))
    losses_of(segmenter, set_objective(segmenter, num_points=64), steps=25)
    frames, labels = moving_stripes()
    assert (segmenter.eval()(frames).argmax(dim=2) == labels).float().mean() > 0.8


def test_a_net_of_torchvision_trains() -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(0)
    net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=NUM_CLASSES)
    assert falls(losses_of(per_frame(net, lambda out: out["out"]), PixelObjective(), steps=10))


def test_a_net_of_segmentation_models_pytorch_trains() -> None:
    from segmentation_models_pytorch import Unet

    torch.manual_seed(0)
    net = Unet("resnet18", encoder_weights=None, classes=NUM_CLASSES, decoder_channels=(16, 8, 8, 8, 8))
    assert falls(losses_of(per_frame(net, lambda out: out), PixelObjective(), steps=10))


def per_frame(net: nn.Module, logits_of: object) -> mvcseg.PerFrame:
    statistics = {"mean": mvcseg.IMAGENET_MEAN, "std": mvcseg.IMAGENET_STD}
    return mvcseg.PerFrame(net, num_classes=NUM_CLASSES, logits_of=logits_of, multiple_of=32, **statistics)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["segformer", "videomt"])
def test_a_run_of_the_training_loop_leaves_a_folder_of_transformers(kind: str, tmp_path: Path) -> None:
    from mvcseg.data.toy import write_toy_set
    from mvcseg.data.toy_scene import CLASS_NAMES
    from mvcseg.training import TrainConfig, read_log, train

    root = write_toy_set(tmp_path / "toy", videos={"train": 2, "val": 1}, frames=6, size=(32, 48))
    segmenter = from_transformers(tiny_net(kind, num_labels=len(CLASS_NAMES)), class_names=CLASS_NAMES)
    config = TrainConfig(
        model="own",
        objective="pixel" if kind == "segformer" else "queries",
        steps=3,
        clip_length=2,
        crop_size=(32, 48),
        num_points=32,
        mask=mvcseg.PatchMask(patch_size=8, ratio=0.5),
        eval_every=3,
        eval_clip_length=3,
    )
    result = train(config, root=root, out=tmp_path / "run", segmenter=segmenter)
    losses = [line["loss"] for line in read_log(tmp_path / "run") if "loss" in line]
    assert len(losses) == 3
    again = from_transformers(type(segmenter.net).from_pretrained(result.model), class_names=CLASS_NAMES)
    frames = moving_stripes()[0]
    with torch.no_grad():
        assert torch.equal(again.eval()(frames), segmenter.eval()(frames))
