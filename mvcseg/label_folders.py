"""Label maps of one video on disk, as the commands read and write them, and the names of their classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from mvcseg import data
from mvcseg.data.class_list import read_class_list
from mvcseg.data.files import shown
from mvcseg.data.label_maps import CLASSES_FILE
from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import ConfigError, DataError
from mvcseg.prediction import NamedVideo


def predicted_labels(prediction: str | os.PathLike[str], video: NamedVideo) -> data.LabelFolder:
    """Label maps of a video, from a folder of them or one that holds a folder of the video's name.

    Raises:
        DataError: the folder is missing, or its label maps are not those of the video's frames.
    """
    folder = Path(prediction)
    own = folder / video.name
    return data.LabelFolder(own if own.is_dir() else folder, frame_names=video.frame_names)


def names_of_classes(
    predictions: Sequence[str | os.PathLike[str]], *, classes: str | os.PathLike[str] | None = None
) -> tuple[str, ...]:
    """Class names from a file, else from beside the predictions, else VSPW's.

    Raises:
        ConfigError: two predictions have other classes.
        DataError: a list cannot be read.
    """
    if classes is not None:
        return read_class_list(classes)
    lists: dict[Path, tuple[str, ...]] = {}
    for prediction in predictions:
        for path in (Path(prediction, CLASSES_FILE), Path(prediction).parent / CLASSES_FILE):
            if path.is_file():
                lists[path] = tuple(data.read_classes(path))
                break
    for path, names in lists.items():
        first, expected = next(iter(lists.items()))
        if names != expected:
            raise ConfigError(
                f"predictions: {shown(path)} lists other classes than {shown(first)}; --classes FILE names them for all"
            )
    return next(iter(lists.values()), VSPW_CLASSES)


def made_folder(path: str | os.PathLike[str]) -> Path:
    """A folder to write to, made if missing.

    Raises:
        DataError: it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot be made ({error.strerror or error})") from error
    return folder


def folder_for_labels(out: str | os.PathLike[str], video: NamedVideo) -> Path:
    """The folder for a video's label maps, made if missing.

    Raises:
        DataError: it holds label maps that are no frame of the video, or cannot be made.
    """
    folder = made_folder(Path(out, video.name))
    extra = sorted({path.stem for path in folder.glob("*.png")}.difference(video.frame_names))
    if extra:
        raise DataError(
            f"{shown(folder)}: holds {len(extra)} label maps that are no frame of this video, first "
            f"{shown(extra[0])}.png; remove them or choose another output folder"
        )
    return folder


def check_apart(out: str | os.PathLike[str], video: NamedVideo, *, read: Iterable[str | os.PathLike[str]]) -> None:
    """Require that label maps go to another folder than anything is read from, by whatever path either is named.

    Args:
        out: folder to write to; label maps go to the one of the video's name in it.
        video: the video; the folder of its frames, where it has one, is not written to either.
        read: folders of label maps that are read.

    Raises:
        DataError: ``out``, or the folder for label maps in it, is one of those that are read; names both.
    """
    frames = getattr(video, "folder", None)
    for source in [*map(Path, read), *([] if frames is None else [Path(frames)])]:
        for target in (Path(out, video.name), Path(out)):
            if target.is_dir() and source.is_dir() and target.samefile(source):
                raise DataError(
                    f"{shown(target)}: would be written to, and is what is read as {shown(source)}; choose another "
                    "output folder"
                )


def write_labels(out: str | os.PathLike[str], video: NamedVideo, labels: Tensor, *, class_names: Sequence[str]) -> None:
    """Write ``OUT/<video>/<frame>.png`` and ``OUT/classes.json``.

    Args:
        out: folder.
        video: names the files.
        labels: class ids ``(T, H, W)``.
        class_names: name of every class, by id.

    Raises:
        DataError: the folder holds other label maps, or cannot be written.
    """
    colours = data.class_colours(class_names)
    folder = folder_for_labels(out, video)
    for name, label_map in zip(video.frame_names, labels, strict=True):
        data.write_label_map(folder / f"{name}.png", label_map.cpu(), colours=colours)
    data.write_classes(out, class_names, colours)
