"""Label maps of many videos on disk, resumable: what ``mvcseg predict`` does.

A clip is predicted while the next one is read and the label maps before it are written. Every label map
appears under its name only when complete, so a killed run leaves whole files; run again, it predicts the clips
that lack one, with the same clip boundaries, and ends with the bytes of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor

from mvcseg.data.files import read_json, remove_stale_parts, shown, write_json
from mvcseg.data.label_maps import write_classes_once, write_label_map
from mvcseg.data.palette import class_colours
from mvcseg.data.read_ahead import read_ahead
from mvcseg.errors import ConfigError, DataError
from mvcseg.inference import iter_labels
from mvcseg.segmenter import Segmenter, Video, check_video, read_clip, size_of
from mvcseg.shapes import check_positive
from mvcseg.tta import Tie, View, iter_view_labels, iter_vote_labels, scaled_views

RECORD_FILE = ".mvcseg-run.json"
"""Hidden file beside a video's label maps: the settings they are made with."""

Item = TypeVar("Item")


class NamedVideo(Video, Protocol):
    """A stored video that knows its name and its frames' names, as ``mvcseg.data.open_video`` gives it."""

    @property
    def name(self) -> str:
        """Name of the folder its label maps go to."""
        ...

    @property
    def frame_names(self) -> Sequence[str]:
        """Stems of the frames' files."""
        ...


@dataclass(frozen=True)
class Predicted:
    """What a run did.

    Attributes:
        videos: number of videos.
        written: number of label maps predicted and written.
        kept: number of label maps that were there from an earlier run.
    """

    videos: int
    written: int
    kept: int


def predict_to_folder(
    videos: Iterable[NamedVideo],
    segmenter: Segmenter,
    *,
    out: str | os.PathLike[str],
    class_names: Sequence[str],
    clip_length: int,
    views: Sequence[View] | None = None,
    tie: Tie = "literal",
    short_side: int | None = None,
    long_side: int | None = None,
    raw_ids: bool = False,
    model: str = "",
    progress: Callable[[str, int, int], object] | None = None,
) -> Predicted:
    """Predict videos and write ``<out>/<video name>/<frame name>.png`` and ``<out>/classes.json``.

    A run that was stopped, in whatever way, continues when called again with the same arguments: clips whose
    label maps all exist are kept. (A segmenter with a ``stream`` sees whole videos, so with it a video
    is either complete or done again.) The settings stand in a hidden file beside the label maps; other settings,
    another video of that name or label maps of unknown origin are an error, never mixed.

    Args:
        videos: videos with names, as ``open_video`` gives them.
        segmenter: gives logits of clips.
        out: folder, made if missing. Several processes may share it, each with its own videos (``shard``).
        class_names: names of the segmenter's K classes.
        clip_length: most frames at once; part of the result.
        views: the label maps are a vote over these views (Eq. 8); None predicts once.
        tie: how a tied vote is settled, as in ``vote_labels``.
        short_side: the segmenter sees frames whose shorter side has this many pixels (views scale
            from there), its probabilities are resized back; None keeps the video's size. Label maps have the
            video's size either way.
        long_side: the longer side of those frames is at most this many pixels.
        raw_ids: write 0 for void and k + 1 for class k, as VSPW's ground truth does; for viewing.
        model: identifies the weights (a digest of the checkpoint), so that other weights are noticed.
        progress: called with the video's name, frames done and frames in all, before and after every clip.

    Returns:
        Numbers of videos, and of label maps written and kept.

    Raises:
        ConfigError: ``class_names`` are not K, a number is below 1, or 255 classes are to have raw ids.
        DataError: a video is broken, two have one name, or ``out`` cannot be written or holds something else.
        ShapeError: a video or the logits have another shape than they should.
        DTypeError: a video's frames are not uint8.
    """
    check_positive(clip_length=clip_length)
    if len(class_names) != segmenter.num_classes:
        raise ConfigError(f"class_names: expected {segmenter.num_classes} as the segmenter has, got {len(class_names)}")
    if raw_ids and len(class_names) > 254:
        raise ConfigError(f"raw_ids: expected at most 254 classes (255 means ignore), got {len(class_names)}")
    for name, side in (("short_side", short_side), ("long_side", long_side)):
        if side is not None:
            check_positive(**{name: side})
    if views is not None and not views:
        raise ConfigError("views: expected at least one, or None, got none")
    settings = {
        "model": model,
        "class_names": list(class_names),
        "clip_length": clip_length,
        "views": None if views is None else [[view.scale, view.flip] for view in views],
        "tie": None if views is None else tie,
        "short_side": short_side,
        "long_side": long_side,
        "raw_ids": raw_ids,
    }
    folder = Path(out)
    colours = class_colours(class_names)
    write_classes_once(folder, class_names, colours, raw_ids=raw_ids)
    palette = np.concatenate([np.zeros((1, 3), dtype=np.uint8), colours]) if raw_ids else colours
    seen: set[str] = set()
    written = kept = 0
    for video in videos:
        _check_names(video, seen)
        total = check_video(video)
        target = folder / video.name
        existing = _begin(target, video, settings)
        spans = _missing_spans(video, existing, clip_length=clip_length, whole=hasattr(segmenter, "stream"))
        done = total - sum(stop - start for start, stop in spans)
        kept, written = kept + done, written + total - done
        seen_at = scaled_views(size_of(video), views, short_side=short_side, long_side=long_side)
        predict = partial(_predict, segmenter, clip_length=clip_length, views=seen_at, tie=tie)
        report = partial(progress or _silent, video.name)
        report(done, total)
        with _background_writer() as write:
            for start, labels in _predict_spans(video, spans, predict, whole=hasattr(segmenter, "stream")):
                stored = labels + 1 if raw_ids else labels
                for name, label_map in zip(video.frame_names[start : start + len(labels)], stored, strict=True):
                    write(partial(write_label_map, target / f"{name}.png", label_map, colours=palette))
                done += len(labels)
                report(done, total)
    return Predicted(videos=len(seen), written=written, kept=kept)


