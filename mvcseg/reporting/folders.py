"""What a report is made from: folders of label maps, their names, and the classes they agree on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.data.label_maps import LabelFolder
from mvcseg.errors import ShapeError
from mvcseg.report.folders import MappedLabels as MappedLabels
from mvcseg.report.folders import folder_of as folder_of
from mvcseg.report.folders import listed_classes
from mvcseg.report.folders import to_class_ids as to_class_ids
from mvcseg.segmenter import IGNORE_INDEX, Video
from mvcseg.shapes import MAX_CLASSES

READ_AT_ONCE = 16
"""Label maps held in memory of a video that is read from end to end."""


def to_known(labels: Tensor, *, num_classes: int) -> Tensor:
    """Values that are no class become 255, which a page shows as nothing."""
    return labels.masked_fill(labels >= num_classes, IGNORE_INDEX)


def named_folders(predictions: Sequence[str | os.PathLike[str]], *, video: str) -> dict[str, Path]:
    """A name for each folder: its own, or its parent's where it is called like the video; numbered where two agree."""
    named: dict[str, Path] = {}
    for path in predictions:
        full = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links
        name = wanted = full.parent.name if full.name == video else full.name
        number = 2
        while name in named:
            name, number = f"{wanted} ({number})", number + 1
        named[name] = Path(path)
    return named


def check_size(labels: LabelFolder, size: tuple[int, int]) -> None:
    """Label maps must be of the frames' size."""
    if labels.size != size:
        raise ShapeError(
            f"{shown(labels.folder)}: expected label maps of {size[0]} x {size[1]} pixels like the frames, "
            f"got {labels.size[0]} x {labels.size[1]}"
        )


def agreed_classes(
    predictions: Sequence[str | os.PathLike[str]],
    folders: Mapping[str, Path],
    maps: Mapping[str, LabelFolder],
    raw: LabelFolder | None,
) -> list[str]:
    """The one list of classes that the predictions agree on; numbers where none has a list."""
    names = listed_classes([(Path(path), folder) for path, folder in zip(predictions, folders.values(), strict=True)])
    if names is not None:
        return names
    highest = max(_highest(each) for each in maps.values())
    if raw is not None:
        highest = max(highest, _highest(raw) - 1)
    return numbered(min(highest, MAX_CLASSES - 1) + 1)


def numbered(num_classes: int) -> list[str]:
    """Names of classes that nobody named."""
    return [f"class {index}" for index in range(num_classes)]


def _highest(labels: Video) -> int:
    """Largest value beside 255, 0 where there is none."""
    most = 0
    for start in range(0, len(labels), READ_AT_ONCE):
        clip = labels[start : start + READ_AT_ONCE]
        most = max(most, int(clip.masked_fill(clip == IGNORE_INDEX, 0).max()))
    return most
