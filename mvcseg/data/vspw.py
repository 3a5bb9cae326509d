"""Data sets in the VSPW layout: ``data/<video>/{origin,mask}`` and a list of videos for every split.

A mask's own (raw) values are 0 and 255 for void and k + 1 for class k; `class_ids` turns them into labels.
Source: Miao et al., VSPW, CVPR 2021, and the data set's README.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import overload

from torch import Tensor

from mvcseg.data.class_list import PLAIN_CLASS_LIST_FILE, class_names_of
from mvcseg.data.files import shown
from mvcseg.data.frames import FrameFolder
from mvcseg.data.images import list_images
from mvcseg.data.label_maps import LabelFolder, png_size
from mvcseg.data.lazy_labels import LazyLabels
from mvcseg.errors import ConfigError, DataError
from mvcseg.segmenter import IGNORE_INDEX
from mvcseg.shapes import check_class_count, check_num_classes

MOST_NAMES = 20
"""File names that one error message lists."""


class VSPW(Sequence["VSPWVideo"]):
    """The videos of one split, in the order of its list; nothing is read until it is asked for.

    Args:
        root: folder that holds ``data/`` and the split's list.
        split: ``"val"`` for ``val.txt``: a video name a line; blank lines, hidden names and the kind of line
            end do not matter, nor does a missing last one.
        class_names: names of the classes 0 to K-1; None takes those of ``label_num_dic_final.json`` or
            ``classes.txt``, and VSPW's 124 where there is no such file.

    Attributes:
        root: as given.
        split: as given.
        class_names: names of the K classes.

    Raises:
        ConfigError: ``split`` is not a plain name, or there are no or more than 255 ``class_names``.
        DataError: the folder, the list, the class list or videos of the list are missing or contradict
            each other; names them.

    Example:
        >>> for video in VSPW(root, split="val"):  # doctest: +SKIP
        ...     miou.update(predict(video.frames), video.labels)
    """

    def __init__(self, root: str | os.PathLike[str], *, split: str, class_names: Sequence[str] | None = None) -> None:
        self.root, self.split = Path(root), split
        names = _read_split(self.root, split)
        self.class_names = class_names_of(root) if class_names is None else tuple(class_names)
        check_class_count(class_names=len(self.class_names))
        folders = [self.root / "data" / name for name in names]
        missing = [
            folder.name for folder in folders if not any((folder / kind).is_dir() for kind in ("origin", "mask"))
        ]
        if missing:
            raise listing_error(
                f"{shown(self.root / 'data')}: {len(missing)} of {len(names)} videos of {split}.txt are missing "
                "(no folder with origin/ or mask/)",
                missing,
            )
        self._videos = [VSPWVideo(folder, num_classes=self.num_classes) for folder in folders]

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self._videos)

    @overload
    def __getitem__(self, index: int) -> VSPWVideo: ...
    @overload
    def __getitem__(self, index: slice) -> list[VSPWVideo]: ...
    def __getitem__(self, index: int | slice) -> VSPWVideo | list[VSPWVideo]:
        """The video at a position, or the videos of a slice."""
        return self._videos[index]

    def __iter__(self) -> Iterator[VSPWVideo]:
        return iter(self._videos)


class VSPWVideo:
    """One video of a data set in the VSPW layout, read as it is asked for.

    Args:
        folder: folder with ``origin/`` (frames) and, where the video is labelled, ``mask/``.
        num_classes: K, 1 to 255; raw mask values are 0 to K and 255.

    Attributes:
        folder: as given.
        name: the folder's name.
        num_classes: K.

    Raises:
        ConfigError: ``num_classes`` is outside 1 to 255.
    """

    def __init__(self, folder: str | os.PathLike[str], *, num_classes: int) -> None:
        self.folder = Path(folder)
        self.name = self.folder.name
        self.num_classes = check_num_classes(num_classes)

    def __len__(self) -> int:
        return len(self.frame_names)

    def __repr__(self) -> str:
        return f"VSPWVideo({shown(self.folder)!r}, num_classes={self.num_classes})"

    @cached_property
    def frames(self) -> FrameFolder:
        """The frames: ``len``, and slices ``(t, 3, H, W)`` uint8 RGB.

        Raises:
            DataError: there is no ``origin/`` with images.
        """
        if not (self.folder / "origin").is_dir():
            raise DataError(f"{shown(self.folder / 'origin')}: expected a folder of frames, got none")
        return FrameFolder(self.folder)

    @property
    def frame_names(self) -> list[str]:
        """File stems of the frames, in order; of the masks where the video has no ``origin/``.

        Raises:
            DataError: the folder cannot be read.
        """
        if (self.folder / "origin").is_dir():
            return self.frames.frame_names
        return [path.stem for path in self.mask_paths]

    @property
    def has_masks(self) -> bool:
        """Whether the video is labelled."""
        return (self.folder / "mask").is_dir()

    @cached_property
    def mask_paths(self) -> list[Path]:
        """The mask files in the order of the frames; none where the video is not labelled.

        Raises:
            DataError: the folder cannot be read.
        """
        return list_images(self.folder / "mask", suffixes=(".png",)) if self.has_masks else []

    @property
    def raw_labels(self) -> Tensor | None:
        """The masks' own values, ``(T, H, W)`` uint8, 0 and 255 void; None without masks.

        A tensor whose slices read their frames only, and which otherwise reads the whole video at every access.

        Raises:
            DataError: frames and masks are not of the same names, or (when read) a mask is broken or of
                another size than the first.
        """
        folder = self._label_folder
        if folder is None:
            return None
        return LazyLabels((len(folder), *png_size(self.mask_paths[0])), folder.__getitem__)

    @property
    def labels(self) -> Tensor | None:
        """Class ids 0 to K-1 with 255 for void, ``(T, H, W)`` uint8; None without masks. Read like `raw_labels`.

        Raises:
            DataError: as `raw_labels`, or (when read) a mask holds a value that is neither 0 to K nor 255.
        """
        folder = self._label_folder
        if folder is None:
            return None
        return LazyLabels((len(folder), *png_size(self.mask_paths[0])), partial(self._read_labels, folder))

    @cached_property
    def _label_folder(self) -> LabelFolder | None:
        if not self.has_masks:
            return None
        masks, frames = {path.stem for path in self.mask_paths}, set(self.frame_names)
        if masks != frames:
            raise listing_error(
                f"{shown(self.folder)}: expected a mask for every frame and no other, got {len(frames - masks)} frames "
                f"without mask and {len(masks - frames)} masks without frame",
                [f"origin/{name}" for name in sorted(frames - masks)]
                + [f"mask/{name}" for name in sorted(masks - frames)],
            )
        return LabelFolder(self.folder, frame_names=self.frame_names)

    def _read_labels(self, folder: LabelFolder, index: slice) -> Tensor:
        raw = folder[index]
        paths = self.mask_paths[index]
        for path, frame in zip(paths, raw, strict=True):
            check_raw_values(frame, num_classes=self.num_classes, path=path)
        return class_ids(raw)


def class_ids(raw_labels: Tensor) -> Tensor:
    """Class ids of raw mask values: 0 (void) -> 255, 255 -> 255, k + 1 -> k.

    Args:
        raw_labels: uint8, any shape.

    Returns:
        uint8 of the same shape, 255 where void.

    Example:
        >>> import torch
        >>> class_ids(torch.tensor([0, 1, 124, 255], dtype=torch.uint8))
        tensor([255,   0, 123, 255], dtype=torch.uint8)
    """
    return (raw_labels - 1).masked_fill_(raw_labels == IGNORE_INDEX, IGNORE_INDEX)  # 0 - 1 is 255 in bytes


def check_raw_values(raw_labels: Tensor, *, num_classes: int, path: str | os.PathLike[str]) -> None:
    """Require raw mask values: 0 (void), 1 to K, 255 (void).

    Raises:
        DataError: another value occurs; names the file and the value.
    """
    stray = raw_labels[(raw_labels > num_classes) & (raw_labels != IGNORE_INDEX)]
    if len(stray):
        raise DataError(
            f"{shown(path)}: expected raw mask values 0 (void), 1..{num_classes} or 255, got {int(stray[0])} "
            f"in {len(stray)} pixels; is the class list the data set's?"
        )


def listing_error(summary: str, names: Sequence[str]) -> DataError:
    """One error for many files: a line of summary, then up to 20 names and how many there are in all."""
    lines = [summary, *(f"  {shown(name)}" for name in names[:MOST_NAMES])]
    if len(names) > MOST_NAMES:
        lines.append(f"  ... {len(names)} in all")
    return DataError("\n".join(lines))


def _read_split(root: Path, split: str) -> list[str]:
    if not split or split != Path(split).name or split.startswith("."):
        raise ConfigError(f"split: expected a plain name such as 'val' for val.txt, got {split!r}")
    path = root / f"{split}.txt"
    try:
        # Names are what the file system holds, which need not be UTF-8.
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    except FileNotFoundError as error:
        found = ", ".join(
            sorted(shown(other.stem) for other in root.glob("*.txt") if other.name != PLAIN_CLASS_LIST_FILE)
        )
        found = found or "none"
        raise DataError(f"{shown(path)}: no such list of videos; splits found in the folder: {found}") from error
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read: {error.strerror or error}") from error
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n")]
    names = [line for line in lines if line and not line.startswith(".")]
    if not names:
        raise DataError(f"{shown(path)}: expected video names, one a line, got none")
    strange = [name for name in names if name != Path(name).name or "\0" in name]
    if strange:
        raise DataError(f"{shown(path)}: expected names of folders in data/, got {shown(strange[0])}")
    repeated = [name for name, uses in Counter(names).items() if uses > 1]
    if repeated:
        raise listing_error(f"{shown(path)}: expected every video once, got {len(repeated)} more than once", repeated)
    return names
