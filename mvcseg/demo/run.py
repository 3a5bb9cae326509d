"""``mvcseg demo``: every step of the report on a toy set drawn on the spot, scored, and laid out to look at."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import as_file, files
from pathlib import Path

import torch
from torch import Tensor

from mvcseg.data.files import read_json, shown, write_json
from mvcseg.data.toy import write_toy_set
from mvcseg.data.toy_scene import CLASS_NAMES
from mvcseg.data.vspw import VSPW
from mvcseg.demo.show import DemoResult, DemoVideo, summary, write_demo_page, write_files
from mvcseg.demo.steps import STEPS, WATER, run_steps
from mvcseg.errors import DataError
from mvcseg.metrics import MeanIoU, VideoConsistency
from mvcseg.models.compact_checkpoint import load_compact, packaged_checkpoint
from mvcseg.tta import multiscale_flip
from mvcseg.vlm import ReplayVLM

DEFAULT_FOLDER = "mvcseg-demo"
"""Where ``mvcseg demo`` writes unless it is told otherwise."""
NUM_VIDEOS = 8
"""Validation videos of the toy set that are scored."""

_MARK = "demo.json"
_WRITTEN = (
    *("toy", "masks", "changes", "answers", "groups.json"),
    *("overlay.mp4", "overview.png", "report.html", "scores.json"),
)


def demo(*, out: str | Path = DEFAULT_FOLDER) -> DemoResult:
    """Draw the toy set, run every step of the report on it, print the scores, write what there is to look at.

    The folder then holds ``toy/`` (videos and ground truth), ``masks/<step>/<video>/<frame>.png``,
    ``changes/<video>.json`` (what was asked and what came of it), ``answers/<video>.json`` and ``groups.json``
    (recorded answers, look-alike classes), ``overlay.mp4``, ``overview.png``, ``scores.json``, ``report.html``. Nothing
    is downloaded, no model is asked.

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
        answers = _recorded_answers(folder)
        tallies = {step: _Tally() for step in STEPS}
        bar.update()

        def work(video: DemoVideo) -> DemoVideo:
            vlm = ReplayVLM(answers.get(video.name, {}))
            for step, result in zip(
                STEPS, run_steps(video.frames, plain=plain, mvc=mvc, views=multiscale_flip(), vlm=vlm), strict=True
            ):
                video.results[step] = result
                bar.update()
            return video

        bar.set_description("running every step")
        for video in _in_threads(work, videos):
            for step, result in video.results.items():
                tallies[step].update(result.labels, video)
        found = DemoResult(
            folder=folder,
            scores={step: tally.scores() for step, tally in tallies.items()},
            class_iou={step: tally.miou.per_class().tolist() for step, tally in tallies.items()},
            chosen={video.name: video.results["+ selection"].choice.name for video in videos},
            changes={video.name: video.results["+ VLM"].changes for video in videos},
        )
        bar.set_description("writing masks and videos")
        write_files(found, videos)
        bar.update()
        bar.set_description("writing the page")
        write_demo_page(found, videos)
        bar.update()
    print(summary(found))
    return found


def _in_threads(work: Callable[[DemoVideo], DemoVideo], videos: Sequence[DemoVideo]) -> Iterator[DemoVideo]:
    """The videos in order when their work is done: several at once, each in one thread.

    Models this small gain little from threads that share one frame, and lose much where other programs want the cores.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(min(threads, len(videos)), initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(work, videos)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _draw(root: Path) -> list[DemoVideo]:
    """The validation videos of the toy set, written and read back."""
    write_toy_set(root, videos={"val": NUM_VIDEOS})
    videos = []
    for video in VSPW(root, split="val"):
        labels, raw_labels = video.labels, video.raw_labels
        if labels is None or raw_labels is None:
            raise DataError(f"{shown(video.folder)}: expected masks, got none")
        videos.append(DemoVideo(video.name, video.frame_names, video.frames[:], labels[:], raw_labels[:]))
    return videos


class _Tally:
    """The scores of one step over all videos."""

    def __init__(self) -> None:
        self.miou = MeanIoU(num_classes=len(CLASS_NAMES))
        self.consistency = {f"VC{length}": VideoConsistency(clip_length=length) for length in (8, 16)}

    def update(self, labels: Tensor, video: DemoVideo) -> None:
        self.miou.update(labels, video.labels)
        for metric in self.consistency.values():
            metric.update(labels, video.raw_labels)

    def scores(self) -> dict[str, float]:
        return {"mIoU": self.miou.compute()} | {name: metric.compute() for name, metric in self.consistency.items()}


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
    """Recorded answers of each video by question; written out too, with the group, as `mvcseg correct` takes them."""
    with as_file(files("mvcseg").joinpath("recorded/demo_answers.json")) as path:
        answers: dict[str, dict[str, str]] = read_json(path)["answers"]
    for name, by_question in answers.items():
        write_json(folder / "answers" / f"{name}.json", by_question)
    classes = [CLASS_NAMES[index] for index in WATER.class_ids]
    write_json(folder / "groups.json", [{"noun": WATER.noun, "classes": classes}])
    return answers
