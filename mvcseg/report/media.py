"""Frames and label maps small enough to sit inside a page: WebP pictures, and label maps as zlib streams.

A label map travels as class ids, not as a picture, so that the page can colour, compare and count them.
(Differences between neighbouring frames or rows were measured not to be smaller: the camera moves.)
What flickers travels as one bit a pixel.
"""

from __future__ import annotations

import base64
import io
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mvcseg.data.images import open_image
from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.flow import FlowEstimator
from mvcseg.report.flicker import PAIRS_AT_ONCE, backward_flow, flicker_between
from mvcseg.segmenter import IGNORE_INDEX, Video
from mvcseg.shapes import check_positive

if TYPE_CHECKING:
    from PIL.Image import Image

SMALLEST_SIDE = 64
"""Frames are not scaled down below this longer side, whatever the bound on bytes."""
LARGEST_SIDE = 16383
"""Most pixels that WebP has room for on a side."""
READ_AT_ONCE = 16
"""Neighbouring frames read in one slice."""


@dataclass(frozen=True)
class EmbeddedVideo:
    """A video ready to be written into a page.

    Attributes:
        full_size: width and height of the frames given.
        size: width and height of what is embedded.
        positions: which frames are embedded, from 0.
        images: the frames, base64 WebP.
        maps: label maps by name, base64 of the zlib stream of uint8 ``(n, height, width)``.
        present: class ids that occur in any map, ascending.
        flicker: `flicker` of each embedded map by name, base64 of the zlib stream of the frames' bits in rows of
            whole bytes ``(n, ceil(height * width / 8))``; empty where no flow was given.
    """

    full_size: tuple[int, int]
    size: tuple[int, int]
    positions: list[int]
    images: list[str]
    maps: dict[str, str]
    present: list[int]
    flicker: dict[str, str]

    @property
    def num_bytes(self) -> int:
        """Length of all base64 text."""
        return sum(map(len, [*self.images, *self.maps.values(), *self.flicker.values()]))


def embed_video(
    frames: Video,
    maps: Mapping[str, Video],
    *,
    num_classes: int,
    max_side: int,
    max_frames: int,
    max_bytes: int,
    progress: Callable[[int, int], object],
    flow: FlowEstimator | None = None,
    keep: Sequence[int] = (),
) -> EmbeddedVideo:
    """Frames and label maps scaled down and compressed to fit ``max_bytes``.

    Args:
        frames: uint8 RGB ``(T, 3, H, W)``, tensor or lazily read.
        maps: label maps ``(T, H, W)`` by name, tensors or lazily read; class ids or 255.
        num_classes: K.
        max_side: longer side in pixels, at most; smaller frames stay as they are.
        max_frames: most frames embedded, chosen by `sample_positions`.
        max_bytes: bound on the base64 text; both sides shrink alike until it fits.
        progress: called with frames done and frames in all; begins anew where they did not fit. With a flow every
            frame counts twice.
        flow: where pixels went between two frames; None embeds no flicker. Flicker is found at the size embedded,
            between each frame and the one before it in the video, shown or not.
        keep: frames that should be among those embedded, the most important first.

    Raises:
        ConfigError: the video is empty, or a label is neither below ``num_classes`` nor 255.
        ShapeError: a map has another number or size of frames.
        DTypeError: the frames are not uint8.
    """
    for name, labels in maps.items():
        if len(labels) != len(frames):
            raise ShapeError(f"{name}: expected {len(frames)} label maps, one a frame, got {len(labels)}")
    if len(frames) == 0:
        raise ConfigError("frames: expected at least one frame, got an empty video")
    positions = sample_positions(len(frames), max_frames, keep=keep)
    side = max_side
    total = len(positions) * (1 if flow is None else 2)
    while True:
        embedded = _embed(frames, maps, positions, num_classes, side, lambda done: progress(done, total))
        is_last = side <= SMALLEST_SIDE
        if flow is not None and (is_last or embedded.num_bytes <= max_bytes):
            bits = _flicker_bits(
                frames, maps, embedded, num_classes, flow, lambda done: progress(len(positions) + done, total)
            )
            embedded = replace(embedded, flicker=bits)
        if is_last or embedded.num_bytes <= max_bytes:
            return embedded
        # bytes grow with the area or less; the last bit makes sure that every round gets smaller
        fitting = math.sqrt(max_bytes / embedded.num_bytes)
        side = max(SMALLEST_SIDE, int(max(embedded.size) * min(0.93 * fitting, 0.95)))


