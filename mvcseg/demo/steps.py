"""The steps of the report on one toy video, each a call of `run_video`.

So that nothing is computed twice, a later step gets the labels of the earlier one as a segmenter (`Decided`); the last
labels are those of one call with every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mvcseg.data.toy_scene import CLASS_NAMES
from mvcseg.flow import FarnebackFlow
from mvcseg.pipeline import PipelineResult, run_video
from mvcseg.segmenter import Segmenter, Video
from mvcseg.tta import View
from mvcseg.vlm import VLM, Group

STEPS = ("plain", "MVC", "+ TTA", "+ selection", "+ VLM")
"""Rows of the table; each from ``+ TTA`` on adds to the one before."""
WATER = Group("water", tuple(CLASS_NAMES.index(name) for name in ("river", "lake", "sea")))
"""The look-alike classes that the last step asks about."""
CLIP_LENGTH = 8
"""Frames that go through a model at once."""


class Decided:
    """Labels that are settled, as a segmenter: they come back whatever the frames show.

    Args:
        labels: class ids 0..K-1 of a whole video, ``(T, H, W)`` int64.
        num_classes: K.

    Example:
        >>> decided = Decided(torch.tensor([[[0, 2]]]), num_classes=3)
        >>> decided(torch.rand(1, 1, 3, 1, 2)).argmax(dim=2).tolist()
        [[[[0, 2]]]]
    """

    def __init__(self, labels: Tensor, *, num_classes: int) -> None:
        self.labels = labels
        self.num_classes = num_classes

    def __call__(self, frames: Tensor, /) -> Tensor:
        """Logits ``(1, T, K, H, W)`` of the video's first T frames: 0 for the label, minus infinity for the others."""
        return self._logits(0, frames.shape[1])

    def stream(self, video: Video, /, *, clip_length: int) -> Iterator[Tensor]:
        """The same for the whole video, clip by clip."""
        for start in range(0, len(video), clip_length):
            yield self._logits(start, start + clip_length)

    def _logits(self, start: int, stop: int) -> Tensor:
        labels = self.labels[None, start:stop, None]
        scores = torch.full((*labels.shape[:2], self.num_classes, *labels.shape[3:]), -torch.inf)
        return scores.scatter_(2, labels, 0.0)


def run_steps(
    frames: Tensor, *, plain: Segmenter, mvc: Segmenter, views: Sequence[View], vlm: VLM
) -> Iterator[PipelineResult]:
    """The results of `STEPS` for one video, in that order.

    Args:
        frames: uint8 ``(T, 3, H, W)``.
        plain: segmenter trained without masks.
        mvc: segmenter trained with masked video consistency.
        views: views to vote over.
        vlm: asked about `WATER`.
    """
    num_classes = len(CLASS_NAMES)

    def step(
        segmenters: Mapping[str, Segmenter], *, views: Sequence[View] | None = None, vlm: VLM | None = None
    ) -> PipelineResult:
        return run_video(
            frames,
            segmenters,
            num_classes=num_classes,
            clip_length=CLIP_LENGTH,
            views=views,
            flow=FarnebackFlow(),
            vlm=vlm,
            groups=(WATER,),
            class_names=CLASS_NAMES,
        )

    def decided(result: PipelineResult) -> Segmenter:
        return Decided(result.labels, num_classes=num_classes)

    yield step({"plain": plain})
    yield step({"mvc": mvc})
    voted = step({"mvc": mvc}, views=views)
    yield voted
    other = step({"plain": plain}, views=views)
    selected = step({"mvc": decided(voted), "plain": decided(other)})
    yield selected
    yield step({selected.choice.name: decided(selected)}, vlm=vlm)
