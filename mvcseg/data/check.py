"""Every fault of a data set in the VSPW layout at once: what ``mvcseg data check`` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvcseg.data.class_list import CLASS_LIST_FILE, PLAIN_CLASS_LIST_FILE, class_list_of, class_names_of
from mvcseg.data.files import shown, write_aside
from mvcseg.data.images import IMAGE_SUFFIXES, list_images, natural_order, read_frame
from mvcseg.data.label_maps import read_label_map
from mvcseg.data.layout_hints import hint_for_root, hint_for_video, is_sorted_by_kind
from mvcseg.data.vspw import MOST_NAMES, VSPW, check_raw_values, listing_error
from mvcseg.errors import DataError
from mvcseg.segmenter import IGNORE_INDEX

SPLITS = ("train", "val", "test")
"""Names of the lists that are looked for, and written where there is none."""
MOST_ZEROS = 0.02
"""Zeros for each labelled pixel that are not worth a remark."""


@dataclass(frozen=True)
class CheckedFolder:
    """A data set without faults, in numbers; as text, what ``mvcseg data check`` prints.

    Attributes:
        folder: the data set.
        videos: number of videos.
        frames: number of frames.
        labelled: number of videos with masks.
        pixels: labelled pixels of every class by its name, 0 where it does not occur.
        void: pixels of the masks that have no class.
        zeros: those of them whose value is 0, not 255.
        class_list: name of the file with the data set's own classes; None where VSPW's are meant.
        splits: number of videos in every list.
        written: lists that the check wrote because there was none.
        unlisted: videos that stand in no list.
    """

    folder: Path
    videos: int
    frames: int
    labelled: int
    pixels: dict[str, int]
    void: int
    zeros: int
    class_list: str | None
    splits: dict[str, int]
    written: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()

    def __str__(self) -> str:
        total = sum(self.pixels.values())
        shares = sorted(((count, name) for name, count in self.pixels.items() if count), reverse=True)
        absent = [name for name, count in self.pixels.items() if not count]
        lists = ", ".join(f"{name}.txt {count}" for name, count in self.splits.items()) or "none"
        lines = [
            f"{shown(self.folder)}: no faults",
            f"videos   {self.videos}, {self.labelled} with masks; {self.frames} frames",
            f"lists    {lists}" + (" (written now)" if self.written else ""),
            f"classes  {len(self.pixels)} ({self.class_list or 'those of VSPW'})",
            *(f"  {100 * count / total:5.1f} %  {name}" for count, name in shares),
        ]
        if absent and shares:
            more = f", ... {len(absent)} in all" if len(absent) > MOST_NAMES else ""
            lines.append(f"  never    {', '.join(absent[:MOST_NAMES])}{more}")
        if self.labelled:
            lines.append(f"void     {100 * self.void / (self.void + total):.1f} % of all pixels of the masks")
        if self._may_count_from_zero():
            lines.append(
                f"note: do these masks count from 0? The value {len(self.pixels)} never occurs and 0 often does; here "
                f"0 is void, 1 is {next(iter(self.pixels))!r} and so on. If 0 is a class of yours, add 1 to the masks"
            )
        if self.class_list is None:
            lines.append(
                f"note: values were read as VSPW's classes, since there is neither {CLASS_LIST_FILE} nor "
                f"{PLAIN_CLASS_LIST_FILE} (one name a line, the first for the value 1)"
            )
        if self.unlisted:
            names = ", ".join(map(shown, self.unlisted[:5]))
            more = ", ..." if len(self.unlisted) > 5 else ""
            lines.append(f"in no list: {len(self.unlisted)} videos ({names}{more})")
        return "\n".join(lines)

    def _may_count_from_zero(self) -> bool:
        """Whether masks look as if their first class were 0: the last value is missing and much is void."""
        total = sum(self.pixels.values())
        last = list(self.pixels.values())[-1]
        return self.class_list is not None and total > 0 and not last and self.zeros > MOST_ZEROS * total


def check_folder(
    folder: str | os.PathLike[str], *, progress: Callable[[int, int], object] | None = None
) -> CheckedFolder:
    """Read every file of a data set in the VSPW layout and report all its faults together.

    Expected are ``data/<video>/origin/<frame>.jpg`` (or another image), ``data/<video>/mask/<frame>.png`` with the same
    stems and sizes and raw values 0 (void), 1 to K or 255, or no ``mask/`` at all, and
    ``label_num_dic_final.json`` or ``classes.txt`` (else VSPW's classes are meant). For some other layouts the
    message tells the commands that arrange them so.

    A sound data set without ``train.txt``, ``val.txt`` and ``test.txt`` gets them: of the videos with masks,
    by rising name, every fifth goes to val (of two to four the last) and the others to train; videos without masks
    go to test. A list that would be empty is not written.

    Args:
        folder: the data set.
        progress: called with videos done and videos in all.

    Returns:
        What the data set holds.

    Raises:
        DataError: there are faults; the message counts them and tells the first 20. `find_faults` gives all.
    """
    found = _inspect(Path(folder), progress)
    if found.faults:
        raise listing_error(f"{shown(folder)}: {len(found.faults)} faults", found.faults)
    names, class_list = found.class_names, class_list_of(folder)
    splits, written = found.splits, False
    if not splits:
        splits, written = _split(found.labelled, found.unlabelled), True
        for name, videos in splits.items():
            _write_list(Path(folder, f"{name}.txt"), videos)
    listed = {video for videos in splits.values() for video in videos}
    return CheckedFolder(
        folder=Path(folder),
        videos=len(found.labelled) + len(found.unlabelled),
        frames=found.frames,
        labelled=len(found.labelled),
        pixels={name: int(found.pixels[index + 1]) for index, name in enumerate(names)},
        void=int(found.pixels[0] + found.pixels[IGNORE_INDEX]),
        zeros=int(found.pixels[0]),
        class_list=None if class_list is None else class_list.name,
        splits={name: len(videos) for name, videos in splits.items()},
        written=tuple(splits) if written else (),
        unlisted=tuple(video for video in (*found.labelled, *found.unlabelled) if video not in listed),
    )


def find_faults(folder: str | os.PathLike[str]) -> list[str]:
    """All faults of a data set in the VSPW layout, one line each; none where it is sound. Writes nothing.

    Example:
        >>> find_faults("nowhere")
        ['nowhere: no such folder']
    """
    return _inspect(Path(folder), None).faults


@dataclass
class _Found:
    faults: list[str] = field(default_factory=list)
    class_names: tuple[str, ...] = ()
    splits: dict[str, list[str]] = field(default_factory=dict)
    labelled: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    frames: int = 0
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))


def _inspect(root: Path, progress: Callable[[int, int], object] | None) -> _Found:
    found = _Found()
    try:
        with os.scandir(root / "data") as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        names = []
    if not root.is_dir():
        found.faults.append(f"{shown(root)}: no such folder")
        return found
    if is_sorted_by_kind(names) and not any((root / "data" / name / "origin").is_dir() for name in names):
        found.faults.append(
            f"{shown(root / 'data')}: expected a folder with one folder a video, got none; {hint_for_root(root)}"
        )
        return found
    try:
        found.class_names = class_names_of(root)
    except DataError as error:
        found.faults.append(str(error))
    num_classes = len(found.class_names) or 254  # with a broken list no value can be told to be wrong
    _inspect_lists(root, found)
    with ThreadPoolExecutor(max_workers=max(2, min(8, os.cpu_count() or 1))) as pool:
        for done, name in enumerate(sorted(names, key=natural_order)):
            if progress is not None:
                progress(done, len(names))
            _inspect_video(root / "data" / name, num_classes, found, pool)
    if progress is not None:
        progress(len(names), len(names))
    if found.labelled and not found.faults and not found.pixels[1:IGNORE_INDEX].any():
        found.faults.append(
            f"{shown(root / 'data')}: no pixel of any mask has a class, all values are 0 or {IGNORE_INDEX} (void); "
            "the first class is the value 1"
        )
    return found


def _inspect_lists(root: Path, found: _Found) -> None:
    for split in SPLITS:
        if (root / f"{split}.txt").exists():
            try:
                videos = VSPW(root, split=split, class_names=found.class_names or ("any",))
            except DataError as error:
                found.faults.append(" ".join(str(error).split()))
                found.splits[split] = []
            else:
                found.splits[split] = [video.name for video in videos]


def _inspect_video(folder: Path, num_classes: int, found: _Found, pool: ThreadPoolExecutor) -> None:
    if not (folder / "origin").is_dir():
        found.faults.append(f"{shown(folder)}: has no folder origin; {hint_for_video(folder)}")
        return
    frames = _images(folder / "origin", None, found)
    has_masks = (folder / "mask").is_dir()
    masks = _images(folder / "mask", (".png",), found) if has_masks else {}
    (found.labelled if has_masks else found.unlabelled).append(folder.name)
    found.frames += len(frames)
    if frames and masks and not frames.keys() & masks.keys():
        frame, mask = next(iter(frames.values())), next(iter(masks.values()))
        found.faults.append(
            f"{shown(folder)}: no mask has the name of a frame (the first are {shown(frame.name)} and "
            f"{shown(mask.name)}); a mask is named like its frame, with .png"
        )
    elif frames and masks:
        found.faults += [f"{shown(frames[stem])}: has no mask" for stem in frames if stem not in masks]
        found.faults += [f"{shown(masks[stem])}: has no frame" for stem in masks if stem not in frames]

    def size_of_frame(path: Path) -> tuple[int, ...] | str:
        try:
            return tuple(read_frame(path).shape[1:])
        except DataError as error:
            return str(error)

    def counts_of_mask(path: Path) -> tuple[tuple[int, ...], NDArray[np.int64]] | str:
        try:
            labels = read_label_map(path)
            check_raw_values(labels, num_classes=num_classes, path=path)
        except DataError as error:
            return str(error)
        return tuple(labels.shape), np.bincount(labels.numpy().ravel(), minlength=256)

    expected: tuple[int, ...] | None = None
    like = ""
    for path, size in zip(frames.values(), pool.map(size_of_frame, frames.values()), strict=True):
        if isinstance(size, str):
            found.faults.append(size)
        elif expected is None:
            expected, like = size, path.name
        elif size != expected:
            found.faults.append(_size_fault(path, size, expected, like))
    for path, counted in zip(masks.values(), pool.map(counts_of_mask, masks.values()), strict=True):
        if isinstance(counted, str):
            found.faults.append(counted)
            continue
        size, counts = counted
        found.pixels += counts
        if expected is None:
            expected, like = size, path.name
        elif size != expected:
            found.faults.append(_size_fault(path, size, expected, like))


def _images(folder: Path, suffixes: tuple[str, ...] | None, found: _Found) -> dict[str, Path]:
    try:
        paths = list_images(folder) if suffixes is None else list_images(folder, suffixes=suffixes)
    except DataError as error:
        found.faults.append(str(error))
        return {}
    if not paths:
        others = [] if suffixes is None else list_images(folder, suffixes=IMAGE_SUFFIXES)
        got = f"{len(others)} other images ({shown(others[0].name)}, ...)" if others else "none"
        found.faults.append(
            f"{shown(folder)}: expected {'images' if suffixes is None else 'label maps (.png)'}, got {got}"
            + ("; JPEG and its like change the values" if others else "")
        )
    return {path.stem: path for path in paths}


def _size_fault(path: Path, size: tuple[int, ...], expected: tuple[int, ...], like: str) -> str:
    return f"{shown(path)}: expected {expected[0]} x {expected[1]} pixels like {shown(like)}, got {size[0]} x {size[1]}"


def _split(labelled: Sequence[str], unlabelled: Sequence[str]) -> dict[str, list[str]]:
    held_out = set(labelled[4::5]) or set(labelled[1:][-1:])
    lists = {
        "train": [video for video in labelled if video not in held_out],
        "val": [video for video in labelled if video in held_out],
        "test": list(unlabelled),
    }
    return {name: videos for name, videos in lists.items() if videos}


def _write_list(path: Path, videos: Sequence[str]) -> None:
    with write_aside(path) as part:
        part.write_bytes(b"".join(os.fsencode(video) + b"\n" for video in videos))
