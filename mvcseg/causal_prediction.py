"""Label maps of a source without an end, written as its frames come."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.data.label_maps import write_classes_once, write_label_map
from mvcseg.data.palette import class_colours
from mvcseg.errors import ConfigError, DataError, ShapeError
from mvcseg.inference import evaluating
from mvcseg.tta import View, scaled_views


@runtime_checkable
class CausalSegmenter(Protocol):
    """A segmenter that labels frames as they come."""

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        ...

    def stream_causal(
        self, frames: Iterable[Tensor], *, state: Any = None, output_size: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """Class ids of each frame, from it and those before."""
        ...


def is_causal(segmenter: object) -> TypeGuard[CausalSegmenter]:
    """Whether a segmenter labels frames as they come; one with a refiner needs the whole video."""
    return isinstance(segmenter, CausalSegmenter) and getattr(segmenter, "refiner", None) is None


@torch.no_grad()
def predict_causally(
    frames: Iterable[Tensor],
    segmenter: CausalSegmenter,
    *,
    out: str | os.PathLike[str],
    class_names: Sequence[str],
    name: str = "stdin",
    short_side: int | None = None,
    long_side: int | None = None,
    raw_ids: bool = False,
) -> int:
    """Write ``<out>/<name>/00000000.png`` and so on, each as soon as its frame has come, and ``<out>/classes.json``.

    Every label map appears under its name only when complete. A source that breaks off leaves those before.

    Args:
        frames: uint8 ``(3, H, W)``, all of one size.
        segmenter: has ``stream_causal``.
        out: folder, made if missing.
        class_names: names of its K classes.
        name: folder of the label maps; must not hold any.
        short_side: the segmenter sees frames whose shorter side has this many pixels; None keeps their size.
        long_side: the longer side of those is at most this many pixels.
        raw_ids: write 0 for void and k + 1 for class k.

    Returns:
        How many were written.

    Raises:
        ConfigError: ``class_names`` are not K, or 255 classes are to have raw ids.
        DataError: the folder holds label maps, ``out`` lists other classes or cannot be written, or the source
            breaks off.
        ShapeError: a frame has another size than the first.
    """
    if len(class_names) != segmenter.num_classes:
        raise ConfigError(f"class_names: expected {segmenter.num_classes} as the segmenter has, got {len(class_names)}")
    if raw_ids and len(class_names) > 254:
        raise ConfigError(f"raw_ids: expected at most 254 classes (255 means ignore), got {len(class_names)}")
    target = Path(out, name)
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.glob("*.png")):
            raise DataError(
                f"{shown(target)}: holds label maps already, and a pipe cannot be continued; choose another"
            )
    except OSError as error:
        raise DataError(f"{shown(target)}: cannot be written: {error.strerror or error}") from error
    colours = class_colours(class_names)
    write_classes_once(out, class_names, colours, raw_ids=raw_ids)
    palette = np.concatenate([np.zeros((1, 3), dtype=np.uint8), colours]) if raw_ids else colours
    source = iter(frames)
    first = next(source, None)
    if first is None:
        raise DataError(f"{name}: expected at least one frame, got none")
    size = (first.shape[-2], first.shape[-1])
    (view,) = scaled_views(size, None, short_side=short_side, long_side=long_side) or (View(),)
    count = 0
    with evaluating(segmenter):
        seen = _seen(first, source, view, size)
        for labels in segmenter.stream_causal(seen, output_size=size):
            write_label_map(target / f"{count:08d}.png", labels.cpu() + int(raw_ids), colours=palette)
            count += 1
    return count


def _seen(first: Tensor, others: Iterator[Tensor], view: View, size: tuple[int, int]) -> Iterator[Tensor]:
    yield view.apply(first)
    for frame in others:
        if tuple(frame.shape[-2:]) != size:
            raise ShapeError(f"frames: expected {size} pixels as the first, got {tuple(frame.shape[-2:])}")
        yield view.apply(frame)
