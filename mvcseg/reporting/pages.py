"""Pages from a video and folders of predictions, or from a training run."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from mvcseg.data.files import shown
from mvcseg.data.io import open_video
from mvcseg.data.label_maps import LabelFolder
from mvcseg.data.palette import class_colours
from mvcseg.errors import ConfigError, DataError
from mvcseg.flow import FlowEstimator
from mvcseg.report import PageVideo, write_page
from mvcseg.report.media import sample_positions
from mvcseg.report.runs import run_curves, run_pictures
from mvcseg.report.tables import FLICKER, STEADINESS
from mvcseg.report.text import counted
from mvcseg.reporting.corrections import Correction, check_changes, check_class_names, find_correction
from mvcseg.reporting.folders import (
    READ_AT_ONCE,
    MappedLabels,
    agreed_classes,
    check_size,
    folder_of,
    named_folders,
    numbered,
    to_class_ids,
    to_known,
)
from mvcseg.reporting.headline import FLICKER_FREE, plain_headline, truth_headline
from mvcseg.reporting.motion import MOST_PAIRS, FlickerScores, measure_flicker, measured_runs
from mvcseg.reporting.scores import CLIP, score_predictions
from mvcseg.reporting.worst import WorstClip, worst_clips
from mvcseg.segmenter import Video
from mvcseg.vlm.changes import Change, changes_of, read_changes

ONE_VIDEO = "The scores are of this video alone; a data set's are taken over all its videos together."
ALL_FRAMES = "Scores, tables by class and worst clips are counted on every frame at full size."
NO_TRUTH = "Without ground truth nothing here says whether a class is right."
MOST_PICTURES = 5
"""Pictures of a training run that a page holds."""


def report(
    video: str | os.PathLike[str],
    predictions: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    changes: str | os.PathLike[str] | None = None,
    run: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    flow: FlowEstimator | None = None,
    title: str | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> Path:
    """Write the page that shows a video with its predictions, scored where ground truth is given.

    With ``labels`` each prediction gets mIoU, VC8, VC16, and the IoU and steadiness of each class, as
    `mvcseg.metrics` defines them on this one video; without, the share of pixels whose class differs from the frame
    before and with ``flow`` the share that flickers, which say how steady a prediction is and not whether it is right.
    On top the page says in sentences which prediction is steadier and where each fails, and it lists the worst clips.

    A video of any length is read a few frames at a time. Scores by ground truth count every frame; pictures and flicker
    are those of sampled frames where there are many, and the page says so.

    Args:
        video: a video file, a folder of frames or a VSPW video folder.
        predictions: folders of label maps (class ids 0..K-1), each holding them directly or in a
            folder of the video's name. A prediction is called by its folder's name.
        out: the HTML file.
        labels: folder of ground truth in raw ids (0 void, 1..K, 255 void), one map for every frame, directly, in a
            folder of the video's name, or in a ``mask`` folder, as in a VSPW video folder.
        changes: log of `mvcseg correct` (`mvcseg.vlm.write_changes`). Of several videos' records this one's are
            shown, and those that name no video.
        run: folder of a training run, whose ``log.jsonl`` gives curves and whose ``pictures`` are shown.
        class_names: names of the classes; None takes them from the predictions' ``classes.json``, and without
            one numbers the classes up to the highest that occurs.
        flow: says where pixels went between two frames (`mvcseg.flow.FarnebackFlow()`), for what flickers; None
            leaves that out.
        title: heading of the page; None names the video.
        progress: called with what is being done, frames done and frames in all.

    Returns:
        The file written.

    Raises:
        DataError: a file or folder is missing, broken or holds other values than above; names it.
        ShapeError: label maps of another size than the frames.
        ConfigError: no prediction, or predictions of different classes.
    """
    if not predictions:
        raise ConfigError("predictions: expected at least one folder of label maps, got none")
    tell = progress or _silent
    shown_video = open_video(video)
    stems = list(shown_video.frame_names)
    named = named_folders(predictions, video=shown_video.name)
    folders = {name: folder_of(path, video=shown_video.name) for name, path in named.items()}
    maps = {name: LabelFolder(folder, frame_names=stems) for name, folder in folders.items()}
    raw = None if labels is None else LabelFolder(folder_of(labels, video=shown_video.name), frame_names=stems)
    for folder in (*maps.values(), *([] if raw is None else [raw])):
        check_size(folder, shown_video.size)
    names = list(class_names) if class_names is not None else agreed_classes(predictions, folders, maps, raw)
    truth = None
    if raw is not None:
        truth = MappedLabels(raw, partial(to_class_ids, num_classes=len(names), folder=raw.folder))
    known = {name: MappedLabels(each, partial(to_known, num_classes=len(names))) for name, each in maps.items()}
    held, about_rows = _changes_shown(changes, video=shown_video.name, length=len(stems))
    correction = None
    if changes is not None and held:
        check_changes(held, log=changes, size=shown_video.size, num_classes=len(names))
        if class_names is None and names != numbered(len(names)):
            check_class_names(held, log=changes, class_names=names)
        correction = find_correction(held, known, truth, num_classes=len(names))
    findings = (
        _without_truth(shown_video, maps, known, class_names=names, flow=flow, tell=tell)
        if raw is None or truth is None
        else _with_truth(maps, raw, truth, class_names=names, correction=correction, tell=tell)
    )
    return write_page(
        Path(out),
        title=title or f"{shown(shown_video.name)}: {', '.join(map(shown, maps))}",
        videos=[
            PageVideo(
                name=shown_video.name,
                frames=shown_video,
                predictions=known,
                labels=truth,
                frame_names=stems,
                fps=shown_video.fps,
                changes=[change.row() | correction.effect(i) for i, change in enumerate(held)] if correction else (),
                changes_note=correction.sentence() if correction else "",
                flow=flow,
            )
        ],
        class_names=names,
        colours=class_colours(names),
        headline=findings.headline,
        scores=findings.scores,
        lower_is_better=(STEADINESS, FLICKER),
        worst=[clip.row(video=shown_video.name, measure=findings.measure) for clip in findings.worst],
        class_iou=findings.class_iou,
        class_steadiness=findings.class_steadiness,
        curves=None if run is None else run_curves(run),
        pictures=None if run is None else _shown_pictures(Path(run)),
        notes=[*findings.notes, *about_rows],
        progress=lambda done, total: tell("write the page", done, total),
    )


def report_run(run: str | os.PathLike[str], *, out: str | os.PathLike[str], title: str | None = None) -> Path:
    """Write the page that shows how a training run goes: its curves, and pictures of what the model said.

    Works while the run goes on.

    Args:
        run: folder of the run.
        out: the HTML file.
        title: heading of the page; None names the folder.

    Returns:
        The file written.

    Raises:
        DataError: the run's log or a picture is missing or broken; names it.
    """
    folder = Path(run)
    return write_page(
        Path(out),
        title=title or f"Training: {shown(Path(os.path.abspath(folder)).name)}",  # noqa: PTH100 - as in named_folders
        videos=[],
        class_names=[],
        colours=np.empty((0, 3), dtype=np.uint8),
        curves=run_curves(folder),
        pictures=_shown_pictures(folder),
    )


@dataclass(frozen=True)
class _Findings:
    """What there is to say of the predictions."""

    headline: Sequence[str]
    scores: Sequence[Mapping[str, object]]
    worst: Sequence[WorstClip]
    measure: str
    notes: Sequence[str]
    class_iou: Mapping[str, Sequence[float]] = field(default_factory=dict)
    class_steadiness: Mapping[str, Sequence[float]] = field(default_factory=dict)


def _with_truth(
    maps: Mapping[str, Video],
    raw: LabelFolder,
    truth: MappedLabels,
    *,
    class_names: Sequence[str],
    correction: Correction | None,
    tell: _Tell,
) -> _Findings:
    scores = score_predictions(
        maps,
        raw,
        to_class_ids=truth.change,
        num_classes=len(class_names),
        progress=lambda done, total: tell("score", done, total),
    )
    worst = worst_clips({name: dict(enumerate(each.clips.tolist())) for name, each in scores.items()})
    outside = [
        f"{name}: {each.miou.predicted_outside:,} labelled pixels hold no class of the {len(class_names)}; they count "
        "as misses."
        for name, each in scores.items()
        if each.miou.predicted_outside
    ]
    return _Findings(
        headline=truth_headline(scores, class_names=class_names, worst=worst, correction=correction),
        scores=[{"prediction": name, **each.row()} for name, each in scores.items()],
        worst=worst,
        measure=f"VC{CLIP}",
        notes=[ONE_VIDEO, ALL_FRAMES, *outside],
        class_iou={name: each.miou.per_class().tolist() for name, each in scores.items()},
        class_steadiness={name: each.class_steadiness.tolist() for name, each in scores.items()},
    )


def _without_truth(
    frames: Video,
    maps: Mapping[str, Video],
    known: Mapping[str, Video],
    *,
    class_names: Sequence[str],
    flow: FlowEstimator | None,
    tell: _Tell,
) -> _Findings:
    changed = {}
    for name, labels in maps.items():
        changed[name] = _share_changed(labels, progress=partial(tell, f"compare frames of {name}"))
    rows = {name: {"prediction": name, STEADINESS: share} for name, share in changed.items()}
    found: Mapping[str, FlickerScores] = {}
    if flow is not None:
        found = measure_flicker(frames, known, flow=flow, progress=partial(tell, "follow the motion"))
    for name, each in found.items():
        rows[name][FLICKER] = each.share
    flickering = {n: (class_names[w[0]], w[1]) for n, each in found.items() if (w := each.worst_class()) is not None}
    worst = worst_clips({name: each.clips for name, each in found.items()})
    return _Findings(
        headline=plain_headline(
            {name: each.share for name, each in found.items()} or changed,
            flickering_class=flickering,
            worst=worst,
            is_compensated=bool(found),
        ),
        scores=list(rows.values()),
        worst=worst,
        measure=FLICKER_FREE,
        notes=[NO_TRUTH, *([_sampled(len(frames))] if found and len(frames) - 1 > MOST_PAIRS else [])],
    )


_Tell = Callable[[str, int, int], object]


def _changes_shown(
    log: str | os.PathLike[str] | None, *, video: str, length: int
) -> tuple[Sequence[Change], Sequence[str]]:
    """The video's records of a log, and what to say where it holds others' only."""
    if log is None:
        return (), ()
    held = read_changes(log)
    own = changes_of(held, video=video)
    for change in own:
        if not 0 <= change.frames[0] <= change.frames[1] < length:
            raise DataError(
                f"{shown(log)}: expected frames 0 to {length - 1} of {shown(video)}, got {change.frames[0]} to "
                f"{change.frames[1]}; is it the log of another video?"
            )
    others = list(dict.fromkeys(shown(change.video) for change in held if change.video))
    told = (
        [] if own or not others else [f"The log of the correction holds other videos than this: {', '.join(others)}."]
    )
    return own, told


def _sampled(length: int) -> str:
    clips = len(measured_runs(length))
    return (
        f"Of the {counted(length, 'frame')} of this video, flicker was measured in {clips} clips of {CLIP} frames, "
        "evenly spaced; the worst clips are the worst of these."
    )


def _share_changed(labels: Video, *, progress: Callable[[int, int], object]) -> float:
    """Share of pixels whose class differs from the frame before; NaN for a single frame."""
    changed = pixels = 0
    for start in range(0, len(labels) - 1, READ_AT_ONCE):
        clip = labels[start : start + READ_AT_ONCE + 1]
        changed += int((clip[1:] != clip[:-1]).sum())
        pixels += clip[1:].numel()
        progress(start + len(clip), len(labels))
    return changed / pixels if pixels else math.nan


def _shown_pictures(run: Path) -> dict[str, Path]:
    """The newest pictures of a run and some of those before, oldest first, by what they show."""
    pictures = list(run_pictures(run).items())
    if not pictures:
        return {}
    positions = sample_positions(len(pictures), MOST_PICTURES)
    return {f"After step {pictures[i][0]:,}": pictures[i][1] for i in positions}


def _silent(what: str, done: int, total: int) -> None:
    """No progress wanted."""
