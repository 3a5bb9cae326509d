"""Folders of label maps, as pages show them: where a video's are, their numbers as class ids, names of the classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.data.label_maps import CLASSES_FILE, read_classes
from mvcseg.data.vspw import check_raw_values, class_ids
from mvcseg.errors import ConfigError, DataError
from mvcseg.segmenter import Video


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


def folder_of(path: str | os.PathLike[str], *, video: str) -> Path:
    """Where the label maps of a video are: in a folder of its name, else right here."""
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{shown(folder)}: expected a folder of label maps, got no folder")
    return folder / video if (folder / video).is_dir() else folder


def listed_classes(folders: Iterable[tuple[Path, Path]]) -> list[str] | None:
    """The one list of classes that predictions agree on, None where none has a list.

    Args:
        folders: of each prediction what was given, and where the label maps of the video are.

    Raises:
        ConfigError: two have other classes.
        DataError: a list cannot be read.
    """
    lists = {}
    for given, folder in folders:
        for place in (folder, given, folder.parent):
            if (place / CLASSES_FILE).is_file():
                lists[place] = read_classes(place)
                break
    if not lists:
        return None
    (first, names), *others = lists.items()
    for place, other in others:
        if other != names:
            raise ConfigError(
                f"predictions: expected one list of classes, got {len(names)} in {shown(first / CLASSES_FILE)} and "
                f"{len(other)} others in {shown(place / CLASSES_FILE)}"
            )
    return names
