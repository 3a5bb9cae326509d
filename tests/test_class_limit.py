"""Labels are bytes: more than 255 classes are refused wherever a number, names or colours of classes come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mvcseg import PerFrame, iter_labels, predict_labels
from mvcseg.adapters import QuerySegmenter
from mvcseg.causal_prediction import predict_causally
from mvcseg.data import VSPW, VSPWVideo, class_colours, write_classes, write_label_map
from mvcseg.data.joined import VideoSet, joined_videos
from mvcseg.ensemble.average import Average
from mvcseg.ensemble.flow_ssim import select_model, temporal_score
from mvcseg.errors import ConfigError
from mvcseg.flow import FarnebackFlow
from mvcseg.losses import ClassMemory
from mvcseg.metrics import MeanIoU, TemporalConsistency
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.dvis.config import BACKBONES, DVISConfig
from mvcseg.ops.confusion import confusion_matrix, count_pairs
from mvcseg.ops.ssim import label_ssim
from mvcseg.ops.vote import majority, majority_among_tied
from mvcseg.pipeline import run_video
from mvcseg.prediction import predict_to_folder
from mvcseg.report import PageVideo, overlay, show, write_page
from mvcseg.training.strips import strip
from mvcseg.tta import MeanTTA, View, iter_view_labels, vote_labels

SIZE = (8, 12)
VIDEO = torch.zeros(2, 3, *SIZE, dtype=torch.uint8)
LABELS = torch.zeros(2, *SIZE, dtype=torch.int64)
FLOW = FarnebackFlow()


class ManyClasses:
    """Answers everything that may be asked of a segmenter, always with its last class."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __call__(self, frames: Tensor, /) -> Tensor:
        logits = torch.zeros(*frames.shape[:2], self.num_classes, *frames.shape[-2:])
        logits[:, :, -1] = 1
        return logits

    def stream_causal(self, frames: Any, **_: Any) -> Iterator[Tensor]:
        for _frame in frames:
            yield torch.full(SIZE, self.num_classes - 1)


class NamedVideo:
    """A video in memory with the names that a folder of label maps takes from it."""

    name = "v"
    frame_names = ("0", "1")

    def __len__(self) -> int:
        return len(VIDEO)

    def __getitem__(self, index: slice, /) -> Tensor:
        return VIDEO[index]


def names(count: int) -> list[str]:
    return [f"class {index}" for index in range(count)]


def colours(count: int) -> np.ndarray[Any, Any]:
    return np.zeros((count, 3), dtype=np.uint8)


def data_set(folder: Path) -> Path:
    for kind in ("mask", "origin"):
        (folder / "data" / "v" / kind).mkdir(parents=True)
        Image.fromarray(np.zeros(SIZE, dtype=np.uint8)).save(folder / "data" / "v" / kind / "0.png")
    (folder / "val.txt").write_text("v\n")
    return folder


def segformer(count: int) -> object:
    transformers = pytest.importorskip("transformers")
    from mvcseg.adapters import from_transformers

    config = transformers.SegformerConfig(
        num_labels=count, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, decoder_hidden_size=8
    )
    return from_transformers(transformers.SegformerForSemanticSegmentation(config))


