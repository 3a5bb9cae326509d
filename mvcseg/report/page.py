"""One self-contained HTML page: scores, frames beside ground truth and predictions, classes, changes.

The page opens from disk, offline and on a phone: frames, label maps, style and script are inside the file,
and its content security policy forbids every request. Text from outside (names, answers) is shown as text.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.data.files import write_aside
from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.flow import FlowEstimator
from mvcseg.report.changes import change_list
from mvcseg.report.curves import curve_figure
from mvcseg.report.media import EmbeddedVideo, check_limits, embed_picture, embed_video, without_pictures
from mvcseg.report.rendering import render
from mvcseg.report.tables import class_table, score_table
from mvcseg.report.text import counted, frame_range
from mvcseg.report.worst import worst_list
from mvcseg.segmenter import Video
from mvcseg.shapes import check_class_count

GROUND_TRUTH = "ground truth"
"""Name under which a page shows the ground truth."""
VSPW_FPS = 15.0
"""Frames per second of VSPW, and of a video that does not say."""


@dataclass(frozen=True)
class PageVideo:
    """One video of a page, with the label maps to show over it.

    Attributes:
        name: shown as its heading.
        frames: uint8 RGB ``(T, 3, H, W)``, a tensor or anything with ``len`` and slices that give such tensors.
        predictions: label maps by name, in the order shown; each ``(T, H, W)`` class ids 0..K-1 or 255 of any
            integer dtype, a tensor or lazily read.
        labels: ground truth in class ids 0..K-1, 255 where there is none, ``(T, H, W)``; None without.
        frame_names: name of each frame; None numbers them from 1.
        fps: frames per second of playback, above 0; None plays at VSPW's 15.
        changes: what a vision-language model was asked and what came of it, one row a region: ``frames``
            (first, last; from 0, both included), ``region`` (left, top, right, bottom in pixels of the frame, right and
            bottom excluded; or None), ``from`` and ``to`` (class id or name; or None), ``question``, ``answer``,
            ``reason``, ``status``, ``pixels``, ``shares`` and ``to_class``, from which the pixels changed are counted.
            The rows of `mvcseg.vlm.Change` are such; keys left out show as empty. ``fixed`` and ``broken`` add how many
            pixels went from wrong to right, and the other way.
        flow: says where pixels went between two frames; where given, the page shows where each prediction flickers
            (`flicker`) in the frames shown. None without.
        changes_note: a paragraph above the list of changes: whose they are, what they did.
    """

    name: str
    frames: Video
    predictions: Mapping[str, Video]
    labels: Video | None = None
    frame_names: Sequence[str] | None = None
    fps: float | None = None
    changes: Sequence[Mapping[str, object]] = ()
    flow: FlowEstimator | None = None
    changes_note: str = ""


def write_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    videos: Sequence[PageVideo],
    class_names: Sequence[str],
    colours: Tensor | NDArray[np.uint8],
    scores: Sequence[Mapping[str, object]] = (),
    lower_is_better: Collection[str] = (),
    class_iou: Mapping[str, Sequence[float]] | None = None,
    class_steadiness: Mapping[str, Sequence[float]] | None = None,
    headline: Sequence[str] = (),
    worst: Sequence[Mapping[str, object]] = (),
    curves: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    pictures: Mapping[str, str | os.PathLike[str]] | None = None,
    notes: Sequence[str] = (),
    max_side: int = 480,
    max_frames: int = 150,
    max_bytes: int = 4_900_000,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write one HTML file that shows videos, label maps and scores; it needs nothing beside it.

    The same inputs give the same bytes.

    Args:
        path: the file to write; its folder is made, and it appears only when complete.
        title: heading of the page.
        videos: what to look at.
        class_names: name of each class 0..K-1.
        colours: RGB of each class, uint8 ``(K, 3)``.
        scores: rows of the score table. The first key names the row (``{"step": "plain", "mIoU": 0.61,
            "VC8": 0.93}``), the others are columns: fractions in ``[0, 1]``, shown as percentages; None or
            NaN where there is none. Each row's gain over the first row is shown beside its score.
        lower_is_better: columns of ``scores`` where a smaller number is the better one.
        class_iou: per-class IoU, K fractions by prediction name, NaN where a class does not occur.
        class_steadiness: likewise for each class the share of the pixels whose true class stays for 8 frames whose
            prediction stays too.
        headline: what the page says in short, paragraphs on top.
        worst: clips in which a prediction fails most, the worst first, rows ``{"video": name, "prediction": name,
            "frames": (first, last), "measure": "VC8", "score": fraction}`` (frames from 0, both included); each leads
            to its frames, which are shown even where a long video is sampled.
        curves: training curves by name, points ``(step, value)``.
        pictures: files of pictures that a training run drew, by caption; the last one is shown, the others fold out.
        notes: paragraphs at the end: where the figures come from and what they do not say.
        max_side: longer side in pixels that embedded frames and label maps are scaled down to.
        max_frames: most frames a video is shown with; a longer one is sampled evenly beside its worst clips, and the
            page says so.
        max_bytes: bound on the whole page, for each of its videos. A fifth of it at most goes to the list of changes,
            which is shortened where it is longer; frames and label maps are scaled down to fit what all else leaves,
            and the page says to what size (never below 64 pixels, whatever the bound).
        progress: called with frames embedded and frames in all.

    Returns:
        The file written.

    Raises:
        ConfigError: videos but no classes, more than 255, or names and colours that differ in number; a label outside
            0..K-1 and 255; a per-class score of another length than K; a row of ``worst`` or of changes that names no
            frames, or a video or prediction that is not there; a limit below 1, ``max_side`` above 16383, or a video's
            ``fps`` that is not above 0.
        DataError: a picture cannot be read, or the page cannot be written.
        ShapeError: label maps or frame names that do not fit the frames.
        DTypeError: frames or colours that are not uint8.
    """
    check_limits(max_side=max_side, max_frames=max_frames, max_bytes=max_bytes)
    for video in videos:
        _check_fps(video)
    table = _hex_colours(colours, class_names) if videos or len(class_names) else []
    figures = [curve_figure(name, points) for name, points in (curves or {}).items() if points]
    # bound for the whole page; what it says in words comes first, its pictures fill the rest
    whole = max_bytes * max(1, len(videos))
    said = partial(
        render,
        title=title,
        summary=_summary(videos, class_names, curves or {}),
        scores=score_table(scores, lower_is_better=lower_is_better),
        class_tables=[
            {"id": argument, **class_table(shares or {}, argument=argument, class_names=class_names, colours=table)}
            for argument, shares in (("class_iou", class_iou), ("class_steadiness", class_steadiness))
        ],
        headline=headline,
        worst=worst_list([(video.name, list(video.predictions)) for video in videos], worst),
        videos=[{"name": video.name} for video in videos],
        changes=change_list(
            [(video.name, video.changes) for video in videos],
            class_names=class_names,
            colours=table,
            max_bytes=whole // 5,
        ),
        changes_notes=[video.changes_note for video in videos if video.changes_note],
        curves=figures,
        pictures=[_picture(caption, file) for caption, file in (pictures or {}).items()],
        notes=notes,
    )
    classes = [{"name": name, "colour": colour} for name, colour in zip(class_names, table, strict=True)]
    kept = [_frames_of(worst, video) for video in videos]

    def html_of(items: Sequence[EmbeddedVideo]) -> str:
        shown = [
            _payload(video, item, has_kept=bool(keep)) for video, item, keep in zip(videos, items, kept, strict=True)
        ]
        data = {"classes": classes, "videos": shown, "curves": figures}
        return said(has_flicker=any(item.flicker for item in items), data=data)

    bare = [
        without_pictures(
            video.frames,
            list(_maps_of(video)),
            num_classes=len(table),
            max_frames=max_frames,
            has_flicker=video.flow is not None,
            keep=keep,
        )
        for video, keep in zip(videos, kept, strict=True)
    ]
    room = (whole - len(html_of(bare).encode())) // max(1, len(videos))
    embedded = [
        embed_video(
            video.frames,
            _maps_of(video),
            num_classes=len(table),
            max_side=max_side,
            max_frames=max_frames,
            max_bytes=max(1, room),
            progress=_counter(progress, videos, index),
            flow=video.flow,
            keep=keep,
        )
        for index, (video, keep) in enumerate(zip(videos, kept, strict=True))
    ]
    html = html_of(embedded)
    with write_aside(path) as aside:
        aside.write_text(html, encoding="utf-8", newline="\n")
    return Path(path)


