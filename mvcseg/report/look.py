"""One look in a notebook: a video under its label maps, as a small page in a frame of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.data.files import write_text
from mvcseg.data.io import open_video
from mvcseg.data.label_maps import LabelFolder
from mvcseg.data.palette import class_colours
from mvcseg.data.vspw import class_ids
from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.flow import FlowEstimator
from mvcseg.report.arrays import has_channels_last, to_channels, to_tensor
from mvcseg.report.folders import MappedLabels, folder_of, listed_classes, to_class_ids
from mvcseg.report.media import check_limits, sample_positions
from mvcseg.report.page import PageVideo, write_page
from mvcseg.report.text import counted, printable
from mvcseg.segmenter import IGNORE_INDEX, Video
from mvcseg.shapes import MAX_CLASSES, check_integer, check_positive

Frames: TypeAlias = "Tensor | NDArray[Any] | Video | str | os.PathLike[str]"
"""A video: uint8 ``(T, 3, H, W)`` or ``(T, H, W, 3)`` in memory or lazily read, one such frame, or a path."""
Labels: TypeAlias = "Tensor | NDArray[Any] | Video | str | os.PathLike[str]"
"""Label maps: class ids or 255, ``(T, H, W)`` in memory or lazily read, one map ``(H, W)``, or a folder."""


class Look:
    """A page that a notebook shows in a frame, and that can be saved.

    Attributes:
        html: the whole page; it needs nothing beside it.
        height: of the frame, in CSS pixels.
    """

    def __init__(self, html: str, *, summary: str, height: int) -> None:
        self.html, self.height = html, height
        self._summary = summary

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page as a file that opens in a browser; returns its path.

        Raises:
            DataError: it cannot be written.
        """
        write_text(path, self.html)
        return Path(path)

    def _repr_html_(self) -> str:
        # sandboxed without its own origin: the page's script cannot reach the notebook around it
        return (
            f'<iframe srcdoc="{escape(self.html, quote=True)}" sandbox="allow-scripts" title="{escape(self._summary)}" '
            f'style="width:100%;height:{self.height}px;border:1px solid #8888;border-radius:6px"></iframe>'
        )

    def __repr__(self) -> str:
        return f"<Look: {self._summary}; a notebook shows it, .save('look.html') writes it>"


def show(
    video: Frames,
    labels: Labels | Mapping[str, Labels],
    *,
    truth: Labels | None = None,
    class_names: Sequence[str] | None = None,
    colours: Tensor | NDArray[np.uint8] | None = None,
    flow: FlowEstimator | None = None,
    fps: float | None = None,
    max_frames: int = 60,
    max_side: int = 480,
    max_bytes: int = 1_500_000,
    height: int = 720,
) -> Look:
    """A video under its label maps, to look at in a notebook: the player of `write_page` in a frame.

    A notebook keeps what it shows, so the page is small: at most ``max_frames`` evenly spaced frames, scaled down until
    they fit ``max_bytes``. The page says so where it leaves frames out.

    Args:
        video: uint8 RGB ``(T, 3, H, W)`` or ``(T, H, W, 3)``, a tensor, an array or anything with ``len`` and slices
            that give such; one frame without T; or the path of a video file or of a folder of frames.
        labels: class ids 0..K-1 or 255 of any integer dtype, ``(T, H, W)``, likewise in memory or lazily read; one map
            ``(H, W)`` for one frame; the path of a folder of label maps, or of one that holds such a folder of the
            video's name; or several of these by name.
        truth: ground truth; shows errors too. In class ids, 255 where there is none, as ``labels``, but a *path* is a
            folder of raw ids (0 void, 1 to K, 255), as VSPW stores them and ``mvcseg report --labels`` reads them; a
            folder of class ids is given as ``LabelFolder(path)``.
        class_names: names of the K classes; None takes those of the ``classes.json`` beside label maps given as a path,
            else numbers them up to the highest that is shown.
        colours: RGB of each class, uint8 ``(K, 3)``; None gives every class one of its own.
        flow: says where pixels went between two frames (`mvcseg.flow.FarnebackFlow()`), to show what flickers.
        fps: frames per second of playback; None takes the video's own, else 15.
        max_frames: most frames shown.
        max_side: longer side in pixels that frames are scaled down to.
        max_bytes: bound on the page.
        height: of the frame in the notebook, in CSS pixels.

    Returns:
        What a notebook shows when it is the last line of a cell; `Look.save` writes it as a file.

    Raises:
        ShapeError: frames and label maps do not fit each other.
        DTypeError: frames are not uint8, label maps no integers, or an argument is none of the above.
        ConfigError: no frame or no label map, a label that is no class, names and colours that differ in number, two
            folders with other classes, a limit below 1, ``max_side`` above 16383, or ``fps`` not above 0.
        DataError: a file is missing or broken, or a raw id is above K; names it.

    Example:
        >>> frames = torch.zeros(2, 3, 32, 48, dtype=torch.uint8)
        >>> show(frames, torch.zeros(2, 32, 48, dtype=torch.uint8), class_names=["sky"])
        <Look: 2 frames of video, 1 prediction; a notebook shows it, .save('look.html') writes it>
    """
    check_limits(max_side=max_side, max_frames=max_frames, max_bytes=max_bytes)
    check_positive(height=height)
    opened = open_video(video) if isinstance(video, (str, os.PathLike)) else video
    name, stems, own_fps = (getattr(opened, key, None) for key in ("name", "frame_names", "fps"))
    name = name if isinstance(name, str) else "video"  # a tensor has a name of its own, None
    given = labels if isinstance(labels, Mapping) else {"prediction": labels}
    if not given:
        raise ConfigError("labels: expected at least one label map, got an empty mapping")
    folders = {key: (Path(each), folder_of(each, video=name)) for key, each in given.items() if _is_path(each)}
    opened_maps = {key: LabelFolder(folder, frame_names=stems) for key, (_, folder) in folders.items()}
    maps = {key: _Labels(opened_maps.get(key, each), name=f"labels[{key!r}]") for key, each in given.items()}
    raw = LabelFolder(folder_of(truth, video=name), frame_names=stems) if _is_path(truth) else None
    true = None if truth is None else _Labels(truth if raw is None else MappedLabels(raw, class_ids), name="truth")
    frames = _Frames(opened, labels=next(iter(maps.values())))
    if class_names is None:
        class_names = listed_classes(folders.values())
    if class_names is None:
        everything = [*maps.values(), *([] if true is None else [true])]
        count = _highest(everything, max_frames) + 1 if colours is None else len(colours)
        class_names = [f"class {index}" for index in range(count)]
    if raw is not None:  # now that K is known, what is above it is named as the file has it
        change = partial(to_class_ids, num_classes=len(class_names), folder=raw.folder)
        true = _Labels(MappedLabels(raw, change), name="truth")
    page = PageVideo(
        name=name,
        frames=frames,
        predictions=maps,
        labels=true,
        frame_names=stems,
        fps=own_fps if fps is None else fps,
        flow=flow,
    )
    summary = f"{counted(len(frames), 'frame')} of {printable(page.name)}, {counted(len(maps), 'prediction')}"
    with TemporaryDirectory() as folder:
        path = write_page(
            Path(folder, "look.html"),
            title=page.name,
            videos=[page],
            class_names=class_names,
            colours=class_colours(class_names) if colours is None else colours,
            max_frames=max_frames,
            max_side=max_side,
            max_bytes=max_bytes,
        )
        return Look(path.read_text(encoding="utf-8"), summary=summary, height=height)


