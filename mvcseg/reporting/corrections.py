"""What a log of corrections says of the predictions of a page: whether it fits, whose it is, what it did."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.errors import DataError
from mvcseg.report.text import counted
from mvcseg.reporting.folders import READ_AT_ONCE
from mvcseg.segmenter import Video
from mvcseg.vlm.changes import Change

MOST_REGIONS = 100
"""Regions looked at one by one, those with most pixels."""
SEE_IT = (
    "The pictures show the predictions as given; add the corrected folder as a prediction to see and score the result."
)


@dataclass(frozen=True)
class Correction:
    """Which of the predictions a log is about, and what its changes did.

    Attributes:
        of: predictions whose classes in the regions are those of the log, as far as can be told.
        made: the prediction that is the only one of ``of`` but for the changes of the log, to the pixel; empty without.
        fixed: pixels that were wrong and are right in ``made``; None without ground truth or ``made``.
        broken: pixels that were right and are wrong.
        regions: the same by number of the change, where the pixels of a region can be told from those beside it.
    """

    of: tuple[str, ...]
    made: str = ""
    fixed: int | None = None
    broken: int | None = None
    regions: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def effect(self, number: int) -> dict[str, object]:
        """What one change did, for its row; empty where it cannot be told."""
        return dict(zip(("fixed", "broken"), self.regions.get(number, ()), strict=False))

    def sentence(self) -> str:
        """Whose the changes are and what they did, for the reader of a page."""
        if self.made and self.fixed is not None and self.broken is not None:
            return (
                f"The changes lead from {self.of[0]} to {self.made}: {counted(self.fixed, 'pixel')} went from wrong to "
                f"right, {self.broken:,} from right to wrong."
            )
        if self.made:
            return f"The changes lead from {self.of[0]} to {self.made}."
        if not self.of:
            return (
                f"The changes fit none of the predictions as they are given: their regions have other classes. {SEE_IT}"
            )
        whose = self.of[0] if len(self.of) == 1 else "one of the predictions"
        return f"The changes are of {whose}. {SEE_IT}"


def check_changes(
    changes: Sequence[Change], *, log: str | os.PathLike[str], size: tuple[int, int], num_classes: int
) -> None:
    """Refuse records of another video or of other classes.

    Args:
        changes: the records.
        log: their file.
        size: height and width of the frames.
        num_classes: K.

    Raises:
        DataError: a box lies beyond the frames or a class beyond the list; names the file.
    """
    height, width = size
    for change in changes:
        left, top, right, bottom = change.region
        if not (0 <= left <= right <= width and 0 <= top <= bottom <= height):
            raise DataError(
                f"{shown(log)}: expected regions within frames of {height} x {width} pixels, got "
                f"{list(change.region)}; is it the log of another video?"
            )
        named = [change.from_class, *(index for index, _ in change.shares)]
        for index in named if change.to_class is None else [*named, change.to_class]:
            if not 0 <= index < num_classes:
                raise DataError(
                    f"{shown(log)}: expected classes 0 to {num_classes - 1}, those of the predictions, got {index}; "
                    "is it the log of other predictions?"
                )


def check_class_names(changes: Sequence[Change], *, log: str | os.PathLike[str], class_names: Sequence[str]) -> None:
    """Refuse records that call a class otherwise than the predictions do.

    Raises:
        DataError: names the file, the class and both names.
    """
    for change in changes:
        expected = ", ".join(class_names[index] for index, _ in change.shares)
        pairs = [(expected, change.from_name)] if expected else []
        if change.to_class is not None:
            pairs.append((class_names[change.to_class], change.to_name or ""))
        for own, other in pairs:
            if own != other:
                raise DataError(
                    f"{shown(log)}: expected classes called {shown(own)} as in the predictions, got {shown(other)}; "
                    "is it the log of other predictions?"
                )


def find_correction(
    changes: Sequence[Change], predictions: Mapping[str, Video], truth: Video | None, *, num_classes: int
) -> Correction:
    """Find the prediction that a log is about, and the one in which its changes have been made.

    A prediction may be the one asked about where every region holds as many pixels of each class as the log says. It
    is, where another prediction differs from it in exactly the pixels, class by class, that the log changed.

    Args:
        changes: records of this video, checked by `check_changes`.
        predictions: label maps ``(T, H, W)`` by name.
        truth: ground truth, class ids or 255; None without.
        num_classes: K.
    """
    wanted = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for change in changes:
        for index, pixels in _changed(change):
            wanted[index, change.to_class] += pixels
    for before, after in itertools.permutations(predictions, 2) if int(wanted.sum()) else ():
        if _leads(predictions[before], predictions[after], wanted):
            if truth is None:
                return Correction((before,), after)
            return _judged(changes, (before, after), predictions, truth)
    largest = sorted(changes, key=lambda change: -change.pixels)[:MOST_REGIONS]
    return Correction(tuple(name for name, labels in predictions.items() if _holds(labels, largest)))


def _changed(change: Change) -> list[tuple[int, int]]:
    """Classes and pixels that a record changed."""
    if change.status != "changed":
        return []
    return [(index, pixels) for index, pixels in change.shares if index != change.to_class]


def _leads(before: Video, after: Video, wanted: Tensor) -> bool:
    """Whether exactly these pixels, by class before and after, differ."""
    num_classes, most = len(wanted), int(wanted.sum())
    found = torch.zeros(num_classes * num_classes, dtype=torch.int64)
    for start in range(0, len(before), READ_AT_ONCE):
        old, new = before[start : start + READ_AT_ONCE], after[start : start + READ_AT_ONCE]
        differs = old != new
        old, new = old[differs].long(), new[differs].long()
        if len(old) and int(torch.maximum(old, new).max()) >= num_classes:
            return False
        found += torch.bincount(num_classes * old + new, minlength=len(found))
        if int(found.sum()) > most:
            return False
    return torch.equal(found.view_as(wanted), wanted)


def _inside(change: Change) -> tuple[slice, slice]:
    left, top, right, bottom = change.region
    return slice(top, bottom), slice(left, right)


def _holds(labels: Video, changes: Sequence[Change]) -> bool:
    """Whether the box of every region holds enough pixels of its classes."""
    found = [dict.fromkeys((index for index, _ in change.shares), 0) for change in changes]
    for frame in range(len(labels)):
        here = [i for i, change in enumerate(changes) if change.frames[0] <= frame <= change.frames[1]]
        label_map = labels[frame : frame + 1][0] if here else None
        for i in here:
            assert label_map is not None
            for index in found[i]:
                found[i][index] += int((label_map[_inside(changes[i])] == index).sum())
    return all(
        counts[index] >= pixels
        for change, counts in zip(changes, found, strict=True)
        for index, pixels in change.shares
    )


def _judged(
    changes: Sequence[Change], pair: tuple[str, str], predictions: Mapping[str, Video], truth: Video
) -> Correction:
    """What the changes did by the ground truth, in all and by region."""
    order = sorted(range(len(changes)), key=lambda i: -sum(pixels for _, pixels in _changed(changes[i])))
    listed = [i for i in order if _changed(changes[i])][:MOST_REGIONS]
    counts = {i: [0, 0, 0] for i in listed}
    fixed = broken = 0
    for frame in range(len(truth)):
        old, new, true = (each[frame : frame + 1][0] for each in (*(predictions[name] for name in pair), truth))
        differs = old != new
        became = differs & (new == true)
        was = differs & (old == true)
        fixed, broken = fixed + int(became.sum()), broken + int(was.sum())
        for i in listed:
            if changes[i].frames[0] <= frame <= changes[i].frames[1]:
                box = _inside(changes[i])
                own = differs[box] & (new[box] == changes[i].to_class) & _among(old[box], changes[i])
                for at, mask in enumerate((own, own & became[box], own & was[box])):
                    counts[i][at] += int(mask.sum())
    told = {
        i: (right, wrong)
        for i, (pixels, right, wrong) in counts.items()
        if pixels == sum(number for _, number in _changed(changes[i]))
    }
    return Correction(pair[:1], pair[1], fixed, broken, told)


def _among(labels: Tensor, change: Change) -> Tensor:
    return torch.isin(labels.long(), torch.tensor([index for index, _ in _changed(change)]))
