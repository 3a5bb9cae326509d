"""Each part of the method used alone on plain tensors, pairs of parts, and all of them in one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mvcseg
from mvcseg.data import VSPW
from mvcseg.data.toy import write_toy_set
from mvcseg.ensemble.average import Average
from mvcseg.ensemble.flow_ssim import select_model, temporal_score
from mvcseg.evaluation import evaluate
from mvcseg.flow import FarnebackFlow
from mvcseg.losses import pixel_cross_entropy
from mvcseg.metrics import MeanIoU, TemporalConsistency, VideoConsistency
from mvcseg.models.compact import CompactSegmenter
from mvcseg.ops.ssim import ssim
from mvcseg.ops.vote import majority
from mvcseg.ops.warp import warp, warp_labels
from mvcseg.pipeline import run_video
from mvcseg.prediction import predict_to_folder
from mvcseg.tta import MeanTTA, multiscale_flip, vote_labels
from mvcseg.vlm import Group, ReplayVLM, correct_labels

NAMES = ["sky", "river", "lake"]
QUESTION = "Is the water in the image a river, lake? Please give me the only answer."


def pan(length: int = 6) -> tuple[Tensor, Tensor]:
    """A camera gliding over a smooth scene, 2 pixels a frame, and its labels."""
    coarse = torch.rand(1, 3, 8, 16, generator=torch.Generator().manual_seed(3))
    scene = nn.functional.interpolate(coarse, size=(48, 96), mode="bicubic")[0].clamp(0, 1)
    frames = torch.stack([scene[:, :, 2 * t : 2 * t + 64] for t in range(length)])
    return (frames * 255).to(torch.uint8), frames.argmax(dim=1)


def image_net(seed: int) -> mvcseg.PerFrame:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    return mvcseg.PerFrame(net, num_classes=3, logits_of=lambda out: out)


def test_masks_alone() -> None:
    frames = pan()[0].unsqueeze(0).float() / 255
    hidden = mvcseg.apply_mask(frames, mvcseg.patch_mask(frames, patch_size=8, ratio=0.5), fill=0.0)
    assert 0.2 < (hidden == 0).float().mean() < 0.8


def test_the_loss_alone() -> None:
    labels = pan()[1].unsqueeze(0)
    sure = nn.functional.one_hot(labels, 3).permute(0, 1, 4, 2, 3) * 50.0
    assert pixel_cross_entropy(sure, labels).item() < 1e-6


def test_the_vote_alone() -> None:
    labels = pan()[1]
    assert torch.equal(majority(torch.stack([labels, labels, 2 - labels]), num_classes=3), labels)


def test_flow_and_warp_alone() -> None:
    frames, labels = pan()
    flow = FarnebackFlow()(frames[1:].float() / 255, frames[:-1].float() / 255)
    assert flow[:, 0, 10:-10, 10:-10].median().item() == pytest.approx(2, abs=0.1)
    moved = warp_labels(labels[:-1], flow)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    assert (moved[inner] == labels[1:][inner]).float().mean() > 0.97
    brought = warp(frames[:-1].float(), flow)
    assert (brought - frames[1:])[:, :, 8:-8, 8:-8].abs().mean() < 3


def test_ssim_alone() -> None:
    frames = pan()[0].float() / 255
    assert torch.allclose(ssim(frames, frames, data_range=1.0), torch.ones(6, 3))


def test_scores_alone() -> None:
    frames, labels = pan(12)
    miou, vc8 = MeanIoU(num_classes=3), VideoConsistency(clip_length=8)
    tc = TemporalConsistency(num_classes=3, flow=FarnebackFlow())
    miou.update(labels, labels)
    vc8.update(labels, labels + 1)
    tc.update(labels, frames)
    assert (miou.compute(), vc8.compute()) == (1.0, 1.0)
    assert tc.compute() > 0.9


def test_selection_alone() -> None:
    frames, labels = pan()
    noisy = torch.where(torch.rand(labels.shape) < 0.1, 2 - labels, labels)
    choice = select_model(frames, {"noisy": noisy, "true": labels}, num_classes=3, flow=FarnebackFlow())
    assert choice.name == "true"
    assert choice.scores["true"] == temporal_score(frames, labels, num_classes=3, flow=FarnebackFlow())


def test_correction_alone() -> None:
    frames, labels = pan()
    answers = ReplayVLM({QUESTION: "The water in the image is a lake."})
    group = Group("water", (1, 2))
    corrected = correct_labels(frames, labels, vlm=answers, groups=[group], class_names=NAMES, min_area=0)
    assert not (corrected.labels == 1).any()
    assert torch.equal(corrected.labels == 0, labels == 0)


def test_wrappers_compose_with_one_another() -> None:
    frames, _ = pan()
    both = Average([MeanTTA(image_net(0), multiscale_flip((1.0, 1.25))), image_net(1)])
    mvc = mvcseg.MVCWrapper(both, mask=mvcseg.PatchMask(patch_size=8, ratio=0.5))
    labels = vote_labels(mvc, frames, views=multiscale_flip((1.0, 1.1), flip=False), clip_length=4)
    assert labels.shape == (6, 48, 64)
    for term in mvc.loss_terms(frames.unsqueeze(0).float() / 255, labels.unsqueeze(0)):
        term.backward()
    assert all(parameter.grad is not None for parameter in mvc.parameters())


@pytest.mark.parametrize("kind", ["torchvision", "transformers", "segmentation_models_pytorch", "compact"])
def test_models_people_bring_train_and_predict(kind: str) -> None:
    frames = torch.rand(1, 2, 3, 64, 80)
    labels = torch.randint(0, 4, (1, 2, 64, 80))
    torch.manual_seed(0)
    segmenter: mvcseg.Segmenter
    if kind == "torchvision":
        from torchvision.models.segmentation import lraspp_mobilenet_v3_large

        net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
        segmenter = mvcseg.PerFrame(net, num_classes=4, logits_of=lambda out: out["out"])
    elif kind == "transformers":
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        config = SegformerConfig(num_labels=4, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, decoder_hidden_size=8)
        net = SegformerForSemanticSegmentation(config)
        segmenter = mvcseg.PerFrame(net, num_classes=4, logits_of=lambda out: out.logits)
    elif kind == "segmentation_models_pytorch":
        from segmentation_models_pytorch import Unet

        net = Unet("resnet18", encoder_weights=None, classes=4, decoder_channels=(16, 8, 8, 8, 8))
        segmenter = mvcseg.PerFrame(net, num_classes=4, logits_of=lambda out: out, multiple_of=32)
    else:
        segmenter = CompactSegmenter(4, width=8, depth=1)
    mvc = mvcseg.MVCWrapper(segmenter, mask=mvcseg.PatchMask(patch_size=16, ratio=0.5))
    losses = []
    for term in mvc.loss_terms(frames, labels):
        term.backward()
        losses.append(term.item())
    assert all(loss > 0 for loss in losses)
    video = (frames[0] * 255).to(torch.uint8)
    assert mvcseg.predict_labels(mvc, video, clip_length=2).shape == (2, 64, 80)


@pytest.mark.slow
def test_all_in_one(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    write_toy_set(root, seed=5, videos={"train": 1, "val": 1}, frames=18, size=(48, 80))
    names = list(class_names_of_toy(root))
    models = {}
    for name, ratio in (("plain", None), ("mvc", 0.5)):
        torch.manual_seed(0)
        net = CompactSegmenter(len(names), width=8, depth=1)
        train(net, root, ratio=ratio)
        models[name] = net
    miou, vc16 = MeanIoU(num_classes=len(names)), VideoConsistency(clip_length=16)
    for video in VSPW(root, split="val"):
        result = run_video(
            video.frames,
            models,
            num_classes=len(names),
            clip_length=6,
            views=multiscale_flip((1.0, 1.2)),
            flow=FarnebackFlow(),
            vlm=ReplayVLM(["I cannot tell."] * 1000),
            groups=[Group("thing", (0, 1, 2))],
            class_names=names,
        )
        assert result.choice.name == max(result.choice.scores, key=result.choice.scores.__getitem__)
        assert all(change.status == "unclear" for change in result.changes)
        assert video.labels is not None
        assert video.raw_labels is not None
        miou.update(result.labels, video.labels)
        vc16.update(result.labels, video.raw_labels)
    assert 0 < miou.compute() < 1
    assert 0 < vc16.compute() <= 1
    predict_to_folder(
        [video.frames for video in VSPW(root, split="val")],
        models["mvc"],
        out=tmp_path / "masks",
        class_names=names,
        clip_length=6,
    )
    scores = evaluate(tmp_path / "masks", root=root, split="val")
    assert set(scores) >= {"mIoU", "VC8", "VC16"}


def class_names_of_toy(root: Path) -> tuple[str, ...]:
    from mvcseg.data.class_list import class_names_of

    return class_names_of(root)


def train(net: CompactSegmenter, root: Path, *, ratio: float | None) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    mask = mvcseg.PatchMask(patch_size=16, ratio=ratio or 0.0)
    mvc = mvcseg.MVCWrapper(net, mask=mask, weight=0.0 if ratio is None else 1.0)
    for video in VSPW(root, split="train"):
        assert video.labels is not None
        frames, labels = video.frames[0:3].unsqueeze(0).float() / 255, video.labels[0:3].unsqueeze(0)
        for term in mvc.loss_terms(frames, labels):
            term.backward()
        optimizer.step()
        optimizer.zero_grad()
