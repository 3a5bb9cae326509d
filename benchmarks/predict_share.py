"""How much of `mvcseg predict`'s time is the model's, from a video file to PNGs, and what stands beside it.

A clip is written by seed as MP4; `predict_to_folder` reads it with PyAV, predicts and writes label maps, and a wrapper
around the segmenter adds up the seconds inside its calls (inside ``next`` where it streams), less those it waits for
frames there. What counts as the model's is all from frames in ``[0, 1]`` (DVIS++: from bytes) to class ids, since both
kinds of model decide on classes strip by strip themselves; beside it stand reading, conversion and writing. Threads
that read and write ahead take cores from the model, which its seconds inside hold too. So the second figure counts:
in turn, the same model alone, the same frames from memory, its labels dropped; the command comes no nearer to it than
cores are free. Weights are drawn at random. Start-up is a process of its own::

    python benchmarks/predict_share.py --out benchmarks/results/predict_share.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from environment import environment, load_average
from torch import Tensor, nn
from turns import figures_of, significant

from mvcseg import iter_labels
from mvcseg.data import open_video, write_video
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.dvis import build_dvis
from mvcseg.prediction import predict_to_folder
from mvcseg.segmenter import Segmenter, Video

SIZE, CLIP_LENGTH, TARGET = (480, 853), 4, 0.9
RUNS = {"offline_r50": (6, 3), "online_r50": (6, 3), "compact": (24, 3)}
"""Frames of the video and turns, by model."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--frames", type=int, help="frames of the video (default: by model)")
    parser.add_argument("--turns", type=int, help="turns (default: by model)")
    parser.add_argument("--out", type=Path, help="JSON file; models that it holds and that are not asked for are kept")
    options = parser.parse_args()
    stamp = environment(["av", "pillow"])
    report = {"environment": stamp, "size": SIZE, "clip_length": CLIP_LENGTH, "target": TARGET}
    report["startup_seconds"] = startup()
    rows = {}
    if options.out is not None and options.out.exists():
        rows = json.loads(options.out.read_text())["models"]
    for name in options.models:
        frames, turns = RUNS[name]
        measured = row(model_of(name), frames=options.frames or frames, size=SIZE, turns=options.turns or turns)
        rows[name] = measured | {key: stamp[key] for key in ("date", "commit")}
    report["models"] = rows
    report["load_average_after"] = load_average()
    text = json.dumps(report, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


def model_of(name: str) -> Segmenter:
    """With VSPW's classes; drawn at random."""
    torch.manual_seed(0)
    model: nn.Module = CompactSegmenter(124) if name == "compact" else build_dvis(f"vspw_{name}")
    return model.requires_grad_(False).eval()  # type: ignore[return-value]


def row(model: Segmenter, *, frames: int, size: tuple[int, int], turns: int) -> dict[str, Any]:
    """One model's share of the command, and the command against the model alone, in turn after a warm-up."""
    names = [f"class {index}" for index in range(model.num_classes)]
    watched = watch(model)
    whole, inside, alone = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "clip.mp4")
        write_video(file, drifting(frames, size), fps=15)
        kept = open_video(file)[:]
        for turn in range(turns + 1):
            watched.seconds = 0.0
            target = Path(folder, f"masks{turn}")
            start = time.perf_counter()
            done = predict_to_folder(
                [open_video(file)], watched, out=target, class_names=names, clip_length=CLIP_LENGTH
            )
            whole.append(time.perf_counter() - start)
            inside.append(watched.seconds)
            start = time.perf_counter()
            for _ in iter_labels(model, kept, clip_length=CLIP_LENGTH):
                pass
            alone.append(time.perf_counter() - start)
            print(f"turn {turn}: {whole[-1]:.2f} s, {inside[-1]:.2f} inside, {alone[-1]:.2f} alone", file=sys.stderr)
            assert done.written == len(list(target.glob("clip/*.png"))) == frames
    whole, inside, alone = whole[1:], inside[1:], alone[1:]
    shares = [one / all_ for one, all_ in zip(inside, whole, strict=True)]
    return {
        "frames": frames,
        "seconds_a_frame": significant(statistics.median(whole) / frames),
        "share_in_the_model": significant(statistics.median(shares)),
        "share_of_a_turn": [significant(value) for value in (min(shares), max(shares))],
        "model_alone_to_command": significant(statistics.median(alone) / statistics.median(whole)),
        "command_to_model_alone": figures_of(whole, alone),
        "seconds_inside_a_frame": significant(statistics.median(inside) / frames),
        "asked": TARGET,
    }


