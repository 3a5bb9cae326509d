"""mIoU, VC8 and VC16 of a 70-frame video: `mvcseg.metrics` against a plain NumPy script and torchmetrics.

The script (`vspw_scripts.py`) reads the definitions of VSPW's own scripts frame by frame and clip by clip. torchmetrics
has no VC; its JaccardIndex is updated frame by frame with labels whose void is 255.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import vspw_scripts
from numpy.typing import NDArray
from peers_inputs import BUSY, SMOOTH, VIDEO, Size, pan, regions, with_blobs
from peers_row import Row, largest
from torchmetrics.classification import MulticlassJaccardIndex

from mvcseg.data import class_colours, read_label_map, write_label_map
from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.evaluation import evaluate
from mvcseg.metrics import MeanIoU, VideoConsistency, clip_consistency

CLASSES = 124
SCRIPT = "plain NumPy reading of the VSPW scripts"


@dataclass(frozen=True)
class LabelMaps:
    """Label maps of a video in memory: predictions, class ids and raw masks, ``(T, H, W)``."""

    pred: NDArray[Any]
    labels: NDArray[Any]
    raw: NDArray[Any]


def rows(*, device: str = "cpu", size: Size = VIDEO, frames: int = 70) -> Iterator[Row]:
    panned = coherent_video(size, frames)
    wide = replace(panned, pred=panned.pred.astype(np.int64))
    busy = coherent_video(size, frames, grid=BUSY)
    noise = random_video(size, frames)
    what = f"mIoU + VC8 + VC16 of {frames} frames"
    for key, name, video, call, target in (
        ("coherent/uint8/together", "coherent, uint8, in one pass", panned, together, 15.0),
        ("coherent/uint8/apart", "coherent, uint8, one by one", panned, apart, None),
        ("coherent/int64/together", "coherent, int64 predictions, in one pass", wide, together, None),
        ("busy/uint8/together", "1,100 regions a frame, uint8, in one pass", busy, together, None),
        ("random/uint8/together", "random, uint8, in one pass", noise, together, None),
        ("random/uint8/apart", "random, uint8, one by one", noise, apart, None),
    ):
        yield Row(
            f"scores/{key}",
            f"{what}, {name}",
            SCRIPT,
            ours=lambda video=video, call=call: call(video, device),
            theirs=lambda video=video: by_script(video),
            difference=largest,
            tolerance=1e-12,
            target=target,
            at_most=4,
            devices=("cpu",),
        )
    yield Row(
        "scores/iou/torchmetrics",
        f"IoU of {CLASSES} classes over {frames} frames, coherent, uint8",
        "torchmetrics.MulticlassJaccardIndex",
        ours=lambda: our_iou(panned, device),
        theirs=lambda: torchmetrics_iou(panned, device),
        difference=lambda ours, theirs: largest(*present(panned, ours, theirs)),
        tolerance=1e-6,
        turns=5,
        at_most=4,
    )
    yield from from_disk(panned, what)


def from_disk(video: LabelMaps, what: str) -> Iterator[Row]:
    """PNGs decoded one by one and scored by the script, against `evaluate` of the folder."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(video, root)
        yield Row(
            "scores/from PNGs",
            f"{what}, read from PNGs",
            f"{SCRIPT}, PNGs read one by one",
            ours=lambda: evaluated(root),
            theirs=lambda: by_script(read(root)),
            difference=largest,
            tolerance=1e-12,
            turns=5,
            at_most=4,
            devices=("cpu",),
        )


def together(video: LabelMaps, device: str) -> tuple[float, float, float]:
    """Both clip lengths in one pass, as `mvcseg.evaluation` does it."""
    miou, vc8, vc16 = MeanIoU(CLASSES), VideoConsistency(8), VideoConsistency(16)
    pred, labels, raw = (torch.from_numpy(maps).to(device) for maps in (video.pred, video.labels, video.raw))
    miou.update(pred, labels)
    for metric, scores in zip((vc8, vc16), clip_consistency(pred, raw, clip_lengths=(8, 16)), strict=True):
        metric.add_clips(scores)
    return miou.compute(), vc8.compute(), vc16.compute()


