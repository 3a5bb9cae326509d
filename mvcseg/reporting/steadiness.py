"""VC of a video that comes frame by frame: nothing but runs of equal labels is remembered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.ops.confusion import confusion_matrix
from mvcseg.segmenter import IGNORE_INDEX


class FrameByFrameConsistency:
    """What `mvcseg.metrics.clip_consistency` gives for a whole video, without holding it; and the same by class.

    For every pixel it counts for how many frames the ground truth, and ground truth and prediction both, have
    been what they were. A clip of n frames that ends here is steady where that count has reached n - 1.

    **By class**: of the pixels whose true class is c in all frames of a clip, the share whose prediction stays the same
    in all of them, over all clips together. (VC gives every clip the same weight; a class that is a few pixels in one
    clip and a crowd in the next would be judged by the few.) Whether the prediction is right is not asked.

    Args:
        clip_lengths: frames in a clip, each from 2 to 250.
        num_classes: K.
        class_clip: the clip length that the steadiness of classes is counted for, one of ``clip_lengths``.
    """

    def __init__(self, clip_lengths: Sequence[int], *, num_classes: int, class_clip: int) -> None:
        self.clip_lengths = tuple(clip_lengths)
        self.num_classes, self.class_clip = num_classes, class_clip
        self._before: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
        self._runs: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
        self._counts: dict[int, list[tuple[int, int]]] = {length: [] for length in self.clip_lengths}
        self._frames = 0
        self._by_class = torch.zeros(num_classes, 2, dtype=torch.int64)
        self._newest = torch.zeros(num_classes, 2, dtype=torch.int64)

    def update(self, pred: Tensor, raw: Tensor, truth: Tensor) -> None:
        """Add the next frame.

        Args:
            pred: predicted labels ``(H, W)`` uint8.
            raw: the mask's own values ``(H, W)`` uint8.
            truth: the same as class ids, 255 where there is none.
        """
        maps = raw.numpy(), pred.numpy()
        if self._before is None or self._runs is None:
            self._runs = np.zeros(raw.shape, dtype=np.uint8), np.zeros(raw.shape, dtype=np.uint8)
        else:
            labels_stay = maps[0] == self._before[0]
            both_stay = labels_stay & (maps[1] == self._before[1])
            for run, stays in zip(self._runs, (labels_stay, both_stay), strict=True):
                np.minimum(run + np.uint8(1), max(self.clip_lengths), out=run)
                run *= stays
        self._before = maps
        self._frames += 1
        self._by_class += self._newest  # the clip that ended a frame ago was not the last
        self._newest = torch.zeros_like(self._by_class)
        for length in self.clip_lengths:
            if self._frames < length:
                continue
            labelled, both = (run >= length - 1 for run in self._runs)
            self._counts[length].append((int(np.count_nonzero(labelled)), int(np.count_nonzero(both))))
            if length == self.class_clip:
                self._newest = self._count_classes(labelled, both, truth)

    def clips(self, length: int) -> Tensor:
        """Scores of the clips so far, ``(max(T - n, 0),)`` float64 by first frame; NaN where no label stays.

        As in the metric, the last possible clip is left out.
        """
        counts = torch.tensor(self._counts[length][:-1], dtype=torch.float64).view(-1, 2)
        return counts[:, 1] / counts[:, 0]

    def by_class(self) -> Tensor:
        """Steadiness of each class, ``(K,)`` float64; NaN for a class that stays nowhere for a whole clip."""
        counts = self._by_class.to(torch.float64)
        return counts[:, 1] / counts[:, 0]

    def _count_classes(self, labelled: NDArray[np.bool_], both: NDArray[np.bool_], truth: Tensor) -> Tensor:
        """For each class ``(K, 2)`` pixels whose label stays, and those of them whose prediction stays too."""
        looked_at = truth.masked_fill(torch.from_numpy(~labelled), IGNORE_INDEX)
        by_steadiness = confusion_matrix(torch.from_numpy(both.view(np.uint8)), looked_at, num_classes=self.num_classes)
        total = by_steadiness.sum(dim=1)
        return torch.stack((total, total - by_steadiness[:, 0]), dim=1)