def without_pictures(
    frames: Video, names: Sequence[str], *, num_classes: int, max_frames: int, has_flicker: bool, keep: Sequence[int]
) -> EmbeddedVideo:
    """What `embed_video` gives but for its pictures and maps: a page of it shows how much all else takes."""
    positions = sample_positions(len(frames), max_frames, keep=keep)
    return EmbeddedVideo(
        full_size=(LARGEST_SIDE, LARGEST_SIDE),
        size=(LARGEST_SIDE, LARGEST_SIDE),
        positions=positions,
        images=[""] * len(positions),
        maps=dict.fromkeys(names, ""),
        present=list(range(num_classes)),
        flicker=dict.fromkeys(names, "") if has_flicker else {},
    )


def check_limits(*, max_side: int, max_frames: int, max_bytes: int) -> None:
    """Require limits that something fits into.

    Raises:
        ConfigError: one is no integer of at least 1, or ``max_side`` is above what WebP can hold.
    """
    check_positive(max_side=max_side, max_frames=max_frames, max_bytes=max_bytes)
    if max_side > LARGEST_SIDE:
        raise ConfigError(f"max_side: expected at most {LARGEST_SIDE}, as WebP has it, got {max_side}")


def sample_positions(length: int, most: int, *, keep: Sequence[int] = ()) -> list[int]:
    """At most ``most`` of the positions 0..length-1, evenly spaced, first and last among them.

    Those to ``keep`` come on top, as many of them (the first ones) as are half of all.

    Example:
        >>> sample_positions(100, 4), sample_positions(100, 6, keep=[40, 41, 42, 43])
        ([0, 33, 66, 99], [0, 40, 41, 42, 50, 99])
    """
    if length <= most:
        return list(range(length))
    kept = set(list(dict.fromkeys(keep))[: max(0, min(most // 2, most - 2))])
    even = most - len(kept)
    return sorted(kept | {round(i * (length - 1) / max(even - 1, 1)) for i in range(even)})


def _embed(
    frames: Video,
    maps: Mapping[str, Video],
    positions: list[int],
    num_classes: int,
    side: int,
    progress: Callable[[int], object],
) -> EmbeddedVideo:
    """Frames and label maps at one size, without flicker."""
    full_height, full_width = read_clip(frames, positions[:1]).shape[-2:]
    scale = min(1.0, side / max(full_height, full_width))
    width, height = max(1, round(full_width * scale)), max(1, round(full_height * scale))
    images = []
    for frame in _each(frames, positions):
        images.append(_encoded(_picture(frame, width, height)))
        progress(len(images))
    small = {}
    for name, labels in maps.items():
        stack = np.empty((len(positions), height, width), dtype=np.uint8)
        for out, label in zip(stack, _each(labels, positions), strict=True):
            if label.shape != (full_height, full_width):
                raise ShapeError(
                    f"{name}: expected maps of {full_height} x {full_width} like the frames, got {tuple(label.shape)}"
                )
            out[:] = _shrink(label, width, height, name, num_classes)
        small[name] = stack
    counts = sum((np.bincount(stack.ravel(), minlength=256) for stack in small.values()), np.zeros(256, dtype=np.int64))
    return EmbeddedVideo(
        full_size=(full_width, full_height),
        size=(width, height),
        positions=positions,
        images=images,
        maps={name: _base64(_deflated(stack.tobytes())) for name, stack in small.items()},
        present=[int(i) for i in np.flatnonzero(counts) if i != IGNORE_INDEX],
        flicker={},
    )


def _flicker_bits(
    frames: Video,
    maps: Mapping[str, Video],
    embedded: EmbeddedVideo,
    num_classes: int,
    flow: FlowEstimator,
    progress: Callable[[int], object],
) -> dict[str, str]:
    """What flickers in each map at the size embedded: the flow of a pair of frames serves all maps."""
    width, height = embedded.size
    rows: dict[str, list[bytes]] = {name: [] for name in maps}
    done = 0
    for run in _runs(embedded.positions, PAIRS_AT_ONCE):
        reach = [max(0, run[0] - 1), *run]  # the very first frame has none before it but itself
        pictures = [np.asarray(_picture(frame, width, height)) for frame in _each_of(frames, reach)]
        motion = backward_flow(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), flow)
        for name, labels in maps.items():
            small = [_shrink(label, width, height, name, num_classes) for label in _each_of(labels, reach)]
            stack = torch.from_numpy(np.stack(small))
            bits = flicker_between(stack[:-1], stack[1:], motion)
            if run[0] == 0:
                bits[0] = False
            rows[name].append(np.packbits(bits.flatten(1).numpy(), axis=1).tobytes())
        done += len(run)
        progress(done)
    return {name: _base64(_deflated(b"".join(parts))) for name, parts in rows.items()}


def read_clip(video: Video, positions: list[int]) -> Tensor:
    """The consecutive frames at ``positions`` of a video."""
    clip = video[positions[0] : positions[-1] + 1]
    return clip if isinstance(clip, Tensor) else torch.as_tensor(clip)


def embed_picture(path: str | os.PathLike[str], *, max_side: int = 1600) -> tuple[str, int, int]:
    """A picture from a JPEG, PNG, BMP or WebP file as base64 WebP, with its width and height in pixels.

    Raises:
        DataError: it cannot be read, or has too many pixels; names the file.
    """
    from PIL import Image

    with open_image(path) as opened:
        image = opened.convert("RGB")
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return _encoded(image), image.width, image.height


def _each(video: Video, positions: list[int]) -> Iterator[Tensor]:
    """Frames at ``positions`` in turn, neighbours read together."""
    for run in _runs(positions, READ_AT_ONCE):
        yield from read_clip(video, run)


def _each_of(video: Video, reach: list[int]) -> Iterator[Tensor]:
    """A clip read at once, whose first frame may be asked for twice."""
    clip = read_clip(video, reach)
    return (clip[position - reach[0]] for position in reach)


def _runs(positions: list[int], most: int) -> Iterator[list[int]]:
    """The positions in order, cut into neighbours of at most ``most``."""
    start = 0
    while start < len(positions):
        stop = start + 1
        while stop < len(positions) and stop - start < most and positions[stop] == positions[stop - 1] + 1:
            stop += 1
        yield positions[start:stop]
        start = stop


def _picture(frame: Tensor, width: int, height: int) -> Image:
    """One frame ``(3, H, W)`` at the size embedded."""
    from PIL import Image

    if frame.ndim != 3 or frame.shape[0] != 3:
        raise ShapeError(f"frames: expected (t 3 h w), got frames of {tuple(frame.shape)}")
    if frame.dtype != torch.uint8:
        raise DTypeError(f"frames: expected uint8 in 0..255, got {frame.dtype}")
    image = Image.fromarray(np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy()))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return image


def _encoded(image: Image) -> str:
    """A picture as base64 WebP."""
    out = io.BytesIO()
    image.save(out, "WEBP", quality=72, method=2)
    return _base64(out.getvalue())


def _deflated(data: bytes) -> bytes:
    """A zlib stream; level 9 was measured to save 2% more in three times the time."""
    return zlib.compress(data, level=8)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _shrink(
    labels: Tensor, width: int, height: int, name: str, num_classes: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The class at the centre of each embedded pixel, uint8."""
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise DTypeError(f"{name}: expected integer class ids, got {labels.dtype}")
    full_height, full_width = labels.shape
    rows = (np.arange(height) * 2 + 1) * full_height // (2 * height)
    columns = (np.arange(width) * 2 + 1) * full_width // (2 * width)
    small = labels.cpu().numpy()[rows[:, None], columns]
    wrong = small[(small < 0) | ((small >= num_classes) & (small != IGNORE_INDEX))]
    if len(wrong):
        raise ConfigError(f"{name}: expected class ids 0..{num_classes - 1} or {IGNORE_INDEX}, got {int(wrong[0])}")
    return small.astype(np.uint8)
