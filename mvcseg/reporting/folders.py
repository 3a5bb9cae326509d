"""What a report is made from: folders of label maps, their names, and the classes they agree on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.data.label_maps import CLASSES_FILE, LabelFolder, read_classes
from mvcseg.data.vspw import check_raw_values, class_ids
from mvcseg.errors import ConfigError, DataError, ShapeError
from mvcseg.segmenter import IGNORE_INDEX, Video
from mvcseg.shapes import MAX_CLASSES

READ_AT_ONCE = 16
"""Label maps held in memory of a video that is read from end to end."""


class MappedLabels:
    """Label maps changed as they are read."""

    def __init__(self, labels: Video, change: Callable[[Tensor], Tensor]) -> None:
        self.labels, self.change = labels, change

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice, /) -> Tensor:
        return self.change(self.labels[index])


def to_class_ids(raw: Tensor, *, num_classes: int, folder: Path) -> Tensor:
    """Raw mask values as class ids; a value outside the convention is an error that names the folder."""
    check_raw_values(raw, num_classes=num_classes, path=folder)
    return class_ids(raw)


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


def folder_of(path: str | os.PathLike[str], *, video: str) -> Path:
    """Where the label maps of a video are: in a folder of its name, else right here."""
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{shown(folder)}: expected a folder of label maps, got no folder")
    return folder / video if (folder / video).is_dir() else folder


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
    lists = {}
    for path, folder in zip(predictions, folders.values(), strict=True):
        for place in (folder, Path(path), folder.parent):
            if (place / CLASSES_FILE).is_file():
                lists[place] = read_classes(place)
                break
    if lists:
        (first, names), *others = lists.items()
        for place, other in others:
            if other != names:
                raise ConfigError(
                    f"predictions: expected one list of classes, got {len(names)} in {shown(first / CLASSES_FILE)} and "
                    f"{len(other)} others in {shown(place / CLASSES_FILE)}"
                )
        return names
    highest = max(_highest(each) for each in maps.values())
    if raw is not None:
        highest = max(highest, _highest(raw) - 1)
    return [f"class {index}" for index in range(min(highest, MAX_CLASSES - 1) + 1)]


def _highest(labels: Video) -> int:
    """Largest value beside 255, 0 where there is none."""
    most = 0
    for start in range(0, len(labels), READ_AT_ONCE):
        clip = labels[start : start + READ_AT_ONCE]
        most = max(most, int(clip.masked_fill(clip == IGNORE_INDEX, 0).max()))
    return most
