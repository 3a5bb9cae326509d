"""Temporal consistency TC: how well each frame's prediction agrees with the next one's, brought back by the flow.

Source: VSPW-dataset/VSPW_baseline ``TC_cal.py``. Differences: the flow is the caller's; the warp is exact
(the script builds a grid for ``align_corners=True`` and samples it with False); pixels whose source lies outside
the next frame are left out (the script reads class 0 there); every video given counts (the script stops at 100).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.flow import FlowEstimator
from mvcseg.metrics.miou import class_iou
from mvcseg.ops.confusion import count_pairs
from mvcseg.ops.warp import inside_mask, warp_labels
from mvcseg.segmenter import IGNORE_INDEX, Video, check_video
from mvcseg.shapes import check_integer, check_num_classes, check_shapes

PAIRS = 8
"""Frame pairs given to the flow at a time: enough to run several in parallel, few enough to hold as floats."""


class TemporalConsistency:
    """Mean IoU between the prediction of frame t and that of frame t+1 warped back to t.

    One confusion matrix over all pairs of consecutive frames of all videos; the prediction at t plays the
    ground truth, so the mean is over the classes predicted at t. No labels are needed, and a constant
    prediction scores 1: read it beside mIoU.

    Args:
        num_classes: K, 1 to 255.
        flow: ``flow(source, target)`` on frames ``(N, 3, H, W)`` in ``[0, 1]`` gives ``(N, 2, H, W)`` pixels
            ``(dx, dy)`` with ``target(x + flow(x)) ~ source(x)``, `mvcseg.flow.FarnebackFlow` for one.

    Attributes:
        num_classes: K.
        flow: as given.
        state: ``(K, K + 1)`` int64 counts (row = class at t, column = class at t+1, last column = predictions outside
            ``0..K-1``), on the CPU before the first update and where the newest predictions were after it; adding
            up the states of several processes merges them.

    Raises:
        ConfigError: ``num_classes`` is outside 1 to 255.

    Example:
        >>> still = lambda source, target: torch.zeros(len(source), 2, *source.shape[-2:])
        >>> tc = TemporalConsistency(num_classes=2, flow=still)
        >>> pred = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]).view(2, 1, 4)
        >>> tc.update(pred, torch.zeros(2, 3, 1, 4, dtype=torch.uint8))
        >>> round(tc.compute(), 4)  # class 0: 1/2, class 1: 2/3
        0.5833
    """

    def __init__(self, num_classes: int, flow: FlowEstimator) -> None:
        self.num_classes = check_num_classes(num_classes)
        self.flow = flow
        self.reset()

    def reset(self) -> None:
        """Forget every update."""
        self.state = torch.zeros(self.num_classes, self.num_classes + 1, dtype=torch.int64)

    def update(self, pred: Tensor, video: Video) -> None:
        """Compare the consecutive frames of one whole video; a one-frame video adds nothing.

        Args:
            pred: predicted class ids ``(T, H, W)``, any integer dtype and device; flow and warp run there. A
                value outside ``0..K-1`` at t leaves the pixel out, at t+1 it is a disagreement.
            video: its uint8 frames ``(T, 3, H, W)``, or anything with ``len`` and slices that give such tensors.

        Raises:
            DTypeError: ``pred`` is not an integer tensor or the frames are not uint8.
            ShapeError: sizes or numbers of frames differ, or the flow's shape does not fit.
        """
        check_shapes(pred=(pred, "t h w"))
        check_integer(pred=pred)
        length = check_video(video) if len(pred) else len(video)
        if length != len(pred):
            raise ShapeError(f"video: expected {len(pred)} frames from pred, got {length}")
        for start in range(0, len(pred) - 1, PAIRS):
            stop = min(start + PAIRS + 1, len(pred))
            frames = video[start:stop]
            if frames.dtype != torch.uint8:
                raise DTypeError(f"video: expected uint8 frames, got {frames.dtype}")
            check_shapes(pred=(pred[start:stop], "t h w"), video=(frames, "t 3 h w"))
            self._update_clip(pred[start:stop], frames.to(pred.device).to(torch.float32) / 255)

    def _update_clip(self, pred: Tensor, frames: Tensor) -> None:
        with torch.no_grad():
            flow = self.flow(frames[:-1], frames[1:]).to(pred.device)
        check_shapes(frames=(frames[:-1], "n 3 h w"), flow=(flow, "n 2 h w"))
        pred = pred.to(torch.int64)
        is_class = (pred[:-1] >= 0) & (pred[:-1] < self.num_classes)
        reference = pred[:-1].masked_fill(~(is_class & inside_mask(flow)), IGNORE_INDEX)
        following = warp_labels(pred[1:], flow)
        counts = count_pairs(following, reference, num_classes=self.num_classes)  # the reference is classes and 255
        self.state = self.state.to(counts.device) + counts[: self.num_classes]

    def merge(self, other: TemporalConsistency) -> None:
        """Add what another metric has counted, as if its updates had been made here (the flows are not compared).

        Raises:
            ConfigError: ``other`` is another kind of metric or has another number of classes.
        """
        if not isinstance(other, TemporalConsistency) or other.num_classes != self.num_classes:
            raise ConfigError(f"other: expected {self!r} to merge with, got {other!r}")
        self.state = self.state + other.state.to(self.state.device)

    def compute(self) -> float:
        """TC in ``[0, 1]``; NaN where no pair was compared."""
        return float(class_iou(self.state).nanmean())

    def __repr__(self) -> str:
        return f"TemporalConsistency(num_classes={self.num_classes})"
