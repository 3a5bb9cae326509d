"""Optical flow of a video, and choosing between two candidates by it, against a plain loop of OpenCV's Farneback.

The loop gets frames that are grey already and OpenCV's own threads, as many as the run has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from peers_inputs import VIDEO, Size, moving_scene
from peers_row import Row, largest
from torch import Tensor

from mvcseg.ensemble.flow_ssim import select_model, temporal_score
from mvcseg.flow import FarnebackFlow

FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)
CLASSES = 8


def flow_rows(*, device: str = "cpu", size: Size = VIDEO, frames: int = 70) -> Iterator[Row]:
    video, _ = moving_scene(frames, size=size, num_classes=CLASSES)
    flow = FarnebackFlow()

    def ours() -> Tensor:
        parts = []
        for start in range(0, frames - 1, 13):
            real = video[start : min(start + 13, frames - 1) + 1] / 255
            parts.append(flow(real[1:], real[:-1]))
        return torch.cat(parts)

    def as_tensor(fields: list[NDArray[np.float32]]) -> Tensor:
        return torch.from_numpy(np.stack(fields)).permute(0, 3, 1, 2)

    yield Row(
        "flow/opencv",
        f"Farneback flow of {frames - 1} pairs, from RGB in [0, 1]",
        "loop of cv2.calcOpticalFlowFarneback, from grey bytes",
        ours=ours,
        theirs=opencv_loop(video),
        difference=lambda ours, theirs: largest(ours, as_tensor(theirs)),
        tolerance=0,
        measure="largest difference, pixels",
        turns=3,
        at_most=12,
        devices=("cpu",),
    )


def select_rows(*, device: str = "cpu", size: Size = VIDEO, frames: int = 70) -> Iterator[Row]:
    video, candidates = moving_scene(frames, size=size, num_classes=CLASSES)
    flow = FarnebackFlow()

    def differs(ours: tuple[str, dict[str, float]], theirs: object) -> float:
        """The choice is that of the candidates scored one by one, and the steadier one of the two."""
        apart = {name: temporal_score(video, maps, num_classes=CLASSES, flow=flow) for name, maps in candidates.items()}
        wrong = float(ours[0] != "steady") + float(max(apart, key=lambda name: apart[name]) != ours[0])
        return wrong + max(abs(ours[1][name] - apart[name]) for name in apart)

    def ours() -> tuple[str, dict[str, float]]:
        chosen = select_model(video, candidates, num_classes=CLASSES, flow=flow)
        return chosen.name, dict(chosen.scores)

    yield Row(
        "select/opencv",
        f"choosing between two candidates, {CLASSES} classes, {frames - 1} pairs: flow, warp and SSIM",
        "loop of cv2.calcOpticalFlowFarneback alone, from grey bytes",
        ours=ours,
        theirs=opencv_loop(video),
        difference=differs,
        tolerance=1e-12,
        measure="largest difference from the scores taken one by one (the loop gives none)",
        target=1.333,
        turns=3,
        at_most=12,
        devices=("cpu",),
    )


def opencv_loop(video: Tensor) -> Callable[[], list[NDArray[np.float32]]]:
    """Flow of every pair of neighbours, one after the other; frames are made grey before."""
    grey = [cv2.cvtColor(np.ascontiguousarray(f.permute(1, 2, 0).numpy()), cv2.COLOR_RGB2GRAY) for f in video]
    return (
        lambda: [
            cv2.calcOpticalFlowFarneback(source, target, None, *FARNEBACK)  # type: ignore[call-overload]
            for source, target in zip(grey[1:], grey[:-1], strict=True)
        ]
    )
