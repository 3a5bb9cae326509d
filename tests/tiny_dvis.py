"""DVIS models of every kind, small enough to run in milliseconds, and videos for them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import torch
from golden_files import fill_module, make_frames
from torch import Tensor, nn

from mvcseg.models.dvis import DVIS
from mvcseg.models.dvis.refiner import TemporalRefiner
from mvcseg.models.dvis.tracker import ReferringTracker
from mvcseg.models.dvis.tracker_v1 import FirstReferringTracker
from mvcseg.models.mask2former import Mask2FormerHead, PixelDecoder, QueryDecoder

KINDS = ("segmenter", "online", "offline", "first online", "first offline")
CLASSES, QUERIES, WIDTH = 6, 9, 32


class TinyBackbone(nn.Module):
    """Strides 4 to 32 by strided convolutions."""

    channels = (8, 16, 24, 32)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *self.channels)
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, stride, stride=stride)
            for before, after, stride in zip(widths, self.channels, (4, 2, 2, 2), strict=False)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return tuple(maps)


def tiny_dvis(
    kind: str,
    *,
    class_order: Sequence[int] | None = None,
    spill_folder: str | PathLike[str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> DVIS:
    """A model of one of ``KINDS``; its weights depend on their names alone."""
    has_reid = not kind.startswith("first")
    width = 2 * WIDTH if has_reid else WIDTH
    sizes = {"width": width, "hidden": 48, "heads": 4, "layers": 2, "mask_width": WIDTH}
    backbone = TinyBackbone()
    head = Mask2FormerHead(backbone.channels, num_classes=CLASSES, num_queries=QUERIES, has_reid=has_reid)
    head.pixel_decoder = PixelDecoder(backbone.channels, width=WIDTH, heads=4, hidden=48, layers=1)
    head.predictor = QueryDecoder(
        CLASSES, num_queries=QUERIES, has_reid=has_reid, width=WIDTH, heads=4, hidden=48, layers=3
    )
    tracker = (ReferringTracker if has_reid else FirstReferringTracker)(CLASSES, **sizes)
    model = DVIS(
        backbone,
        head,
        tracker=None if kind == "segmenter" else tracker,
        refiner=TemporalRefiner(CLASSES, **sizes) if kind.endswith("offline") else None,
        class_order=class_order,
        spill_folder=spill_folder,
    )
    return fill_module(model).eval().to(dtype)  # type: ignore[return-value]


def video(length: int, *, height: int = 40, width: int = 60, seed: int = 5) -> Tensor:
    """uint8 ``(T, 3, H, W)``; a shorter one is the beginning of a longer one."""
    return make_frames(length, height, width, seed=seed)


def as_input(frames: Tensor) -> Tensor:
    """uint8 ``(T, 3, H, W)`` as a batch of one, ``(1, T, 3, H, W)`` in ``[0, 1]``."""
    return frames.float()[None] / 255