Entry = Callable[[int, Path], object]
ENTRIES: dict[str, tuple[str, Entry]] = {
    "majority": ("num_classes", lambda k, _: majority(LABELS, num_classes=k)),
    "majority_among_tied": ("num_classes", lambda k, _: majority_among_tied(LABELS, num_classes=k)),
    "confusion_matrix": ("num_classes", lambda k, _: confusion_matrix(LABELS, LABELS, num_classes=k)),
    "count_pairs": ("num_classes", lambda k, _: count_pairs(LABELS, LABELS, num_classes=k)),
    "label_ssim": ("num_classes", lambda k, _: label_ssim(LABELS, LABELS, num_classes=k)),
    "MeanIoU": ("num_classes", lambda k, _: MeanIoU(k)),
    "TemporalConsistency": ("num_classes", lambda k, _: TemporalConsistency(k, FLOW)),
    "temporal_score": ("num_classes", lambda k, _: temporal_score(VIDEO, LABELS, num_classes=k, flow=FLOW)),
    "select_model": ("num_classes", lambda k, _: select_model(VIDEO, {"a": LABELS}, num_classes=k, flow=FLOW)),
    "PerFrame": ("num_classes", lambda k, _: PerFrame(nn.Identity(), num_classes=k, logits_of=lambda x: x)),
    "CompactSegmenter": ("num_classes", lambda k, _: CompactSegmenter(k, width=8)),
    "DVISConfig": ("num_classes", lambda k, _: DVISConfig(BACKBONES["ResNet-18"], num_classes=k, class_order=None)),
    "QuerySegmenter": (
        "num_classes",
        lambda k, _: QuerySegmenter(nn.Identity(), layers_of=lambda *a, **b: [], class_order=range(k)),
    ),
    "from_transformers": ("num_classes", lambda k, _: segformer(k)),
    "Average": ("num_classes", lambda k, _: Average([ManyClasses(k)])),
    "ClassMemory": ("num_classes", lambda k, _: ClassMemory(k, width=2)),
    "predict_labels": ("num_classes", lambda k, _: predict_labels(ManyClasses(k), VIDEO, clip_length=2)),
    "iter_labels": ("num_classes", lambda k, _: list(iter_labels(ManyClasses(k), VIDEO, clip_length=2))),
    "vote_labels": ("num_classes", lambda k, _: vote_labels(ManyClasses(k), VIDEO, views=[View()], clip_length=2)),
    "iter_view_labels": (
        "num_classes",
        lambda k, _: list(iter_view_labels(ManyClasses(k), VIDEO, view=View(), clip_length=2)),
    ),
    "MeanTTA": (
        "num_classes",
        lambda k, _: predict_labels(MeanTTA(ManyClasses(k), [View()]), VIDEO, clip_length=2),
    ),
    "run_video": ("num_classes", lambda k, _: run_video(VIDEO, {"a": ManyClasses(k)}, num_classes=k, clip_length=2)),
    "predict_to_folder": (
        "class_names",
        lambda k, out: predict_to_folder([NamedVideo()], ManyClasses(k), out=out, class_names=names(k), clip_length=2),
    ),
    "predict_causally": (
        "class_names",
        lambda k, out: predict_causally(list(VIDEO), ManyClasses(k), out=out, class_names=names(k)),
    ),
    "class_colours": ("class_names", lambda k, _: class_colours(names(k))),
    "class_colours of a number": ("class_names", lambda k, _: class_colours(k)),
    "write_classes": ("class_names", lambda k, out: write_classes(out, names(k), colours(k))),
    "write_label_map": (
        "labels",
        lambda k, out: write_label_map(out / "a.png", torch.full(SIZE, max(k - 1, 256)), colours=colours(3)),
    ),
    "overlay": ("colours", lambda k, _: overlay(VIDEO, LABELS, colours=colours(k))),
    "strip": ("colours", lambda k, _: strip(VIDEO, LABELS, LABELS, colours=colours(k))),
    "show": ("class_names", lambda k, _: show(VIDEO, LABELS, class_names=names(k), colours=colours(k))),
    "write_page": (
        "class_names",
        lambda k, out: write_page(
            out / "page.html",
            title="",
            videos=[PageVideo("v", VIDEO, {"a": LABELS + k - 1})],
            class_names=names(k),
            colours=colours(k),
        ),
    ),
    "VSPW": ("class_names", lambda k, out: VSPW(data_set(out), split="val", class_names=names(k))),
    "VSPWVideo": ("num_classes", lambda k, out: VSPWVideo(data_set(out) / "data" / "v", num_classes=k)),
    "joined_videos": (
        "class_names",
        lambda k, out: joined_videos(
            [VideoSet(data_set(out), split="val", classes={"sky": "class 0"})], class_names=names(k)
        ),
    ),
}


@pytest.mark.parametrize("count", [256, 300])
@pytest.mark.parametrize("entry", ENTRIES)
def test_more_than_255_classes_are_refused_by_name(entry: str, count: int, tmp_path: Path) -> None:
    argument, call = ENTRIES[entry]
    with pytest.raises(ConfigError, match=rf"^{argument}: .*\b255\b"):
        call(count, tmp_path)


@pytest.mark.parametrize("entry", sorted(set(ENTRIES) - {"write_label_map", "joined_videos"}))
def test_255_classes_are_not_refused(entry: str, tmp_path: Path) -> None:
    ENTRIES[entry][1](255, tmp_path)
