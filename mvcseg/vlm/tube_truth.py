"""What ground truth says about tubes, and what giving a tube another class does to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mvcseg.errors import DataError
from mvcseg.segmenter import IGNORE_INDEX, Video, check_label_video
from mvcseg.vlm.areas import areas, frame_of
from mvcseg.vlm.tubes import Tube


@dataclass(frozen=True)
class TubeTruth:
    """The labelled pixels of a tube.

    Attributes:
        counts: (class it has in the label maps, true class) -> pixels of all frames together; pixels without ground
            truth are left out.

    Example:
        >>> truth = TubeTruth({(1, 1): 10, (1, 2): 60, (3, 2): 5})  # a lake (2) labelled a river (1), and once the sea
        >>> truth.class_of([1, 2, 3]), truth.mended(2), truth.spoilt(2)
        (2, 65, 10)
    """

    counts: Mapping[tuple[int, int], int]

    @property
    def majority(self) -> int | None:
        """The class of more than half of the labelled pixels; None where there is none, or nothing is labelled."""
        pixels: Counter[int] = Counter()
        for (_, true), count in self.counts.items():
            pixels[true] += count
        for index, count in pixels.most_common(1):
            if 2 * count > pixels.total():
                return index
        return None

    def class_of(self, choices: Collection[int]) -> int | None:
        """The true class of the tube: `majority`, if it is one of ``choices``; of another no answer can be right."""
        return self.majority if self.majority in choices else None

    def mended(self, new_class: int) -> int:
        """Pixels that are wrong and become right where the whole tube becomes ``new_class``."""
        return sum(n for (before, true), n in self.counts.items() if before != true == new_class)

    def spoilt(self, new_class: int) -> int:
        """Pixels that are right and become wrong."""
        return sum(n for (before, true), n in self.counts.items() if before == true != new_class)


def tube_truths(
    labels: Video, truth: Video, tubes: Sequence[Tube], *, classes: Mapping[int, int], num_classes: int
) -> tuple[TubeTruth, ...]:
    """What ground truth says about each tube. One frame of each is in memory.

    Args:
        labels: integer ``(T, H, W)``, those in which the tubes were found.
        truth: integer ``(T, H, W)`` class ids, 255 where there is no ground truth; a tensor or lazily read.
        tubes: the tubes, of which a pixel is in one at most.
        classes: classes asked about and the group of each, as the tubes were found with.
        num_classes: K.

    Raises:
        DTypeError: truth is no integers.
        ShapeError: truth and labels differ in length.
        DataError: they differ in size, or truth holds a value that is neither a class nor 255; names the frame.
    """
    check_label_video(truth, length=len(labels))
    owners: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    for position, tube in enumerate(tubes):
        for frame, parts in tube.parts.items():
            owners.setdefault(frame, []).append((position, parts))
    counts: list[Counter[tuple[int, int]]] = [Counter() for _ in tubes]
    for frame in sorted(owners):
        before, true = frame_of(labels, frame), frame_of(truth, frame)
        if before.shape != true.shape:
            raise DataError(f"truth: frame {frame}: expected {before.shape} as the labels, got {true.shape}")
        is_known = true != IGNORE_INDEX
        stray = true[is_known & ((true < 0) | (true >= num_classes))]
        if stray.size:
            raise DataError(f"truth: frame {frame}: expected classes 0..{num_classes - 1} or 255, got {stray[0]}")
        found = areas(before, classes=classes)
        owner = np.full(int(found.max(initial=0)) + 1, -1)
        for position, parts in owners[frame]:
            owner[list(parts)] = position
        is_counted = is_known & (owner[found] >= 0)
        triples = np.stack([owner[found][is_counted], before[is_counted], true[is_counted]])
        for (position, old, index), pixels in zip(*_counted(triples.astype(np.int64)), strict=True):
            counts[position][old, index] += pixels
    return tuple(TubeTruth(dict(each)) for each in counts)


def _counted(triples: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> tuple[list[list[int]], list[int]]:
    values, pixels = np.unique(triples, axis=1, return_counts=True)
    return values.T.tolist(), pixels.tolist()
