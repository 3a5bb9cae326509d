"""What to do with a folder of frames and masks that is not in the VSPW layout: the commands that arrange it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from mvcseg.data.files import shown
from mvcseg.data.images import IMAGE_SUFFIXES

LAYOUT = "data/<video>/origin/<frame>.jpg and data/<video>/mask/<frame>.png"
"""Where frames and masks are expected below a data set's folder."""

_NUMBERED = re.compile(r"(.+)[_-]\d+")
_FRAMES = ("origin", "images", "image", "frames", "imgs", "img", "rgb", "jpegimages", "leftimg8bit")
_MASKS = ("mask", "masks", "labels", "label", "annotations", "annotation", "gt", "gtfine", "segmentation", "labelmaps")


def hint_for_root(root: str | os.PathLike[str]) -> str:
    """How to arrange a folder without ``data/<video>`` so that it is a data set; the layout alone where it is strange.

    Args:
        root: the folder.

    Returns:
        One line: the reason and a shell command.

    Example:
        >>> hint_for_root("nowhere")
        'arrange it as data/<video>/origin/<frame>.jpg and data/<video>/mask/<frame>.png'
    """
    path = Path(root)
    folders = _folders(path)
    has_videos = any(_images(folder / "origin") for folder in folders)
    if has_videos and path.name == "data":
        return f"this is the data folder itself: give the folder that holds it, {shown(path.absolute().parent)}"
    if has_videos:
        moves = 'mkdir -p data && for origin in */origin; do mv "${origin%/origin}" data; done'
        return f"move the videos into data: (cd {_quoted(path)} && {moves})"
    for base, target in ((path / "data", "."), (path, "data")):
        frames, masks = _named(_folders(base), _FRAMES), _named(_folders(base), _MASKS)
        if frames is not None:
            moves = _moves_by_video(frames, masks, target=target)
            told = "sort frames and masks by video" if _is_split(frames) else "if all frames are of one video"
            return f"{told}: (cd {_quoted(base)} && {moves})"
    return f"arrange it as {LAYOUT}"


def is_sorted_by_kind(names: Iterable[str]) -> bool:
    """Whether folders of these names hold frames here and masks there, instead of a video each.

    Example:
        >>> is_sorted_by_kind(["images", "masks"]), is_sorted_by_kind(["images", "street"])
        (True, False)
    """
    return all(name.lower() in (*_FRAMES, *_MASKS) for name in names)


def hint_for_video(folder: str | os.PathLike[str]) -> str:
    """How to arrange ``data/<video>`` without ``origin``.

    Args:
        folder: the video's folder.

    Returns:
        One line: the reason and a shell command.
    """
    path = Path(folder)
    folders = _folders(path)
    frames, masks = _named(folders, _FRAMES), _named(folders, _MASKS)
    if frames is not None:
        renames = [(frames.name, "origin"), *([] if masks is None else [(masks.name, "mask")])]
        moves = " && ".join(f"mv {shlex.quote(old)} {new}" for old, new in renames if old != new)
        return f"rename its folders: (cd {_quoted(path)} && {moves})"
    if images := _images(path):
        files = " ".join(f"*{suffix}" for suffix in sorted({image.suffix for image in images}))
        return f"move its frames into origin: (cd {_quoted(path)} && mkdir origin && mv {files} origin)"
    return "put its frames into origin/ and its label maps into mask/"


def _is_split(frames: Path) -> bool:
    """Whether frames are told apart by video, by folders or by their names."""
    return any(_images(folder) for folder in _folders(frames)) or _names_of_videos(frames) > 1


def _moves_by_video(frames: Path, masks: Path | None, *, target: str) -> str:
    """Moves for ``images/`` and ``masks/`` beside each other, with a folder a video in them or with the files."""
    images, labels = shlex.quote(frames.name), None if masks is None else shlex.quote(masks.name)
    if not any(_images(folder) for folder in _folders(frames)):
        if _names_of_videos(frames) > 1:
            moves = [_moves_by_name(images, target=target, kind="origin")]
            if labels is not None:
                moves.append(_moves_by_name(labels, target=target, kind="mask"))
            return "; ".join([*moves, f"rmdir {images}" if labels is None else f"rmdir {images} {labels}"])
        moves = [f"mkdir -p {target}/video1", f"mv {images} {target}/video1/origin"]
        return " && ".join(moves if labels is None else [*moves, f"mv {labels} {target}/video1/mask"])
    each = f'name=$(basename "$video"); mkdir -p "{target}/$name"; mv "$video" "{target}/$name/origin"'
    if labels is not None:
        each += f'; [ ! -d {labels}/"$name" ] || mv {labels}/"$name" "{target}/$name/mask"'
    rest = images if labels is None else f"{images} {labels}"
    return f"for video in {images}/*/; do {each}; done; rmdir {rest}"


def _names_of_videos(folder: Path) -> int:
    """How many videos the files of a folder name, as in ``<video>_<number>.jpg``; 0 where not all files do."""
    names = [_NUMBERED.fullmatch(image.stem) for image in _images(folder)]
    return 0 if None in names else len({name.group(1) for name in names if name is not None})


def _moves_by_name(folder: str, *, target: str, kind: str) -> str:
    """Moves of files ``<video>_<number>`` into the folder of their video."""
    place = f'"{target}/${{name%[_-]*}}/{kind}"'
    return f'for file in {folder}/*; do name=$(basename "$file"); mkdir -p {place}; mv "$file" {place}; done'


def _quoted(path: Path) -> str:
    return shlex.quote(shown(path))


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _images(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and entry.name[0] != "."]
    except OSError:
        return []


def _named(folders: list[Path], names: tuple[str, ...]) -> Path | None:
    found = {folder.name.lower(): folder for folder in folders}
    return next((found[name] for name in names if name in found), None)