def apart(video: LabelMaps, device: str) -> tuple[float, float, float]:
    """The three metrics, each updated by itself."""
    miou, vc8, vc16 = MeanIoU(CLASSES), VideoConsistency(8), VideoConsistency(16)
    pred, labels, raw = (torch.from_numpy(maps).to(device) for maps in (video.pred, video.labels, video.raw))
    miou.update(pred, labels)
    vc8.update(pred, raw)
    vc16.update(pred, raw)
    return miou.compute(), vc8.compute(), vc16.compute()


def by_script(video: LabelMaps) -> tuple[float, float, float]:
    return (
        vspw_scripts.mean_iou([(video.pred, video.labels)], num_classes=CLASSES),
        vspw_scripts.video_consistency([(video.pred, video.raw)], clip_length=8),
        vspw_scripts.video_consistency([(video.pred, video.raw)], clip_length=16),
    )


def our_iou(video: LabelMaps, device: str) -> torch.Tensor:
    miou = MeanIoU(CLASSES)
    miou.update(torch.from_numpy(video.pred).to(device), torch.from_numpy(video.labels).to(device))
    return miou.per_class()


def torchmetrics_iou(video: LabelMaps, device: str) -> torch.Tensor:
    metric = MulticlassJaccardIndex(CLASSES, average="none", ignore_index=255, validate_args=False).to(device)
    for pred, labels in zip(video.pred, video.labels, strict=True):
        metric.update(torch.from_numpy(pred).to(device), torch.from_numpy(labels).to(device).long())
    return metric.compute()


def present(video: LabelMaps, *scores: torch.Tensor) -> list[torch.Tensor]:
    """Classes with labelled pixels: torchmetrics gives the others 0, we NaN."""
    classes = np.unique(video.labels)
    return [one.cpu()[torch.from_numpy(classes[classes < CLASSES]).long()] for one in scores]


def coherent_video(size: Size, frames: int, *, grid: Size = SMOOTH) -> LabelMaps:
    """A panned scene of regions, void among them, predicted with blobs of wrong classes in every frame."""
    canvas = (size[0] + frames, size[1] + frames)
    raw = pan(regions(canvas, num_classes=CLASSES + 1, seed=8, grid=grid), frames=frames, size=size, step=(0, 1))
    right = torch.where(raw == 0, 0, raw - 1).to(torch.uint8)
    pred = with_blobs(right, number=60, side=max(2, size[0] // 16), num_classes=CLASSES, seed=9).numpy()
    return LabelMaps(pred, vspw_scripts.class_ids(raw.numpy()), raw.numpy())


def random_video(size: Size, frames: int) -> LabelMaps:
    """Independent pixels, half of them over a still background: the worst case for what lives on coherence."""
    rng = np.random.default_rng(0)
    raw = rng.integers(0, CLASSES + 1, (frames, *size)).astype(np.uint8)
    raw[:, :, : size[1] // 2] = raw[:1, :, : size[1] // 2]  # or no clip would have a steady pixel
    return LabelMaps(rng.integers(0, CLASSES, raw.shape).astype(np.uint8), vspw_scripts.class_ids(raw), raw)


def write(video: LabelMaps, root: Path) -> None:
    """One video in VSPW's layout under ``set``, its prediction under ``pred``."""
    colours = class_colours(VSPW_CLASSES)
    for folder, maps in ((root / "pred/video", video.pred), (root / "set/data/video/mask", video.raw)):
        folder.mkdir(parents=True)
        for index, frame in enumerate(maps):
            write_label_map(folder / f"{index:08d}.png", torch.from_numpy(frame), colours=colours)
    (root / "set/val.txt").write_text("video")


def read(root: Path) -> LabelMaps:
    files = sorted((root / "set/data/video/mask").iterdir())
    raw = np.stack([read_label_map(file).numpy() for file in files])
    pred = np.stack([read_label_map(root / "pred/video" / file.name).numpy() for file in files])
    return LabelMaps(pred, vspw_scripts.class_ids(raw), raw)


def evaluated(root: Path) -> list[float]:
    result = evaluate(root / "pred", root=root / "set", split="val", progress=False)
    return [float("nan") if result[key] is None else float(result[key] or 0) for key in ("mIoU", "VC8", "VC16")]
