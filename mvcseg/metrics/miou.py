"""Mean intersection over union as the VSPW scripts define it: one confusion matrix over everything.

Source: VSPW-dataset/VSPW_baseline ``utils.py``. One difference: a prediction that is no class (255, say) is
a miss of its true class here; the script counts it as another class of another pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mvcseg.errors import ConfigError
from mvcseg.ops.confusion import check_label_counts, count_pairs
from mvcseg.shapes import check_num_classes


class MeanIoU:
    """Mean over the classes present in the ground truth of intersection over union.

    All updates fill one confusion matrix, so neither the order nor the batching of updates matters, and a
    large frame weighs more than a small one. A class without a labelled pixel is left out of the mean; where
    it is predicted, it still costs the true class a miss.

    Args:
        num_classes: K, 1 to 255.

    Attributes:
        num_classes: K.
        state: ``(K, K + 1)`` int64 counts (row = true class, column = prediction, last column = predictions
            outside ``0..K-1``), on the CPU before the first update and where the newest predictions were after it;
            adding up the states of several processes merges them.

    Raises:
        ConfigError: ``num_classes`` is outside 1 to 255.

    Example:
        >>> miou = MeanIoU(num_classes=3)
        >>> miou.update(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 0, 0, 255]]))
        >>> round(miou.compute(), 4), miou.per_class()
        (0.6667, tensor([0.6667, nan, nan], dtype=torch.float64))
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = check_num_classes(num_classes)
        self.reset()

    def reset(self) -> None:
        """Forget every update."""
        self.state = torch.zeros(self.num_classes, self.num_classes + 1, dtype=torch.int64)
        self._unchecked: Tensor | None = None  # pixels by label that an accelerator has counted and nobody looked at

    def update(self, pred: Tensor, labels: Tensor) -> None:
        """Count the pixels of one or more frames.

        On the CPU an update with wrong labels raises and counts nothing. On an accelerator the host waits for
        nothing: counts stay there, and `compute`, `per_class` and `predicted_outside` raise what labels deserve.

        Args:
            pred: predicted class ids, any shape, integer dtype and device. A value outside ``0..K-1`` on a
                labelled pixel is a miss of the true class and no other class's false positive.
            labels: true class ids ``0..K-1`` (mapped, not raw), 255 = not counted; same shape.

        Raises:
            DTypeError: an argument is not an integer tensor.
            ShapeError: the shapes differ.
            DataError: ``labels`` hold a value that is neither a class nor 255.
        """
        counts = count_pairs(pred, labels, num_classes=self.num_classes)
        by_label = counts.sum(dim=1)
        if counts.device.type == "cpu":
            check_label_counts(by_label, num_classes=self.num_classes)
        else:
            self._keep_for_later(by_label)
        self.state = self.state.to(counts.device) + counts[: self.num_classes]

    def _keep_for_later(self, by_label: Tensor) -> None:
        seen = self._unchecked
        self._unchecked = by_label if seen is None else seen.to(by_label.device) + by_label

    def _check(self) -> None:
        if self._unchecked is not None:
            check_label_counts(self._unchecked, num_classes=self.num_classes)
            self._unchecked = None

    def merge(self, other: MeanIoU) -> None:
        """Add what another metric has counted, as if its updates had been made here.

        Raises:
            ConfigError: ``other`` is another kind of metric or has another number of classes.
        """
        if not isinstance(other, MeanIoU) or other.num_classes != self.num_classes:
            raise ConfigError(f"other: expected {self!r} to merge with, got {other!r}")
        self.state = self.state + other.state.to(self.state.device)
        if other._unchecked is not None:
            self._keep_for_later(other._unchecked)

    def compute(self) -> float:
        """Mean IoU in ``[0, 1]``; NaN where no pixel was labelled.

        Waits for the updates of an accelerator.

        Raises:
            DataError: labels that an accelerator has counted hold a value that is neither a class nor 255; again at
                every call, until `reset`.
        """
        return float(self.per_class().nanmean())

    def per_class(self) -> Tensor:
        """IoU of each class, ``(K,)`` float64; NaN for a class absent from the ground truth. Raises as `compute`."""
        self._check()
        return class_iou(self.state)

    @property
    def predicted_outside(self) -> int:
        """Labelled pixels whose prediction is outside ``0..K-1``. Raises as `compute`."""
        self._check()
        return int(self.state[:, -1].sum())

    def __repr__(self) -> str:
        return f"MeanIoU(num_classes={self.num_classes})"


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class from a confusion matrix.

    Args:
        confusion: ``(K, K + 1)`` counts, row = true class, last column = predictions that are no class.

    Returns:
        ``(K,)`` float64, NaN where the row is empty.
    """
    hits = confusion.diagonal().to(torch.float64)
    true = confusion.sum(dim=1)
    predicted = confusion[:, :-1].sum(dim=0)
    iou = hits / (true + predicted - hits)
    return iou.masked_fill(true == 0, torch.nan)
