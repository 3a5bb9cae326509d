"""What `growth.py` measures: each work on inputs drawn by seed, lazily where the library reads lazily.

A work is built first and then run: building draws inputs and weights and warms up on two frames, so that the memory and
the seconds of the run are the work's own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvcseg import PerFrame, iter_labels
from mvcseg.data import open_video, write_video
from mvcseg.ensemble.flow_ssim import select_model
from mvcseg.flow import FarnebackFlow
from mvcseg.metrics import MeanIoU, VideoConsistency, clip_consistency
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.dvis import DVISConfig, build_dvis
from mvcseg.models.dvis.config import BACKBONES
from mvcseg.ops.vote import majority
from mvcseg.prediction import predict_to_folder
from mvcseg.tta import iter_vote_labels, multiscale_flip

PAN = 64
"""Pixels a drawn scene moves to one side before it starts anew."""


@dataclass(frozen=True)
class Amounts:
    """How much of everything a work gets."""

    frames: int
    height: int
    width: int
    classes: int = 124
    candidates: int = 2
    views: int = 8


@dataclass(frozen=True)
class Panned:
    """A still picture ``(..., H, W + PAN)`` under a moving camera, frame by frame as it is read."""

    still: Tensor
    length: int
    flicker: int = 0
    """Squares of other labels in each frame, that come and go."""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: slice, /) -> Tensor:
        return torch.stack([self.frame(number) for number in range(*index.indices(self.length))])

    def frame(self, number: int) -> Tensor:
        """One frame ``(..., H, W)``."""
        width = self.still.shape[-1] - PAN
        start = number % PAN
        frame = self.still[..., start : start + width].clone()
        for spot in range(self.flicker):
            row, column = (number * 131 + spot * 977) % (len(frame) - 12), (number * 57 + spot * 313) % (width - 12)
            frame[..., row : row + 12, column : column + 12] = spot
        return frame


def picture(amounts: Amounts) -> Panned:
    """Frames: smooth colours with fine grain."""
    generator = torch.Generator().manual_seed(0)
    size = (amounts.height, amounts.width + PAN)
    coarse = torch.rand(1, 3, size[0] // 16 + 2, size[1] // 16 + 2, generator=generator)
    smooth = functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)[0]
    grain = 0.1 * torch.rand(3, *size, generator=generator)
    return Panned(((0.9 * smooth + grain).clamp(0, 1) * 255).to(torch.uint8), amounts.frames)


def regions(amounts: Amounts, *, flicker: int) -> Panned:
    """Label maps of smooth regions; every class is there."""
    generator = torch.Generator().manual_seed(1)
    cells = torch.randperm(16 * 28, generator=generator).remainder(amounts.classes).view(1, 1, 16, 28).float()
    size = (amounts.height, amounts.width + PAN)
    labels = functional.interpolate(cells, size=size, mode="nearest")[0, 0].to(torch.uint8)
    return Panned(labels, amounts.frames, flicker=min(flicker, amounts.classes))


def drain(clips: Iterator[Tensor]) -> int:
    return sum(len(clip) for clip in clips)


def dvis_labels(amounts: Amounts) -> Callable[[], object]:
    torch.manual_seed(0)
    config = DVISConfig(
        BACKBONES["ResNet-50"],
        num_classes=amounts.classes,
        class_order=None,
        has_reid=True,
        has_tracker=True,
        has_refiner=True,
    )
    model = build_dvis(config)
    drain(iter_labels(model, picture(amounts)[0:2], clip_length=2))
    return lambda: drain(iter_labels(model, picture(amounts), clip_length=2))


def compact_predict(amounts: Amounts) -> Callable[[], object]:
    """The command's own path: a video file to PNGs."""
    torch.manual_seed(0)
    model = CompactSegmenter(amounts.classes).eval()
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name, "clip.mp4")
    still = picture(amounts)
    write_video(file, (still.frame(number) for number in range(amounts.frames)), fps=15)
    drain(iter_labels(model, still[0:2], clip_length=2))
    names = [f"class {index}" for index in range(amounts.classes)]

    def run() -> None:
        with folder:
            found = predict_to_folder(
                [open_video(file)], model, out=Path(folder.name, "masks"), class_names=names, clip_length=4
            )
            if found.written != amounts.frames:
                raise RuntimeError(f"{found.written} of {amounts.frames} label maps")

    return run


def vote_of_views(amounts: Amounts) -> Callable[[], object]:
    """Eq. 8 over so many views, of sizes about the frame's, with a network that costs next to nothing."""
    torch.manual_seed(0)
    net = PerFrame(nn.Conv2d(3, amounts.classes, 8, stride=8), num_classes=amounts.classes, logits_of=lambda out: out)
    scales = [1 + (0.02 if step % 2 else -0.02) * (step // 2 + 1) for step in range((amounts.views + 1) // 2)]
    views = multiscale_flip(scales)[: amounts.views]
    still = picture(amounts)
    drain(iter_vote_labels(net, still[0:2], views=views[:1], clip_length=1))
    return lambda: drain(iter_vote_labels(net, still, views=views, clip_length=1))


def vote_of_maps(amounts: Amounts) -> Callable[[], object]:
    """The vote alone, in clips of one frame; four maps in turn, lest more views also disagree more."""
    labels = regions(amounts, flicker=40)
    maps = torch.stack([labels.frame(view % 4) for view in range(amounts.views)])
    majority(maps, num_classes=amounts.classes)
    return lambda: [majority(maps, num_classes=amounts.classes) for _ in range(amounts.frames)]


def selection(amounts: Amounts) -> Callable[[], object]:
    video = picture(amounts)
    candidates = {f"model {index}": regions(amounts, flicker=10 * (index + 1)) for index in range(amounts.candidates)}
    flow = FarnebackFlow()
    first = {name: labels[0:2] for name, labels in candidates.items()}
    select_model(video[0:2], first, num_classes=amounts.classes, flow=flow)
    return lambda: select_model(video, candidates, num_classes=amounts.classes, flow=flow)


def scores(amounts: Amounts) -> Callable[[], object]:
    """mIoU, VC8 and VC16 of one video, which the metrics take whole."""
    labels = regions(amounts, flicker=0)[0 : amounts.frames]
    pred = regions(amounts, flicker=40)[0 : amounts.frames]

    def run() -> list[float]:
        miou, vc8, vc16 = MeanIoU(amounts.classes), VideoConsistency(8), VideoConsistency(16)
        miou.update(pred, labels)
        for metric, found in zip((vc8, vc16), clip_consistency(pred, labels, clip_lengths=(8, 16)), strict=True):
            metric.add_clips(found)
        return [metric.compute() for metric in (miou, vc8, vc16)]

    MeanIoU(amounts.classes).update(pred[:2], labels[:2])
    return run


WORKS: dict[str, Callable[[Amounts], Callable[[], object]]] = {
    "DVIS++ offline, R50": dvis_labels,
    "predict, compact model": compact_predict,
    "vote over views": vote_of_views,
    "vote of label maps": vote_of_maps,
    "choice of a model": selection,
    "scores": scores,
}
"""Builders of what is timed, by the names of the table."""
