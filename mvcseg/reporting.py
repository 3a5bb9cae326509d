"""From a video and folders of predictions, or from a training run, to the page that shows them: `mvcseg report`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.data.io import open_video
from mvcseg.data.label_maps import CLASSES_FILE, LabelFolder, read_classes
from mvcseg.data.palette import class_colours
from mvcseg.data.vspw import check_raw_values, class_ids
from mvcseg.errors import ConfigError, DataError, ShapeError
from mvcseg.metrics import MeanIoU, VideoConsistency
from mvcseg.report import PageVideo, write_page
from mvcseg.report.media import sample_positions
from mvcseg.report.runs import run_curves, run_pictures
from mvcseg.report.tables import STEADINESS
from mvcseg.segmenter import IGNORE_INDEX, Video
from mvcseg.shapes import MAX_CLASSES
from mvcseg.vlm.changes import read_changes

CLIP_LENGTHS = (8, 16)
"""Window lengths of the consistency scores, as VSPW reports them."""
ONE_VIDEO = "The scores are of this video alone; a data set's are taken over all its videos together."
NO_TRUTH = "Without ground truth nothing here says whether a class is right."
MOST_PICTURES = 5
"""Pictures of a training run that a page holds."""
READ_AT_ONCE = 16
"""Label maps held in memory where a whole video is not needed."""


def report(
    video: str | os.PathLike[str],
    predictions: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    changes: str | os.PathLike[str] | None = None,
    run: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> Path:
    """Write the page that shows a video with its predictions, scored where ground truth is given.

    With ``labels`` each prediction gets mIoU, VC8, VC16 and the IoU of each class, as `mvcseg.metrics` defines
    them on this one video; without, the share of pixels whose class differs from the frame before, which says how
    steady a prediction is and not whether it is right.

    Args:
        video: a video file, a folder of frames or a VSPW video folder.
        predictions: folders of label maps (class ids 0..K-1), each holding them directly or in a
            folder of the video's name. A prediction is called by its folder's name.
        out: the HTML file.
        labels: folder of ground truth in raw ids (0 void, 1..K, 255 void), directly, in a folder of the
            video's name, or in a ``mask`` folder, as in a VSPW video folder.
        changes: log of `mvcseg correct` (`mvcseg.vlm.write_changes`) for this video.
        run: folder of a training run, whose ``log.jsonl`` gives curves and whose ``pictures`` are shown.
        class_names: names of the classes; None takes them from the predictions' ``classes.json``, and without
            one numbers the classes up to the highest that occurs.
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
    shown_video = open_video(video)
    stems = list(shown_video.frame_names)
    folders = {name: _folder_of(path, shown_video.name) for name, path in _named(predictions, shown_video.name).items()}
    maps = {name: LabelFolder(folder, frame_names=stems) for name, folder in folders.items()}
    raw = None if labels is None else LabelFolder(_folder_of(labels, shown_video.name), frame_names=stems)
    for folder in (*maps.values(), *([] if raw is None else [raw])):
        _check_size(folder, shown_video.size)
    names = list(class_names) if class_names is not None else _class_names(predictions, folders, maps, raw)
    truth = None
    if raw is not None:
        truth = _Mapped(raw, partial(_class_ids, num_classes=len(names), folder=raw.folder))
    tell = progress or _silent

    scores, class_iou, notes = [], {}, []
    for name, each in maps.items():
        tell(f"score {name}", 0, len(stems))
        if raw is None or truth is None:
            scores.append({"prediction": name, STEADINESS: _share_changed(each)})
        else:
            row, per_class, outside = _score(each, raw, truth, num_classes=len(names))
            scores.append({"prediction": name, **row})
            class_iou[name] = per_class
            if outside:
                notes.append(
                    f"{name}: {outside:,} labelled pixels hold no class of the {len(names)}; they count as misses."
                )
        tell(f"score {name}", len(stems), len(stems))
    return write_page(
        Path(out),
        title=title or f"{shown(shown_video.name)}: {', '.join(map(shown, maps))}",
        videos=[
            PageVideo(
                name=shown_video.name,
                frames=shown_video,
                predictions={
                    name: _Mapped(each, partial(_known, num_classes=len(names))) for name, each in maps.items()
                },
                labels=truth,
                frame_names=stems,
                fps=shown_video.fps,
                changes=() if changes is None else [change.row() for change in read_changes(changes)],
            )
        ],
        class_names=names,
        colours=class_colours(names),
        scores=scores,
        lower_is_better=(STEADINESS,),
        class_iou=class_iou,
        curves=None if run is None else run_curves(run),
        pictures=None if run is None else _shown_pictures(Path(run)),
        notes=[NO_TRUTH if labels is None else ONE_VIDEO, *notes],
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
        title=title or f"Training: {shown(Path(os.path.abspath(folder)).name)}",  # noqa: PTH100 - as in _named
        videos=[],
        class_names=[],
        colours=np.empty((0, 3), dtype=np.uint8),
        curves=run_curves(folder),
        pictures=_shown_pictures(folder),
    )