def _counter(
    progress: Callable[[int, int], object] | None, videos: Sequence[PageVideo], index: int
) -> Callable[[int, int], object]:
    """Progress of one video told as progress of all: a video's frames count in full once it is done."""
    if progress is None:
        return lambda done, total: None
    before, own = sum(len(video.frames) for video in videos[:index]), len(videos[index].frames)
    whole = sum(len(video.frames) for video in videos)
    return lambda done, total: progress(before + own * done // total, whole)


def _maps_of(video: PageVideo) -> dict[str, Video]:
    """Ground truth first, then the predictions."""
    truth = {} if video.labels is None else {GROUND_TRUTH: video.labels}
    if GROUND_TRUTH in video.predictions:
        raise ConfigError(f"predictions: the name {GROUND_TRUTH!r} is taken, give that prediction another")
    return truth | dict(video.predictions)


def _check_fps(video: PageVideo) -> None:
    if video.fps is not None and not (isinstance(video.fps, Real) and 0 < video.fps < math.inf):
        raise ConfigError(f"fps: expected a finite number above 0, or None, got {video.fps!r}")


def _frames_of(worst: Sequence[Mapping[str, object]], video: PageVideo) -> list[int]:
    """Frames of a video's worst clips, the worst first."""
    ranges = [frame_range(row.get("frames"), "worst") for row in worst if row.get("video") == video.name]
    return [i for first, last in ranges for i in range(max(0, first), min(last, len(video.frames) - 1) + 1)]


def _payload(video: PageVideo, item: EmbeddedVideo, *, has_kept: bool) -> dict[str, object]:
    """What the script needs of one video."""
    names = video.frame_names
    if names is not None and len(names) != len(video.frames):
        raise ShapeError(f"frame_names: expected {len(video.frames)}, one a frame, got {len(names)}")
    return {
        "name": video.name,
        "width": item.size[0],
        "height": item.size[1],
        "fullWidth": item.full_size[0],
        "fullHeight": item.full_size[1],
        "total": len(video.frames),
        "fps": VSPW_FPS if video.fps is None else float(video.fps),
        "positions": item.positions,
        "kept": has_kept,
        "frameNames": None if names is None else [names[i] for i in item.positions],
        "images": item.images,
        "maps": [
            {
                "name": name,
                "truth": name == GROUND_TRUTH and video.labels is not None,
                "data": data,
                "flicker": item.flicker.get(name),
            }
            for name, data in item.maps.items()
        ],
        "present": item.present,
    }


def _picture(caption: str, file: str | os.PathLike[str]) -> dict[str, object]:
    data, width, height = embed_picture(file)
    return {"caption": caption, "data": data, "width": width, "height": height}


def _summary(
    videos: Sequence[PageVideo], class_names: Sequence[str], curves: Mapping[str, Sequence[tuple[float, float]]]
) -> str:
    if not videos:
        steps = [step for points in curves.values() for step, _ in points[-1:] if math.isfinite(step)]
        return counted(int(max(steps, default=0)), "training step")
    frames = sum(len(video.frames) for video in videos)
    return " · ".join(
        (counted(len(videos), "video"), counted(frames, "frame"), counted(len(class_names), "class", "classes"))
    )


def _hex_colours(colours: Tensor | NDArray[np.uint8], class_names: Sequence[str]) -> list[str]:
    """``#rrggbb`` of every class."""
    table = torch.as_tensor(colours)
    if len(class_names) == 0:
        raise ConfigError("class_names: expected at least one class, got none")
    check_class_count(class_names=len(class_names))
    if table.dtype != torch.uint8:
        raise DTypeError(f"colours: expected uint8 in 0..255, got {table.dtype}")
    if tuple(table.shape) != (len(class_names), 3):
        raise ConfigError(f"colours: expected ({len(class_names)}, 3) like class_names, got {tuple(table.shape)}")
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in table.tolist()]