def shard(items: Sequence[Item], part: str) -> list[Item]:
    """Every N-th item: part ``"I/N"`` with I from 1 to N gives the items I, I + N, I + 2N and so on.

    The N parts hold every item once, and differ in size by one at most.

    Raises:
        ConfigError: ``part`` is not of that form.

    Example:
        >>> shard(["a", "b", "c", "d", "e"], "2/3")
        ['b', 'e']
    """
    index, slash, count = part.partition("/")
    if not (slash and index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
        raise ConfigError(f"shard: expected I/N such as 1/4, got {part!r}")
    if not 1 <= int(index) <= int(count):
        raise ConfigError(f"shard: expected I/N with I from 1 to N, got {part!r}")
    return list(items[int(index) - 1 :: int(count)])


def _silent(name: str, done: int, total: int) -> None:
    """No progress wanted."""


def _check_names(video: NamedVideo, seen: set[str]) -> None:
    name = video.name
    if name in ("", ".", "..") or "/" in name or os.sep in name or "\0" in name:
        raise DataError(f"video name: expected a folder name, got {shown(name)!r}")
    if name in seen:
        raise DataError(f"{shown(name)}: two videos have this name, and so would share one folder")
    seen.add(name)
    if len(video.frame_names) != len(video) or len(set(video.frame_names)) != len(video):
        raise DataError(
            f"{shown(name)}: expected {len(video)} different frame names, got {len(set(video.frame_names))}"
        )


def _begin(target: Path, video: NamedVideo, settings: dict[str, Any]) -> set[str]:
    """Frames whose label maps exist already, after making sure that they are this run's."""
    wanted = {**settings, "video": _fingerprint(video)}
    path = target / RECORD_FILE
    try:
        target.mkdir(parents=True, exist_ok=True)
        stems = {entry.stem for entry in target.iterdir() if entry.suffix == ".png" and entry.name[:6] != ".part-"}
    except OSError as error:
        raise DataError(f"{shown(target)}: cannot be written: {error.strerror or error}") from error
    if path.exists():
        _check_record(target, read_json(path), wanted)
    elif stems:
        raise DataError(
            f"{shown(target)}: holds {len(stems)} label maps that no run recorded; choose another output folder"
        )
    extra = sorted(stems.difference(video.frame_names))
    if extra:
        raise DataError(
            f"{shown(target)}: holds {len(extra)} label maps that are no frame of this video, first "
            f"{shown(extra[0])}.png; remove them or choose another output folder"
        )
    remove_stale_parts(target)
    write_json(path, wanted)
    return stems


def _check_record(target: Path, found: Any, wanted: dict[str, Any]) -> None:
    record = found if isinstance(found, dict) else {}
    other = [key for key in wanted if record.get(key) != wanted[key]]
    if not other:
        return
    # What the user typed is told with both values; digests and lists of names would fill the screen.
    typed = [
        key
        for key in other
        if key in ("clip_length", "tie", "short_side", "long_side", "raw_ids", "model") and key in record
    ]
    values = "; ".join(f"{key} was {record[key]!r}, is {wanted[key]!r}" for key in typed)
    raise DataError(
        f"{shown(target)}: begun with another {' and '.join(other)}{f' ({values})' if values else ''}; continue with "
        "the same, or choose another output folder"
    )


def _fingerprint(video: NamedVideo) -> dict[str, Any]:
    """What tells a video from another of its name without reading all of it."""
    first = read_clip(video, 0, 1)
    return {
        "frames": len(video),
        "size": list(first.shape[-2:]),
        "frame_names": hashlib.sha256(b"\0".join(map(os.fsencode, video.frame_names))).hexdigest(),
        "first_frame": hashlib.sha256(first.cpu().numpy().tobytes()).hexdigest(),
    }


def _missing_spans(video: NamedVideo, existing: set[str], *, clip_length: int, whole: bool) -> list[tuple[int, int]]:
    """Start and stop of the clips that lack a label map; the whole video where it cannot be done in parts."""
    total = len(video)
    starts = [0] if whole else range(0, total, clip_length)
    spans = [(start, total if whole else min(start + clip_length, total)) for start in starts]
    return [(start, stop) for start, stop in spans if not existing.issuperset(video.frame_names[start:stop])]


def _predict(
    segmenter: Segmenter, video: Video, *, clip_length: int, views: Sequence[View] | None, tie: Tie
) -> Iterator[Tensor]:
    """Consecutive label clips ``(t, H, W)`` uint8 of a video at its own size."""
    if views is None:
        return iter_labels(segmenter, video, clip_length=clip_length)
    if len(views) == 1:  # nothing to vote on, so nothing needs to wait
        return iter_view_labels(segmenter, video, view=views[0], clip_length=clip_length)
    return iter_vote_labels(segmenter, video, views=views, clip_length=clip_length, tie=tie)


def _predict_spans(
    video: Video,
    spans: Sequence[tuple[int, int]],
    predict: Callable[[Video], Iterator[Tensor]],
    *,
    whole: bool,
) -> Iterator[tuple[int, Tensor]]:
    """First frame and labels of consecutive clips; while one is predicted the next is read."""
    if whole:
        for _ in spans:
            start = 0
            with read_ahead(video) as frames:
                for labels in predict(frames):
                    yield start, labels
                    start += len(labels)
        return
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead: Future[Tensor] | None = None
        for index, (start, stop) in enumerate(spans):
            clip = ahead.result() if ahead is not None else read_clip(video, start, stop)
            ahead = reader.submit(read_clip, video, *spans[index + 1]) if index + 1 < len(spans) else None
            for labels in predict(clip):
                yield start, labels
                start += len(labels)


@contextmanager
def _background_writer(*, threads: int = 2, limit: int = 32) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Runs jobs in threads; at most ``limit`` wait, and the first failure surfaces at the next call or the end.

    Jobs that wait when the block fails are still done (their label maps are right), unless a job has failed.
    """
    pending: set[Future[object]] = set()
    has_failed = False

    def collect() -> None:
        nonlocal has_failed
        finished, _ = wait(pending, return_when=FIRST_COMPLETED)
        pending.difference_update(finished)
        has_failed = has_failed or any(future.exception() is not None for future in finished)
        for future in finished:
            future.result()

    def submit(job: Callable[[], object]) -> None:
        while len(pending) >= limit:
            collect()
        pending.add(pool.submit(job))

    pool = ThreadPoolExecutor(max_workers=threads)
    try:
        yield submit
        while pending:
            collect()
    finally:
        pool.shutdown(wait=True, cancel_futures=has_failed)