class _Mapped:
    """Label maps changed as they are read."""

    def __init__(self, labels: Video, change: Callable[[Tensor], Tensor]) -> None:
        self.labels, self.change = labels, change

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice, /) -> Tensor:
        return self.change(self.labels[index])


def _class_ids(raw: Tensor, *, num_classes: int, folder: Path) -> Tensor:
    check_raw_values(raw, num_classes=num_classes, path=folder)
    return class_ids(raw)


def _known(labels: Tensor, *, num_classes: int) -> Tensor:
    """Values that are no class become 255, which a page shows as nothing."""
    return labels.masked_fill(labels >= num_classes, IGNORE_INDEX)


def _score(pred: Video, raw: Video, truth: Video, *, num_classes: int) -> tuple[dict[str, float], list[float], int]:
    """Scores of one prediction (mIoU, VC), IoU of each class, and how many labelled pixels hold no class."""
    miou = MeanIoU(num_classes)
    whole, whole_raw = pred[:], raw[:]
    for start in range(0, len(pred), READ_AT_ONCE):
        clip = slice(start, start + READ_AT_ONCE)
        miou.update(whole[clip], truth[clip])
    row = {"mIoU": miou.compute()}
    for length in CLIP_LENGTHS:
        consistency = VideoConsistency(length)
        consistency.update(whole, whole_raw)
        row[f"VC{length}"] = consistency.compute()
    return row, miou.per_class().tolist(), miou.predicted_outside


def _share_changed(labels: Video) -> float:
    """Share of pixels whose class differs from the frame before; NaN for a single frame."""
    changed = pixels = 0
    for start in range(0, len(labels) - 1, READ_AT_ONCE):
        clip = labels[start : start + READ_AT_ONCE + 1]
        changed += int((clip[1:] != clip[:-1]).sum())
        pixels += clip[1:].numel()
    return changed / pixels if pixels else math.nan


def _named(predictions: Sequence[str | os.PathLike[str]], video: str) -> dict[str, Path]:
    """A name for each folder: its own, or its parent's where it is called like the video; numbered where two agree."""
    named: dict[str, Path] = {}
    for path in predictions:
        full = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links
        name = wanted = full.parent.name if full.name == video else full.name
        number = 2
        while name in named:
            name, number = f"{wanted} ({number})", number + 1
        named[name] = Path(path)
    return named


def _folder_of(path: str | os.PathLike[str], video: str) -> Path:
    """Where the label maps of a video are: in a folder of its name, else right here."""
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{shown(folder)}: expected a folder of label maps, got no folder")
    return folder / video if (folder / video).is_dir() else folder


def _check_size(labels: LabelFolder, size: tuple[int, int]) -> None:
    if labels.size != size:
        raise ShapeError(
            f"{shown(labels.folder)}: expected label maps of {size[0]} x {size[1]} pixels like the frames, "
            f"got {labels.size[0]} x {labels.size[1]}"
        )


def _class_names(
    predictions: Sequence[str | os.PathLike[str]],
    folders: Mapping[str, Path],
    maps: Mapping[str, LabelFolder],
    raw: LabelFolder | None,
) -> list[str]:
    """The one list of classes that the predictions agree on; numbers where none has a list."""
    lists = {}
    for path, folder in zip(predictions, folders.values(), strict=True):
        for place in (folder, Path(path), folder.parent):
            if (place / CLASSES_FILE).is_file():
                lists[place] = read_classes(place)
                break
    if lists:
        (first, names), *others = lists.items()
        for place, other in others:
            if other != names:
                raise ConfigError(
                    f"predictions: expected one list of classes, got {len(names)} in {shown(first / CLASSES_FILE)} and "
                    f"{len(other)} others in {shown(place / CLASSES_FILE)}"
                )
        return names
    highest = max(_highest(each) for each in maps.values())
    if raw is not None:
        highest = max(highest, _highest(raw) - 1)
    return [f"class {index}" for index in range(min(highest, MAX_CLASSES - 1) + 1)]


def _highest(labels: Video) -> int:
    """Largest value beside 255, 0 where there is none."""
    most = 0
    for start in range(0, len(labels), READ_AT_ONCE):
        clip = labels[start : start + READ_AT_ONCE]
        most = max(most, int(clip.masked_fill(clip == IGNORE_INDEX, 0).max()))
    return most


def _shown_pictures(run: Path) -> dict[str, Path]:
    """The newest pictures of a run and some of those before, oldest first, by what they show."""
    pictures = list(run_pictures(run).items())
    if not pictures:
        return {}
    positions = sample_positions(len(pictures), MOST_PICTURES)
    return {f"After step {pictures[i][0]:,}": pictures[i][1] for i in positions}


def _silent(what: str, done: int, total: int) -> None:
    """No progress wanted."""
