"""The clips of every step: which samples each process reads, and what happens when reading them fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from mvcseg.data.clip import LabelledVideo, PackedClip
from mvcseg.data.clips import ClipDataset
from mvcseg.data.collate import packed_batch
from mvcseg.errors import DataError, MvcsegError, TrainingError
from mvcseg.training.config import TrainConfig

Item = TypeVar("Item")


def clip_dataset(config: TrainConfig, videos: Sequence[LabelledVideo], *, processes: int) -> ClipDataset:
    """The clips of a whole run.

    Raises:
        ConfigError: the configuration's sizes contradict each other.
        DataError: a video has no frames or labels, or is too short for the sampling; names the videos.
    """
    return ClipDataset(
        videos,
        clip_length=config.clip_length,
        sampling=config.sampling,
        strides=config.strides,
        window=config.window,
        reverse=config.reverse,
        short_videos=config.short_videos,
        short_sides=config.short_sides,
        long_side=config.long_side,
        scales=config.scales,
        crop_size=config.crop_size,
        crop_range=config.crop_range,
        flip=config.flip,
        colour=config.colour,
        seed=config.seed,
        num_samples=config.steps * config.gradient_accumulation * config.batch_size * processes,
    )


def iter_steps(
    config: TrainConfig, clips: ClipDataset, *, first_step: int, process: int, processes: int, pin_memory: bool
) -> Iterator[list[PackedClip]]:
    """The batches of each step from the first on, for one process.

    Which samples a step holds follows from its number and its size alone: ``gradient_accumulation * processes``
    consecutive batches, shared out in turn. They are read ahead: two batches by each of ``num_workers`` processes, or
    without any a step by a thread.

    Raises:
        DataError: a file cannot be read; names it, or the video and frames.
        TrainingError: a process that reads clips died.
    """
    size = config.batch_size
    first, last = (step * config.gradient_accumulation for step in (first_step, config.steps))
    starts = ((batch * processes + process) * size for batch in range(first, last))
    loader = DataLoader(
        _Told(clips),
        batch_sampler=[list(range(start, start + size)) for start in starts],
        collate_fn=_collate,
        num_workers=config.num_workers,
        pin_memory=pin_memory,
        # Its own generator, so that making a loader does not move the one that resuming restores.
        generator=torch.Generator().manual_seed(config.seed),
    )
    batches = _readable(iter(loader), has_workers=config.num_workers > 0)
    steps = _in_steps(batches, config.gradient_accumulation)
    if config.num_workers:
        return steps
    return read_by_thread(steps, device=torch.cuda.current_device() if pin_memory else None)


def read_by_thread(items: Iterator[Item], *, device: int | None = None) -> Iterator[Item]:
    """The items, of which none is None, each made by a thread while the one before is worked on.

    What fails in advance is raised where the item is asked for.

    Args:
        items: made by one thread at a time.
        device: the GPU that the thread belongs to, where making items has to do with one.

    Example:
        >>> list(read_by_thread(iter("abc")))
        ['a', 'b', 'c']
    """
    begin = None if device is None else partial(torch.cuda.set_device, device)
    with ThreadPoolExecutor(max_workers=1, initializer=begin) as reader:
        coming = reader.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = reader.submit(next, items, None)
            yield item


def worker_died(error: Exception) -> TrainingError:
    """The error for what PyTorch says of a reading process that is no more."""
    reason = str(error).splitlines()[0]
    return TrainingError(
        f"num_workers: a process that reads clips died ({reason}); was memory short? Fewer workers need less"
    )


def _in_steps(batches: Iterator[PackedClip], count: int) -> Iterator[list[PackedClip]]:
    while step := list(islice(batches, count)):
        yield step


class _Told(Dataset[PackedClip | MvcsegError]):
    """Clips, or the error that reading one gave: raised in a worker, its message would become a traceback."""

    def __init__(self, clips: ClipDataset) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> PackedClip | MvcsegError:
        try:
            return self._clips.packed(index)
        except MvcsegError as error:
            return error
        except OSError as error:
            return DataError(f"{self._clips.source(index)}: cannot be read ({error.strerror or error})")


def _collate(items: Sequence[PackedClip | MvcsegError]) -> PackedClip | MvcsegError:
    clips: list[PackedClip] = []
    for item in items:
        if isinstance(item, MvcsegError):
            return item
        clips.append(item)
    return packed_batch(clips)


def _readable(batches: Iterator[PackedClip | MvcsegError], *, has_workers: bool) -> Iterator[PackedClip]:
    while True:
        try:
            batch = next(batches, None)
        except (RuntimeError, OSError) as error:
            # A worker that lives hands its errors on as "Caught ..."; all else is said of one that is no more.
            if not has_workers or str(error).startswith("Caught "):
                raise
            raise worker_died(error) from error
        if batch is None:
            return
        if isinstance(batch, MvcsegError):
            raise batch
        yield batch
