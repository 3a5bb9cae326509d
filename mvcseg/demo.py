"""``mvcseg demo``: every step of the report on a toy set drawn on the spot, scored, and laid out to look at.

Each step is a call of `run_video`. So that nothing is computed twice, a later step gets the labels of the earlier one
as a segmenter (`Decided`); the last labels are those of one call with every step.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.data import write_classes, write_label_map, write_video
from mvcseg.data.files import read_json, shown, write_aside, write_json
from mvcseg.data.toy import write_toy_set
from mvcseg.data.toy_scene import CLASS_COLOURS, CLASS_NAMES
from mvcseg.data.vspw import VSPW
from mvcseg.errors import DataError
from mvcseg.flow import FarnebackFlow
from mvcseg.metrics import MeanIoU, VideoConsistency
from mvcseg.models.compact_checkpoint import load_compact, packaged_checkpoint
from mvcseg.pipeline import PipelineResult, run_video
from mvcseg.report import PageVideo, overlay, write_page
from mvcseg.report.panels import beside
from mvcseg.segmenter import IGNORE_INDEX, Segmenter, Video
from mvcseg.tta import View, multiscale_flip
from mvcseg.vlm import VLM, Change, Group, ReplayVLM, write_changes
from mvcseg.vlm.changes import Status

DEFAULT_FOLDER = "mvcseg-demo"
"""Where ``mvcseg demo`` writes unless it is told otherwise."""
STEPS = ("plain", "MVC", "+ TTA", "+ selection", "+ VLM")
"""Rows of the table; each from ``+ TTA`` on adds to the one before."""
WATER = Group("water", tuple(CLASS_NAMES.index(name) for name in ("river", "lake", "sea")))
"""The look-alike classes that the last step asks about."""
CLIP_LENGTH = 8
"""Frames that go through a model at once."""
FPS = 12.0
"""Frames per second at which the toy videos are shown."""
NUM_VIDEOS = 8
"""Validation videos of the toy set that are scored."""

_MARK = "demo.json"
_WRITTEN = ("toy", "masks", "changes", "answers", "overlay.mp4", "overview.png", "report.html", "scores.json")
_MEANING = {
    "plain": "trained without masks",
    "MVC": "trained with masked video consistency",
    "+ TTA": "4 scales, flipped or not: majority",
    "+ selection": "plain or MVC, by flow and SSIM",
    "+ VLM": "waters renamed; recorded answers",
}
_SHOWN = {"+ VLM": "+ VLM (recorded answers)"}
_LOOK_AT = (
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


class Decided:
    """Labels that are settled, as a segmenter: they come back whatever the frames show.

    Args:
        labels: class ids 0..K-1 of a whole video, ``(T, H, W)`` int64.
        num_classes: K.

    Example:
        >>> decided = Decided(torch.tensor([[[0, 2]]]), num_classes=3)
        >>> decided(torch.rand(1, 1, 3, 1, 2)).argmax(dim=2).tolist()
        [[[[0, 2]]]]
    """

    def __init__(self, labels: Tensor, *, num_classes: int) -> None:
        self.labels = labels
        self.num_classes = num_classes

    def __call__(self, frames: Tensor, /) -> Tensor:
        """Logits ``(1, T, K, H, W)`` of the video's first T frames: 0 for the label, minus infinity for the others."""
        return self._logits(0, frames.shape[1])

    def stream(self, video: Video, /, *, clip_length: int) -> Iterator[Tensor]:
        """The same for the whole video, clip by clip."""
        for start in range(0, len(video), clip_length):
            yield self._logits(start, start + clip_length)

    def _logits(self, start: int, stop: int) -> Tensor:
        labels = self.labels[None, start:stop, None]
        scores = torch.full((*labels.shape[:2], self.num_classes, *labels.shape[3:]), -torch.inf)
        return scores.scatter_(2, labels, 0.0)


def demo(*, out: str | Path = DEFAULT_FOLDER) -> DemoResult:
    """Draw the toy set, run every step of the report on it, print the scores, write what there is to look at.

    The folder then holds ``toy/`` (videos and ground truth), ``masks/<step>/<video>/<frame>.png``, ``answers/``
    (recorded answers, one file a video), ``changes/<video>.json`` (what was asked and what came of it),
    ``overlay.mp4``, ``overview.png``, ``scores.json`` and ``report.html``. Nothing is downloaded, no model is asked.

    Args:
        out: folder to write to: a new one, an empty one, or that of an earlier demo, whose files are replaced.

    Returns:
        What was printed, as numbers.

    Raises:
        DataError: ``out`` holds something else, or cannot be written.
    """
    from tqdm import tqdm

    folder = _claim(Path(out))
    with tqdm(
        total=NUM_VIDEOS * len(STEPS) + 3, desc="drawing the toy set", leave=False, file=sys.stderr, disable=None
    ) as bar:
        videos = _draw(folder / "toy")
        plain, mvc = load_compact(packaged_checkpoint("plain")), load_compact(packaged_checkpoint("mvc"))
        answers = _recorded_answers(folder / "answers")
        tallies = {step: _Tally() for step in STEPS}
        bar.update()
        for video in videos:
            vlm = ReplayVLM(answers.get(video.name, {}))
            steps = run_steps(video.frames, plain=plain, mvc=mvc, views=multiscale_flip(), vlm=vlm)
            for step in STEPS:
                bar.set_description(f"{video.name}, {step}")
                video.results[step] = next(steps)
                tallies[step].update(video.results[step].labels, video)
                bar.update()
        found = DemoResult(
            folder=folder,
            scores={step: tally.scores() for step, tally in tallies.items()},
            class_iou={step: tally.miou.per_class().tolist() for step, tally in tallies.items()},
            chosen={video.name: video.results["+ selection"].choice.name for video in videos},
            changes={video.name: video.results["+ VLM"].changes for video in videos},
        )
        bar.set_description("writing masks and videos")
        _write_files(found, videos)
        bar.update()
        bar.set_description("writing the page")
        _write_page(found, videos)
        bar.update()
    print(summary(found))
    return found


