"""What to do with a folder of frames and masks that is not in the VSPW layout: the commands that arrange it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from mvcseg.data.files import shown
from mvcseg.data.images import IMAGE_SUFFIXES

LAYOUT = "data/<video>/origin/<frame>.jpg and data/<video>/mask/<frame>.png"
"""Where frames and masks are expected below a data set's folder."""

_FRAMES = ("origin", "images", "image", "frames", "imgs", "img", "rgb", "jpegimages", "leftimg8bit")
_MASKS = ("mask", "masks", "labels", "label", "annotations", "annotation", "gt", "gtfine", "segmentation", "labelmaps")


def hint_for_root(root: str | os.PathLike[str]) -> str:
    """How to arrange a folder without ``data/<video>`` so that it is a data set; the layout alone where it is strange.

    Args:
        root: the folder.

    Returns:
        One line: the reason and shell commands, joined by ``&&``.

    Example:
        >>> hint_for_root("nowhere")
        'arrange it as data/<video>/origin/<frame>.jpg and data/<video>/mask/<frame>.png'
    """
    path = Path(root)
    folders = _folders(path)
    inner = _named(_folders(path / "data"), _FRAMES)
    if inner is not None:
        return _told("sort frames and masks by video", _by_video(path, inner, _named(_folders(path / "data"), _MASKS)))
    videos = [folder for folder in folders if _frames_in(folder) is not None]
    if videos and path.name == "data":
        return f"this is the data folder itself: give the folder that holds it, {shown(path.absolute().parent)}"
    if videos:
        return _told("move the videos into data", [_move_all(videos, path / "data")])
    frames = _named(folders, _FRAMES)
    if frames is None:
        return f"arrange it as {LAYOUT}"
    return _told("sort frames and masks by video", _by_video(path, frames, _named(folders, _MASKS)))


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
        One line: the reason and shell commands, joined by ``&&``.
    """
    path = Path(folder)
    folders = _folders(path)
    frames, masks = _named(folders, _FRAMES), _named(folders, _MASKS)
    if frames is not None:
        renames = [(frames, path / "origin"), *([] if masks is None else [(masks, path / "mask")])]
        return _told(
            "rename its folders",
            [f"mv {_quoted(old)} {_quoted(new)}" for old, new in renames if old.name != new.name],
        )
    images = _images(path)
    if images:
        target = _quoted(path / "origin")
        suffixes = " ".join(_quoted(path) + f"/*{suffix}" for suffix in sorted({image.suffix for image in images}))
        return _told("move its frames into origin", [f"mkdir {target} && mv {suffixes} {target}"])
    return "put its frames into origin/ and its label maps into mask/"


def _by_video(root: Path, frames: Path, masks: Path | None) -> list[str]:
    """Commands for ``images/`` and ``masks/`` beside each other, with a folder a video in them or with the files."""
    videos = [folder for folder in _folders(frames) if _images(folder)]
    moves = []
    for video in videos or [frames]:
        name = video.name if videos else "video1"
        target = root / "data" / name
        moves.append(f"mkdir -p {_quoted(target)} && mv {_quoted(video)} {_quoted(target / 'origin')}")
        own_masks = None if masks is None else (masks / name if videos else masks)
        if own_masks is not None and own_masks.is_dir():
            moves.append(f"mv {_quoted(own_masks)} {_quoted(target / 'mask')}")
    if videos and frames.parent.name == "data" and len(moves) <= 4:
        moves.append("rmdir " + " ".join(_quoted(folder) for folder in (frames, masks) if folder is not None))
    return moves[:5] + ([f"... (and so on for {len(videos)} videos)"] if len(moves) > 5 else [])


def _told(what: str, commands: list[str]) -> str:
    return f"{what}: {' && '.join(commands)}"


def _move_all(folders: list[Path], target: Path) -> str:
    names = " ".join(_quoted(folder) for folder in folders[:5]) + (" ..." if len(folders) > 5 else "")
    return f"mkdir {_quoted(target)} && mv {names} {_quoted(target)}"


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


def _frames_in(folder: Path) -> Path | None:
    """The frames of a folder that is a video; a folder of masks or frames of all videos is none."""
    inner = _named(_folders(folder), _FRAMES[:1])
    return inner if inner is not None and _images(inner) else None
