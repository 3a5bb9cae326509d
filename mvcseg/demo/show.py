"""What a demo leaves behind: label maps, videos, pictures, the page and the printed summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.data import write_classes, write_label_map, write_video
from mvcseg.data.files import shown, write_aside, write_json
from mvcseg.data.toy_scene import CLASS_COLOURS, CLASS_NAMES
from mvcseg.demo.steps import STEPS
from mvcseg.pipeline import PipelineResult
from mvcseg.report import PageVideo, overlay, write_page
from mvcseg.report.panels import beside
from mvcseg.segmenter import IGNORE_INDEX
from mvcseg.vlm import Change, write_changes
from mvcseg.vlm.changes import Status

FPS = 12.0
"""Frames per second at which the toy videos are shown."""

_MEANING = {
    "plain": "trained without masks",
    "MVC": "trained with masked video consistency",
    "+ TTA": "4 scales, flipped or not: majority",
    "+ selection": "plain or MVC, by flow and SSIM",
    "+ VLM": "waters renamed; recorded answers",
}
_SHOWN = {"+ VLM": "+ VLM (recorded answers)"}
LOOK_AT = (
    ("report.html", "table, frames, classes, questions"),
    ("overlay.mp4", "frame, ground truth, plain, all steps"),
    ("overview.png", "the same as one picture"),
    ("masks", "label maps after each step"),
    ("changes", "questions and answers, as JSON"),
)
_NOTES = (
    "The videos are drawn by mvcseg from photographs that ship with scikit-image; the models are the two small ones "
    "in the package, trained on other videos of the same kind. The figures say how the steps behave here, "
    "not how they behave on real video.",
    "The last step replays answers that were written by hand. No vision-language model was asked.",
)


@dataclass(frozen=True)
class DemoResult:
    """What a demo gave.

    Attributes:
        folder: where everything lies.
        scores: for each of `STEPS` its ``mIoU``, ``VC8`` and ``VC16``, fractions.
        class_iou: for each step the IoU of every class, NaN where a class does not occur.
        chosen: which segmenter was chosen for each video.
        changes: what was asked about each video, and what came of it.
    """

    folder: Path
    scores: Mapping[str, Mapping[str, float]]
    class_iou: Mapping[str, Sequence[float]]
    chosen: Mapping[str, str]
    changes: Mapping[str, Sequence[Change]]


@dataclass(frozen=True)
class DemoVideo:
    """A toy video in memory, and the result of each step on it."""

    name: str
    frame_names: Sequence[str]
    frames: Tensor
    labels: Tensor
    raw_labels: Tensor
    results: dict[str, PipelineResult] = field(default_factory=dict)


def summary(found: DemoResult) -> str:
    """What the demo prints: the table, what was chosen and changed, and where to look; 80 columns."""
    columns = list(found.scores[STEPS[0]])
    rows = [
        f"{step:<14}" + "".join(f"{100 * scores[column]:>8.2f}" for column in columns) + f"   {_MEANING[step]}"
        for step, scores in found.scores.items()
    ]
    counts = Counter(change.status for changes in found.changes.values() for change in changes)
    asked = ", ".join(f"{counts[status]} {status}" for status in get_args(Status) if counts[status])
    mvc = sum(name == "mvc" for name in found.chosen.values())
    lines = [
        "",
        f"{'step':<14}" + "".join(f"{column:>8}" for column in columns),
        *rows,
        "",
        f"Percent, {len(found.chosen)} toy videos. Flow and SSIM chose the MVC model for {mvc} of them.",
        f"Regions of water: {asked or 'none found'}.",
        "Its answers are recorded ones, written by hand: no model was asked.",
        "",
        "Look at",
        *(f"  {shown(found.folder / name):<36} {what}" for name, what in LOOK_AT),
    ]
    return "\n".join(lines)


def write_files(found: DemoResult, videos: Sequence[DemoVideo]) -> None:
    """Label maps of every step, logs of questions, scores, the overlay video and the overview picture."""
    colours = np.array(CLASS_COLOURS, dtype=np.uint8)
    with ThreadPoolExecutor(max_workers=4) as pool:  # waiting for the disk, file by file, is most of the time
        for step in STEPS:
            root = found.folder / "masks" / folder_name(step)
            for video in videos:
                paths = [root / video.name / f"{name}.png" for name in video.frame_names]
                list(pool.map(partial(write_label_map, colours=colours), paths, video.results[step].labels))
            write_classes(root, CLASS_NAMES, colours)
    for name, changes in found.changes.items():
        write_changes(found.folder / "changes" / f"{name}.json", changes)
    write_json(found.folder / "scores.json", {"scores": found.scores, "chosen": found.chosen})
    panels = [_panels(video, colours) for video in videos]
    write_video(found.folder / "overlay.mp4", (beside(views, columns=2, scale=2) for views in panels), fps=FPS)
    telling = [_most_changed(video) for video in videos]
    _write_overview(found.folder / "overview.png", [_frame(*pair) for pair in zip(panels, telling, strict=True)][:4])


def folder_name(step: str) -> str:
    """A step's name as a folder: ``"+ TTA"`` is ``3-tta``."""
    return f"{STEPS.index(step) + 1}-{step.removeprefix('+ ').lower()}"


def _panels(video: DemoVideo, colours: NDArray[np.uint8]) -> dict[str, Tensor]:
    """Frames, and ground truth, first and last step laid over them; void black in the ground truth."""
    void = (video.labels == IGNORE_INDEX)[:, None]
    truth = overlay(video.frames, video.labels, colours=colours, opacity=0.7)
    laid = {
        name: overlay(video.frames, video.results[step].labels, colours=colours, opacity=0.7)
        for name, step in (("plain", STEPS[0]), ("all steps", STEPS[-1]))
    }
    return {"frame": video.frames, "ground truth": truth.masked_fill(void, 0)} | laid


def _most_changed(video: DemoVideo) -> int:
    """The frame in which the first and the last step differ most."""
    first, last = (video.results[step].labels for step in (STEPS[0], STEPS[-1]))
    return int((first != last).sum(dim=(1, 2)).argmax())


def _frame(panels: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    return {name: panel[index : index + 1] for name, panel in panels.items()}


def _write_overview(path: Path, rows: Sequence[Mapping[str, Tensor]]) -> None:
    """One picture: a row a video, one of its frames four times."""
    from PIL import Image

    picture = torch.cat([beside(panels, columns=4, scale=2)[0] for panels in rows], dim=1)
    with write_aside(path) as part:
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(part, format="PNG", optimize=True)


def write_demo_page(found: DemoResult, videos: Sequence[DemoVideo]) -> None:
    """The page ``report.html``."""
    write_page(
        found.folder / "report.html",
        title="mvcseg demo: the steps of the report on a toy set",
        videos=[
            PageVideo(
                name=video.name,
                frames=video.frames,
                predictions={_SHOWN.get(step, step): video.results[step].labels for step in STEPS},
                labels=video.labels,
                frame_names=video.frame_names,
                fps=FPS,
                changes=[change.row() for change in found.changes[video.name]],
            )
            for video in videos
        ],
        class_names=CLASS_NAMES,
        colours=np.array(CLASS_COLOURS, dtype=np.uint8),
        scores=[{"step": _SHOWN.get(step, step), **scores} for step, scores in found.scores.items()],
        class_iou={_SHOWN.get(step, step): values for step, values in found.class_iou.items()},
        notes=_NOTES,
    )
