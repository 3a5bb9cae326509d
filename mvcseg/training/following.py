"""What a run shows while it goes: a line a step, a progress bar, curves, and pictures of what the model says."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mvcseg.data.clip import PackedClip
from mvcseg.data.palette import class_colours
from mvcseg.inference import predict_labels
from mvcseg.segmenter import Segmenter
from mvcseg.training.config import TrainConfig
from mvcseg.training.pace import Pace, clock_time
from mvcseg.training.run_folder import Log, appended_log
from mvcseg.training.strips import strip_path, write_strip
from mvcseg.training.tensorboard import RunWriter

TENSORBOARD = "tensorboard"
"""Folder of TensorBoard's files in a run's folder."""


@dataclass
class Follower:
    """Writes what happens on the first process; made by ``followed``."""

    config: TrainConfig
    out: Path
    log: Log
    writer: RunWriter | None
    bar: Any
    pace: Pace
    images: int
    _shown: str = ""

    def step(self, step: int, losses: Mapping[str, float | None], *, learning_rate: float, seconds: float) -> None:
        """A step was taken, the number ``step`` from 1."""
        speed = self.pace.step(self.images, seconds=seconds)
        rate = round(speed.images_per_second, 3)
        self.log.write(step=step, **losses, lr=learning_rate, seconds=seconds, images_per_second=rate)
        self._curves(step, {**losses, "lr": learning_rate, "images_per_second": rate})
        told = {
            name.removeprefix("loss_"): f"{value:.3f}"
            for name, value in losses.items()
            if value is not None and (name != "loss_clean" or losses.get("loss_masked") is not None)
        }
        speeds = f"{speed.images_per_second:.3g} images/s, {clock_time(speed.seconds_left)} left"
        self.bar.set_postfix_str(
            ", ".join([*(f"{k}={v}" for k, v in told.items()), speeds]) + self._shown, refresh=False
        )
        self.bar.update()

    def scores(self, step: int, scores: Mapping[str, float | None]) -> None:
        """The model was scored after a step."""
        self.log.write(step=step, **scores)
        self._curves(step, scores)
        self._shown = "".join(f", {name}={value:.3f}" for name, value in scores.items() if value is not None)

    def picture(self, step: int, batch: PackedClip, segmenter: Segmenter, *, class_names: Sequence[str]) -> None:
        """Frames, ground truth and prediction of the first clip of a batch, as a file and for TensorBoard."""
        frames, labels, _ = PackedClip(batch.frames[:1], batch.labels[:1], batch.size[:1], 0).unpacked()
        video = (frames[0] * 255).round().to(torch.uint8)
        predictions = predict_labels(segmenter, video, clip_length=len(video))
        path = strip_path(self.out, step=step)
        write_strip(path, video, labels[0], predictions, colours=class_colours(class_names), class_names=class_names)
        if self.writer is not None:
            self.writer.picture(step, path)

    def _curves(self, step: int, values: Mapping[str, float | None]) -> None:
        if self.writer is not None:
            self.writer.scalars(step, values)


@contextlib.contextmanager
def followed(config: TrainConfig, out: Path, *, done: int, processes: int) -> Iterator[Follower]:
    """A follower of the steps that are left.

    Args:
        config: the run's numbers.
        out: its folder.
        done: steps taken before.
        processes: that train together.

    Raises:
        DataError: the folder cannot be written to.
        MissingExtraError: TensorBoard is asked for and not installed.
    """
    from tqdm import tqdm

    clips = config.batch_size * config.gradient_accumulation * processes
    writer = RunWriter(out / TENSORBOARD, done=done) if config.tensorboard else contextlib.nullcontext()
    bar = tqdm(
        total=config.steps,
        initial=done,
        desc="train",
        unit="step",
        delay=2,
        # A file or pipe keeps every redraw as a line, so there the bar is drawn twice a minute.
        mininterval=0.2 if sys.stderr.isatty() else 30,
        bar_format="{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt}{postfix}",
        file=sys.stderr,
    )
    with appended_log(out) as log, writer as curves, bar:
        pace = Pace(config.steps, done=done)
        yield Follower(config, out, log, curves, bar, pace, images=clips * config.clip_length)
