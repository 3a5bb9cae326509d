"""What can be known to go wrong before a run begins, told by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from mvcseg.data.clip import LabelledVideo
from mvcseg.data.files import shown
from mvcseg.errors import DataError
from mvcseg.segmenter import IGNORE_INDEX

MOST_MAPS = 1000
"""Label maps that are read before a run begins; of a larger data set, so many evenly spread ones."""


def check_labels(
    videos: Sequence[LabelledVideo],
    *,
    accelerator: Any,
    most: int = MOST_MAPS,
) -> None:
    """Read label maps and require known classes, and a class in at least one pixel.

    Clips without any label may occur: their loss is 0 (pixels) or that of queries that mean nothing. A data set
    without any is a mistake.

    Args:
        videos: labelled ones.
        accelerator: of Accelerate; each process reads its share.
        most: label maps to read.

    Raises:
        DataError: a label map is broken, holds a value that is no class, or all are void; names the file.
    """
    lengths = [len(video.frames) for video in videos]
    maps = [(video, frame) for video, length in zip(videos, lengths, strict=True) for frame in range(length)]
    chosen = maps if len(maps) <= most else [maps[index * len(maps) // most] for index in range(most)]
    for looked_at in (chosen, maps):  # the second look only where the first met void alone
        with ThreadPoolExecutor(max_workers=4) as pool:
            mine = looked_at[accelerator.process_index :: accelerator.num_processes]
            found = torch.tensor(float(any(list(pool.map(_has_class, mine)))), device=accelerator.device)
        if float(accelerator.reduce(found, reduction="sum")) > 0:
            return
    raise DataError(
        f"videos: no pixel of {len(maps)} label maps has a class (all are void), so they teach and score nothing; "
        "raw mask values are 0 for void and k + 1 for class k"
    )


def note_short_videos(videos: Sequence[LabelledVideo], *, clip_length: int) -> None:
    """Name on standard error the videos whose clips are going to hold a frame more than once."""
    short = [video.name for video in videos if len(video.frames) < clip_length]
    if short:
        names = ", ".join(map(shown, short[:5])) + (", ..." if len(short) > 5 else "")
        print(
            f"note: {len(short)} of {len(videos)} videos are shorter than clip_length = {clip_length}; "
            f"their clips hold some frames more than once: {names}",
            file=sys.stderr,
        )


def _has_class(place: tuple[LabelledVideo, int]) -> bool:
    video, frame = place
    labels = video.labels
    return labels is not None and bool(torch.any(labels[frame : frame + 1] != IGNORE_INDEX))