class _Read:
    """Frames or label maps of any kind, slice by slice as tensors."""

    def __init__(self, values: Any, *, name: str, axes: int) -> None:
        if isinstance(values, (list, tuple)) or not isinstance(values, Video):
            hint = "; np.stack or torch.stack makes one of a list" if isinstance(values, (list, tuple)) else ""
            raise DTypeError(f"{name}: expected a tensor, an array or a path, got {type(values).__name__}{hint}")
        self.name = name
        # one picture is a video of one
        self._values = values[None] if isinstance(values, (Tensor, np.ndarray)) and values.ndim == axes - 1 else values
        self._change: Callable[[Tensor], Tensor] = lambda clip: clip
        if len(self) == 0:
            raise ConfigError(f"{name}: expected at least one frame, got none")
        self.shape = tuple(self[:1].shape)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: slice, /) -> Tensor:
        return self._change(to_tensor(self._values[index], argument=self.name))


class _Labels(_Read):
    def __init__(self, values: Any, *, name: str) -> None:
        super().__init__(values, name=name, axes=3)
        if len(self.shape) != 3:
            hint = "; logits become labels by argmax over their classes" if len(self.shape) == 4 else ""
            raise ShapeError(f"{name}: expected (t h w), got {self.shape}{hint}")
        check_integer(**{name: self[:1]})


class _Frames(_Read):
    def __init__(self, values: Any, *, labels: _Labels) -> None:
        super().__init__(values, name="video", axes=4)
        dtype = self[:1].dtype
        if dtype != torch.uint8:
            hint = "; (frames * 255).round() as uint8 where they are in [0, 1]" if dtype.is_floating_point else ""
            raise DTypeError(f"video: expected uint8 in 0..255, got {dtype}{hint}")
        are_last = has_channels_last(self.shape, labels.shape, argument="video")
        self._change = lambda clip: to_channels(clip, are_last=are_last)


def _is_path(value: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(value, (str, os.PathLike))


def _highest(maps: list[_Labels], max_frames: int) -> int:
    """Largest class id in the frames that are shown, 0 where there is none."""
    most = 0
    for labels in maps:
        for position in sample_positions(len(labels), max_frames):
            shown = labels[position : position + 1]
            most = max(most, int(shown.masked_fill(shown == IGNORE_INDEX, 0).max()))
    return min(most, MAX_CLASSES - 1)
