"""Several data sets as one: the report's train + val step, and other data sets whose classes are mapped to ours."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mvcseg.data.clip import LabelledVideo
from mvcseg.data.files import shown
from mvcseg.data.frames import FrameFolder
from mvcseg.data.lazy_labels import LazyLabels
from mvcseg.data.vspw import VSPW, VSPWVideo, listing_error
from mvcseg.errors import ConfigError, DataError
from mvcseg.segmenter import IGNORE_INDEX
from mvcseg.shapes import check_class_count


@dataclass(frozen=True)
class VideoSet:
    """One split of one data set in the VSPW layout.

    Attributes:
        root: the data set's folder.
        split: ``"train"`` for the videos of ``train.txt``.
        classes: name of each of its classes to the name it has in the joined set, or to None where it is to be void,
            like every class that is not named. None where all names are the joined set's already, in any order.
    """

    root: str | os.PathLike[str]
    split: str = "train"
    classes: Mapping[str, str | None] | None = None


def joined_videos(sets: Sequence[VideoSet], *, class_names: Sequence[str]) -> list[LabelledVideo]:
    """The labelled videos of all sets, their labels in the class order of the joined set.

    Videos without masks are left out. Videos of the first set's folder keep their names, those of other folders get
    the folder before theirs. Labels are mapped as they are read.

    Args:
        sets: one or more.
        class_names: names of the joined set's classes 0 to K-1, usually those of the first set.

    Returns:
        The videos, set by set, each in the order of its list.

    Raises:
        ConfigError: a map names a class that a set or the joined set does not have (the nearest is told), maps
            nothing, or is missing where a set has classes of its own; or there are no or more than 255 classes.
        DataError: a set is missing or broken, has no labelled video, or holds a video that a set before it holds too.

    Example:
        >>> both = [VideoSet(root, split="train"), VideoSet(root, split="val")]  # doctest: +SKIP
        >>> clips = ClipDataset(joined_videos(both, class_names=names), clip_length=5)  # doctest: +SKIP
    """
    if not sets:
        raise ConfigError("sets: expected at least one data set, got none")
    check_class_count(class_names=len(class_names))
    first_root = Path(sets[0].root).resolve()
    seen: dict[tuple[Path, str], VideoSet] = {}
    videos: list[LabelledVideo] = []
    for video_set in sets:
        root = Path(video_set.root).resolve()
        found = VSPW(video_set.root, split=video_set.split)
        class_ids = _class_ids(video_set, found.class_names, tuple(class_names))
        labelled = [video for video in found if video.has_masks]
        if not labelled:
            raise DataError(
                f"{shown(found.root)}: no video of {video_set.split}.txt has a mask/ folder to learn from or score"
            )
        _refuse_repeats(seen, video_set, root, labelled)
        for video in labelled:
            name = video.name if root == first_root else f"{shown(found.root)}/{video.name}"
            is_ours = class_ids == tuple(range(len(class_names)))
            videos.append(
                video if is_ours and name == video.name else MappedVideo(video, name=name, class_ids=class_ids)
            )
    return videos


class MappedVideo:
    """A video under another name and with other class ids; labels are mapped as they are read.

    Args:
        video: the video, with masks.
        name: its new name.
        class_ids: new class id of each of its classes, 255 for void.

    Attributes:
        name: as given.
    """

    def __init__(self, video: VSPWVideo, *, name: str, class_ids: Sequence[int]) -> None:
        self.name = name
        self._video = video
        self._table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        self._table[: len(class_ids)] = class_ids

    def __repr__(self) -> str:
        return f"MappedVideo({self._video!r}, name={self.name!r})"

    @property
    def frames(self) -> FrameFolder:
        """The video's frames, as they are."""
        return self._video.frames

    @property
    def labels(self) -> Tensor | None:
        """Class ids of the joined set with 255 for void, ``(T, H, W)`` uint8, read when their values are needed."""
        labels = self._video.labels
        return None if labels is None else LazyLabels(labels.shape, partial(self._read_labels, labels))

    def _read_labels(self, labels: Tensor, index: slice) -> Tensor:
        return torch.from_numpy(self._table[labels[index].numpy()])


def _class_ids(video_set: VideoSet, own: tuple[str, ...], joined: tuple[str, ...]) -> tuple[int, ...]:
    """Class id in the joined set of each class of a set, 255 where it has none."""
    place = f"classes of {shown(video_set.root)}"
    if video_set.classes is None:
        strange = [name for name in own if name not in joined]
        if strange:
            names = ", ".join(map(shown, strange[:5])) + (", ..." if len(strange) > 5 else "")
            raise ConfigError(
                f"{place}: {len(strange)} of {len(own)} are none of the joined set's ({names}); "
                'map them: {"its name": "our name"}'
            )
        return tuple(joined.index(name) for name in own)
    for name, target in video_set.classes.items():
        _require_known(name, own, place=place, of="the data set")
        if target is not None:
            _require_known(target, joined, place=place, of="the joined set")
    targets = [video_set.classes.get(name) for name in own]
    if all(target is None for target in targets):
        raise ConfigError(f"{place}: expected a map of at least one class, got none; its videos would teach nothing")
    return tuple(IGNORE_INDEX if target is None else joined.index(target) for target in targets)


def _require_known(name: str, names: Sequence[str], *, place: str, of: str) -> None:
    if name not in names:
        nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0.0)[0]
        raise ConfigError(f"{place}: {of} has no class {shown(str(name))}; did you mean {shown(nearest)}?")


def _refuse_repeats(
    seen: dict[tuple[Path, str], VideoSet], video_set: VideoSet, root: Path, videos: Sequence[VSPWVideo]
) -> None:
    repeated = [video.name for video in videos if (root, video.name) in seen]
    if repeated:
        before = seen[root, repeated[0]]
        raise listing_error(
            f"{shown(video_set.root)}: {len(repeated)} videos of {video_set.split}.txt stand in {before.split}.txt "
            "too and would be joined twice",
            repeated,
        )
    seen.update(((root, video.name), video_set) for video in videos)
