"""Video consistency VC_n: of the pixels whose label stays, the share whose prediction stays too.

Source: Miao et al., VSPW, CVPR 2021; VSPW-dataset/VSPW_baseline ``VC_perclip.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.errors import ConfigError
from mvcseg.shapes import check_integer, check_positive, check_shapes

Rows = TypeVar("Rows", NDArray[np.uint64], Tensor)
MOST_BANDS = 4
"""Most threads over the pixels of a video: with more, waiting for the interpreter costs what they gain."""
LEAST_BAND = 1 << 15
"""Pixels of a frame below which another thread does not pay."""
BLOCK = 1 << 15
"""Pixels of a frame worked on at a time, over all frames: threads pay on large pieces, caches hold small ones."""
_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


class VideoConsistency:
    """Mean over all clips of n frames of the share of steadily labelled pixels that are predicted steadily.

    A clip starts at every frame i in ``range(T - n)``, so the last possible clip is left out and a video of n
    frames or fewer has none. In a clip, the pixels whose ground truth is the same in all n frames are looked
    at; the clip's score is the share of them whose prediction is the same in all n frames too. Whether the
    prediction is right is not asked, and void is a value like any other. Clips of all videos weigh the same;
    a clip whose ground truth is nowhere constant is left out.

    Args:
        clip_length: n, frames in a clip; the report uses 8 and 16.

    Attributes:
        clip_length: n.
        state: ``(2,)`` float64, sum of the clips' scores and number of clips, on the CPU before the first update and
            where the newest predictions were after it; adding up the states of several processes merges them.

    Raises:
        ConfigError: ``clip_length`` is below 1.

    Example:
        >>> vc2 = VideoConsistency(clip_length=2)
        >>> labels = torch.tensor([1, 1, 1, 2]).view(4, 1, 1).expand(4, 1, 2)
        >>> pred = torch.tensor([[5, 5], [5, 6], [6, 6], [6, 6]]).view(4, 1, 2)
        >>> vc2.update(pred, labels)
        >>> vc2.compute()  # clips (0, 1) and (1, 2) score 1/2 each, (2, 3) is the last and left out
        0.5
    """

    def __init__(self, clip_length: int) -> None:
        check_positive(clip_length=clip_length)
        self.clip_length = clip_length
        self.reset()

    def reset(self) -> None:
        """Forget every update."""
        self.state = torch.zeros(2, dtype=torch.float64)

    def update(self, pred: Tensor, raw_labels: Tensor) -> None:
        """Score the clips of one whole video; on an accelerator the host waits for nothing.

        Args:
            pred: predicted labels ``(T, H, W)``, any integer dtype and device; compared for equality only.
            raw_labels: the masks' own values ``(T, H, W)``, likewise. Mapped labels give another score,
                since mapping turns void and 255 into one value.

        Raises:
            DTypeError: an argument is not an integer tensor.
            ShapeError: the shapes are not the same ``(T, H, W)``.
        """
        self.add_clips(clip_consistency(pred, raw_labels, clip_lengths=(self.clip_length,))[0])

    def add_clips(self, scores: Tensor) -> None:
        """Add clips already scored by `clip_consistency` with this clip length.

        Args:
            scores: ``(N,)`` shares, NaN where a clip has none.
        """
        if scores.device.type == "cpu":
            scored = scores[~scores.isnan()].to(torch.float64)
            self._add(torch.stack((scored.sum(), torch.tensor(float(len(scored)), dtype=torch.float64))))
        else:
            self._add(_sum_on_device(scores))

    def _add(self, state: Tensor) -> None:
        self.state = self.state.to(state.device) + state

    def merge(self, other: VideoConsistency) -> None:
        """Add what another metric has scored, as if its updates had been made here.

        Raises:
            ConfigError: ``other`` is another kind of metric or has another clip length.
        """
        if not isinstance(other, VideoConsistency) or other.clip_length != self.clip_length:
            raise ConfigError(f"other: expected {self!r} to merge with, got {other!r}")
        self.state = self.state + other.state.to(self.state.device)

    def compute(self) -> float:
        """VC_n in ``[0, 1]``; NaN where no clip was scored. Waits for the updates of an accelerator."""
        return float(self.state[0] / self.state[1])

    def __repr__(self) -> str:
        return f"VideoConsistency(clip_length={self.clip_length})"


def _sum_on_device(scores: Tensor) -> Tensor:
    """Sum and number of the scores that are none NaN; picking them out would wait to learn how many they are."""
    return torch.stack((scores.to(torch.float64).nansum(), (~scores.isnan()).sum(dtype=torch.float64)))


def clip_consistency(pred: Tensor, raw_labels: Tensor, *, clip_lengths: Sequence[int]) -> list[Tensor]:
    """Scores of every clip of a video, for several clip lengths at the cost of little more than one.

    Args:
        pred: predicted labels ``(T, H, W)``, any integer dtype and device.
        raw_labels: the masks' own values ``(T, H, W)``, any integer dtype, moved to the device of ``pred``.
        clip_lengths: frames in a clip, one or more numbers n.

    Returns:
        For each n the scores ``(max(T - n, 0),)`` float64 on the device of ``pred``, by first frame; NaN
        where the ground truth is nowhere constant.

    Raises:
        DTypeError: an argument is not an integer tensor.
        ShapeError: the shapes are not the same ``(T, H, W)``.
        ConfigError: a clip length is below 1.
    """
    for clip_length in clip_lengths:
        check_positive(clip_length=clip_length)
    check_shapes(pred=(pred, "t h w"), raw_labels=(raw_labels, "t h w"))
    check_integer(pred=pred, raw_labels=raw_labels)
    raw_labels = raw_labels.to(pred.device)
    frames, pixels = len(pred), pred[0].numel() if len(pred) else 0
    pred, raw_labels = pred.reshape(frames, pixels), raw_labels.reshape(frames, pixels)
    threads = torch.get_num_threads() if pred.device.type == "cpu" else 1
    bands = max(1, min(threads, MOST_BANDS, pixels // LEAST_BAND))
    edges = [pixels * band // bands for band in range(bands + 1)]

    def count(band: int) -> list[Tensor]:
        columns = slice(edges[band], edges[band + 1])
        return _steady_counts(pred[:, columns], raw_labels[:, columns], clip_lengths=clip_lengths)

    if bands == 1:
        counts = [count(0)]
    else:
        with ThreadPoolExecutor(max_workers=bands) as pool:
            counts = list(pool.map(count, range(bands)))
    totals = [torch.stack(of_length).sum(dim=0) for of_length in zip(*counts, strict=True)]
    return [both.to(torch.float64) / labelled for labelled, both in totals]


def _steady_counts(pred: Tensor, raw_labels: Tensor, *, clip_lengths: Sequence[int]) -> list[Tensor]:
    """For each n ``(2, max(T - n, 0))`` int64: per clip, pixels with a steady label, and with both steady."""
    if pred.device.type != "cpu":
        return _counts_on_device(pred, raw_labels, clip_lengths=clip_lengths)
    counts = _packed_counts(pred.detach().numpy(), raw_labels.detach().numpy(), clip_lengths=clip_lengths)
    return [torch.from_numpy(of_length) for of_length in counts]


def _counts_on_device(pred: Tensor, raw_labels: Tensor, *, clip_lengths: Sequence[int]) -> list[Tensor]:
    same_label = raw_labels[1:] == raw_labels[:-1]
    same_both = same_label & (pred[1:] == pred[:-1])
    counts = []
    for n in clip_lengths:
        clips = max(len(pred) - n, 0)
        if clips and n > 1:
            counts.append(
                torch.stack([_all_of(rows, spans=[n - 1])[0][:clips].sum(dim=1) for rows in (same_label, same_both)])
            )
        else:
            counts.append(torch.full((2, clips), pred.shape[1], dtype=torch.int64, device=pred.device))
    return counts


def _packed_counts(
    pred: NDArray[Any], raw_labels: NDArray[Any], *, clip_lengths: Sequence[int]
) -> list[NDArray[np.int64]]:
    """`_steady_counts` on 64 pixels at a time: one bit says whether a pixel is as it was one frame before."""
    frames, pixels = pred.shape
    steps, block = max(frames - 1, 0), max(1, min(BLOCK, pixels))
    counts = [np.full((2, max(frames - n, 0)), 0 if n > 1 else pixels, dtype=np.int64) for n in clip_lengths]
    wanted = sorted({n for n in clip_lengths if 1 < n < frames})
    scratch = np.empty(steps * block, dtype=bool)
    packed = np.zeros((2, steps, -(-block // 64) * 8), dtype=np.uint8)
    for start in range(0, pixels if wanted else 0, block):
        stop = min(start + block, pixels)
        if stop - start < block:
            packed[:] = 0
        flags = scratch[: steps * (stop - start)].reshape(steps, stop - start)
        for bits, maps in zip(packed, (raw_labels, pred), strict=True):
            same = np.equal(maps[1:, start:stop], maps[:-1, start:stop], out=flags)
            bits[:, : -(-(stop - start) // 8)] = np.packbits(same, axis=1)
        words = packed.view(np.uint64)
        words[1] &= words[0]
        for row, bits in enumerate(words):
            steady = _all_of(bits, spans=[n - 1 for n in wanted])
            for n, of_length in zip(clip_lengths, counts, strict=True):
                if n in wanted:
                    of_length[row] += _count_bits(steady[wanted.index(n)][: frames - n])
    return counts


def _all_of(rows: Rows, *, spans: Sequence[int]) -> list[Rows]:
    """For each span, rising, the element-wise "and" of every so many consecutive rows.

    ``(R, ...)`` becomes ``(R - span + 1, ...)``, by doubling; what a shorter span needed serves the longer ones.
    """
    found, width = [], 1
    for span in spans:
        while 2 * width <= span:
            rows = rows[:-width] & rows[width:]
            width *= 2
        rest = span - width
        found.append(rows[:-rest] & rows[rest:] if rest else rows)
    return found


def _count_bits(words: NDArray[np.uint64]) -> NDArray[Any]:
    """Set bits of each row of a block."""
    if hasattr(np, "bitwise_count"):  # from NumPy 2.0 on
        counts: NDArray[np.uint16] = np.bitwise_count(words).sum(axis=1, dtype=np.uint16)  # at most BLOCK
        return counts
    return np.asarray(_BITS_OF_BYTE[words.view(np.uint8)].sum(axis=1, dtype=np.int64))