class Watched:
    """A segmenter whose calls are timed.

    Attributes:
        seconds: inside its calls so far.
    """

    def __init__(self, model: Segmenter) -> None:
        self._model = model
        self.num_classes = model.num_classes
        self.seconds = 0.0

    def __call__(self, frames: Tensor, /) -> Tensor:
        """Timed."""
        with torch.no_grad():
            logits: Tensor = self._timed(lambda: self._model(frames))
            return logits

    def _timed(self, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        self.seconds += time.perf_counter() - start
        return result


class WatchedLabels(Watched):
    """One that gives class ids of clips itself."""

    def clip_labels(self, frames: Tensor, /, **options: Any) -> Tensor:
        """Timed."""
        labels: Tensor = self._timed(lambda: self._model.clip_labels(frames, **options))  # type: ignore[attr-defined]
        return labels


class WatchedStream(Watched):
    """One that sees a whole video before it answers."""

    def stream(self, video: Video, /, *, clip_length: int) -> Iterator[Tensor]:
        """Timed inside ``next``."""
        return self._steps(self._model.stream(Waited(video, self), clip_length=clip_length))  # type: ignore[attr-defined]

    def stream_labels(self, video: Video, /, **options: Any) -> Iterator[Tensor]:
        """Timed inside ``next``."""
        return self._steps(self._model.stream_labels(Waited(video, self), **options))  # type: ignore[attr-defined]

    def _steps(self, clips: Iterator[Tensor]) -> Iterator[Tensor]:
        while (clip := self._timed(lambda: next(clips, None))) is not None:
            yield clip


class Waited:
    """A video whose reading does not count as the model's time, though the model asks for the frames."""

    def __init__(self, video: Video, watched: Watched) -> None:
        self._video, self._watched = video, watched

    def __len__(self) -> int:
        return len(self._video)

    def __getitem__(self, index: slice, /) -> Tensor:
        start = time.perf_counter()
        frames = self._video[index]
        self._watched.seconds -= time.perf_counter() - start
        return frames


def watch(model: Segmenter) -> Watched:
    """With a ``stream``, or ``clip_labels``, where the model has one."""
    if hasattr(model, "stream"):
        return WatchedStream(model)
    return (WatchedLabels if hasattr(model, "clip_labels") else Watched)(model)


def drifting(frames: int, size: tuple[int, int]) -> Iterator[Tensor]:
    """Smooth colours and some noise, drifting: neither nothing to decode nor nothing but noise."""
    gen = torch.Generator().manual_seed(3)
    cells = torch.rand(1, 3, 15, 27, generator=gen) * 255
    picture = nn.functional.interpolate(cells, size=(size[0], size[1] + 4 * frames), mode="bicubic")[0]
    picture = (picture + 6 * torch.randn(picture.shape, generator=gen)).clamp(0, 255).to(torch.uint8)
    for index in range(frames):
        yield picture[:, :, 4 * index : 4 * index + size[1]]


def startup(commands: Sequence[str] = ("import torch", "import mvcseg.cli, mvcseg.commands")) -> dict[str, float]:
    """Median seconds of fresh processes that only import: PyTorch alone, and the command with it."""
    seconds: dict[str, float] = {}
    for command in commands:
        runs = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", command], check=True)
            runs.append(time.perf_counter() - start)
        seconds[command] = significant(statistics.median(runs))
    return seconds


if __name__ == "__main__":
    main()