def run_steps(
    frames: Tensor, *, plain: Segmenter, mvc: Segmenter, views: Sequence[View], vlm: VLM
) -> Iterator[PipelineResult]:
    """The results of `STEPS` for one video, in that order.

    Args:
        frames: uint8 ``(T, 3, H, W)``.
        plain: segmenter trained without masks.
        mvc: segmenter trained with masked video consistency.
        views: views to vote over.
        vlm: asked about `WATER`.
    """
    num_classes = len(CLASS_NAMES)

    def step(
        segmenters: Mapping[str, Segmenter], *, views: Sequence[View] | None = None, vlm: VLM | None = None
    ) -> PipelineResult:
        return run_video(
            frames,
            segmenters,
            num_classes=num_classes,
            clip_length=CLIP_LENGTH,
            views=views,
            flow=FarnebackFlow(),
            vlm=vlm,
            groups=(WATER,),
            class_names=CLASS_NAMES,
        )

    def decided(result: PipelineResult) -> Segmenter:
        return Decided(result.labels, num_classes=num_classes)

    yield step({"plain": plain})
    yield step({"mvc": mvc})
    voted = step({"mvc": mvc}, views=views)
    yield voted
    other = step({"plain": plain}, views=views)
    selected = step({"mvc": decided(voted), "plain": decided(other)})
    yield selected
    yield step({selected.choice.name: decided(selected)}, vlm=vlm)


@dataclass(frozen=True)
class _DemoVideo:
    """A toy video in memory, and the result of each step on it."""

    name: str
    frame_names: Sequence[str]
    frames: Tensor
    labels: Tensor
    raw_labels: Tensor
    results: dict[str, PipelineResult] = field(default_factory=dict)


def _draw(root: Path) -> list[_DemoVideo]:
    """The validation videos of the toy set, written and read back."""
    write_toy_set(root, videos={"val": NUM_VIDEOS})
    videos = []
    for video in VSPW(root, split="val"):
        labels, raw_labels = video.labels, video.raw_labels
        if labels is None or raw_labels is None:
            raise DataError(f"{shown(video.folder)}: expected masks, got none")
        videos.append(_DemoVideo(video.name, video.frame_names, video.frames[:], labels[:], raw_labels[:]))
    return videos


class _Tally:
    """The scores of one step over all videos."""

    def __init__(self) -> None:
        self.miou = MeanIoU(num_classes=len(CLASS_NAMES))
        self.consistency = {f"VC{length}": VideoConsistency(clip_length=length) for length in (8, 16)}

    def update(self, labels: Tensor, video: _DemoVideo) -> None:
        self.miou.update(labels, video.labels)
        for metric in self.consistency.values():
            metric.update(labels, video.raw_labels)

    def scores(self) -> dict[str, float]:
        return {"mIoU": self.miou.compute()} | {name: metric.compute() for name, metric in self.consistency.items()}


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
        *(f"  {shown(found.folder / name):<36} {what}" for name, what in _LOOK_AT),
    ]
    return "\n".join(lines)


def _claim(folder: Path) -> Path:
    """The folder, marked as a demo's and cleared of what an earlier demo wrote; other files in it stay."""
    try:
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{shown(folder)}: expected a folder for the demo, got a file; choose another with --out")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
            raise DataError(
                f"{shown(folder)}: expected a new or empty folder or that of an earlier demo, got one that holds "
                "something else; choose another with --out"
            )
        write_json(folder / _MARK, {"written_by": "mvcseg demo", "replaced_by_the_next_demo": list(_WRITTEN)})
        for name in _WRITTEN:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot be written: {error.strerror or error}") from error
    return folder


def _recorded_answers(folder: Path) -> dict[str, dict[str, str]]:
    """Recorded answers of each video by question, written to ``folder`` as well, one file a video."""
    with as_file(files("mvcseg").joinpath("recorded/demo_answers.json")) as path:
        answers: dict[str, dict[str, str]] = read_json(path)["answers"]
    for name, by_question in answers.items():
        write_json(folder / f"{name}.json", by_question)
    return answers


def _write_files(found: DemoResult, videos: Sequence[_DemoVideo]) -> None:
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


def _panels(video: _DemoVideo, colours: NDArray[np.uint8]) -> dict[str, Tensor]:
    """Frames, and ground truth, first and last step laid over them; void black in the ground truth."""
    void = (video.labels == IGNORE_INDEX)[:, None]
    truth = overlay(video.frames, video.labels, colours=colours, opacity=0.7)
    laid = {
        name: overlay(video.frames, video.results[step].labels, colours=colours, opacity=0.7)
        for name, step in (("plain", STEPS[0]), ("all steps", STEPS[-1]))
    }
    return {"frame": video.frames, "ground truth": truth.masked_fill(void, 0)} | laid


def _most_changed(video: _DemoVideo) -> int:
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


def _write_page(found: DemoResult, videos: Sequence[_DemoVideo]) -> None:
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
