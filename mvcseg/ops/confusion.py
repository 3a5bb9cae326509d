"""Confusion matrix of label maps: how often each true class was given each label.

Label maps are bytes, so one table of 256 x 256 pair counts holds everything: predictions outside the classes
and labels that should not be there are read from it, without another pass over the pixels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.errors import DataError, ShapeError
from mvcseg.ops.places import places
from mvcseg.shapes import check_integer, check_num_classes

IGNORED = 255
CHUNK = 1 << 20
"""Pixels counted at a time: threads pay on pieces this large. OpenCV counts in float32, which is exact below 2**24."""
DENSE = 1 / 8
"""Share of pixels unlike their left neighbour from which runs no longer pay."""
SAMPLE = 1 << 16
"""Pixels by which that share is judged."""
BELOW, ABOVE = 256, 257
"""Rows of `count_pairs` for labels that are no byte."""
DEVICE_CHUNK = 1 << 23
"""Pixels counted at a time on an accelerator."""
LANES = 32
"""Tables that an accelerator counts into side by side, lest neighbouring pixels, mostly alike, wait for one another."""


def confusion_matrix(pred: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """Pixel counts by true class and predicted class.

    On an accelerator it waits for the counts, to raise here and not later; `count_pairs` does not.

    Args:
        pred: predicted class ids, any shape and integer dtype; a value outside ``0..K-1`` is no class.
        labels: true class ids ``0..K-1``, 255 where a pixel is not to be counted; same shape, any integer
            dtype, moved to the device of ``pred``.
        num_classes: K, 1 to 255.

    Returns:
        ``(K, K + 1)`` int64 on the device of ``pred``: row = true class, column = predicted class, the last
        column the predictions outside ``0..K-1``. All zero where no pixel is labelled.

    Raises:
        DTypeError: an argument is not an integer tensor.
        ShapeError: the shapes differ.
        ConfigError: ``num_classes`` is outside 1 to 255.
        DataError: ``labels`` hold a value that is neither a class nor 255.

    Example:
        >>> confusion_matrix(torch.tensor([0, 1, 1, 9]), torch.tensor([0, 0, 1, 1]), num_classes=2)
        tensor([[1, 1, 0],
                [0, 1, 1]])
    """
    counts = count_pairs(pred, labels, num_classes=num_classes)
    check_label_counts(counts.sum(dim=1), num_classes=num_classes)
    return counts[:num_classes].clone()


def count_pairs(pred: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """Pixel counts by label of whatever value and predicted class, without a look at the counts.

    Nothing waits for an accelerator: whether the labels are classes is for `check_label_counts` to say, when the caller
    wants to know.

    Args:
        pred: predicted class ids, as for `confusion_matrix`.
        labels: true class ids, likewise.
        num_classes: K, 1 to 255.

    Returns:
        ``(258, K + 1)`` int64 on the device of ``pred``: row = label 0 to 255, then labels below 0 and above 255.
        The first K rows are the confusion matrix.

    Raises:
        DTypeError: an argument is not an integer tensor.
        ShapeError: the shapes differ.
        ConfigError: ``num_classes`` is outside 1 to 255.
        DataError: on the CPU, where it costs nothing, labels are below 0 or above 255.
    """
    check_num_classes(num_classes)
    check_integer(pred=pred, labels=labels)
    if pred.shape != labels.shape:
        raise ShapeError(f"labels: expected {tuple(pred.shape)} from pred, got {tuple(labels.shape)}")
    labels = labels.to(pred.device)
    count = _count_on_cpu if pred.device.type == "cpu" else _count_on_device
    return count(pred.reshape(-1), labels.reshape(-1), num_classes=num_classes)


def check_label_counts(counts: Tensor, *, num_classes: int) -> None:
    """Require that only classes and 255 have occurred as labels.

    Args:
        counts: pixels by label, ``(258,)`` int64: the row sums of `count_pairs`.
        num_classes: K.

    Raises:
        DataError: another value has.
    """
    stray = counts.clone()
    stray[:num_classes] = stray[IGNORED] = 0
    for value in stray.nonzero()[:1, 0].tolist():
        raise _stray_label({BELOW: "a negative value", ABOVE: "a value above 255"}.get(value, value), num_classes)


def _stray_label(value: int | str, num_classes: int) -> DataError:
    hint = "; a raw mask (0 void, 1..K) must be mapped first" if value == num_classes else ""
    return DataError(f"labels: expected class ids 0..{num_classes - 1} or 255 (ignored), got {value}{hint}")


def _count_on_cpu(pred: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    pred_ids, label_ids = pred.detach().numpy(), labels.detach().numpy()
    starts = range(0, len(pred_ids), CHUNK)
    threads = max(1, min(torch.get_num_threads(), len(starts)))

    def count(thread: int) -> NDArray[Any]:
        total, scratch = np.zeros((256, 256)), np.empty((2, min(CHUNK, len(pred_ids))), dtype=bool)
        for start in starts[thread::threads]:
            rows = _labels_as_bytes(label_ids[start : start + CHUNK], num_classes=num_classes)
            columns = _as_bytes(pred_ids[start : start + CHUNK], num_classes=num_classes)
            total += _count_bytes(rows, columns, scratch=scratch)
        return total

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            total = sum(pool.map(count, range(threads)), start=np.zeros((256, 256)))
    else:
        total = count(0)
    table = np.zeros((258, num_classes + 1), dtype=np.int64)
    table[:256, :num_classes] = total[:, :num_classes]
    table[:256, num_classes] = total[:, num_classes:].sum(axis=1)
    return torch.from_numpy(table)


def _labels_as_bytes(labels: NDArray[Any], *, num_classes: int) -> NDArray[np.uint8]:
    """The same labels as bytes, which they must be."""
    if labels.dtype == np.uint8:
        return labels
    if not 0 <= int(np.bitwise_or.reduce(labels)) <= IGNORED:
        lowest, highest = int(labels.min()), int(labels.max())
        raise _stray_label(lowest if lowest < 0 else highest, num_classes)
    return labels.astype(np.uint8)


def _as_bytes(ids: NDArray[Any], *, num_classes: int) -> NDArray[np.uint8]:
    """The same class ids as bytes; whatever is no class becomes some value from K to 255."""
    if ids.dtype == np.uint8:
        return ids
    if 0 <= int(np.bitwise_or.reduce(ids)) <= IGNORED:
        return ids.astype(np.uint8)
    wide = ids.astype(np.int64, copy=False)  # uint64 from 2**63 on turns negative, which is no class either
    return np.clip(wide, -1, num_classes).astype(np.uint8)  # -1 turns into 255


def _count_bytes(rows: NDArray[np.uint8], columns: NDArray[np.uint8], *, scratch: NDArray[np.bool_]) -> NDArray[Any]:
    """Counts ``(256, 256)`` of the pairs of bytes, exact.

    Label maps are mostly runs of one pair, so runs are counted, weighted by their length. Where they are not, OpenCV's
    histogram counts every pixel, several times as fast as NumPy's bincount.

    Args:
        rows: one of a pair, ``(N,)``.
        columns: the other, likewise.
        scratch: two rows of N flags or more; overwritten.
    """
    sampled = np.count_nonzero(_ends(rows[:SAMPLE], columns[:SAMPLE], scratch=scratch))
    is_dense = sampled > DENSE * min(len(rows), SAMPLE) + 1
    cv2 = _opencv() if is_dense else None
    if cv2 is not None:
        counts: NDArray[np.float32] = cv2.calcHist(
            [rows[None], columns[None]], [0, 1], None, [256, 256], [0, 256, 0, 256]
        )
        return counts
    ends = places(_ends(rows, columns, scratch=scratch))
    pairs = rows.take(ends).astype(np.uint16)
    pairs <<= 8
    pairs |= columns.take(ends)
    lengths = ends.copy()
    lengths[1:] -= ends[:-1]
    lengths[0] += 1
    return np.bincount(pairs, weights=lengths, minlength=256 * 256).reshape(256, 256)


def _ends(rows: NDArray[np.uint8], columns: NDArray[np.uint8], *, scratch: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a run of one pair ends: the next pair is another one, or there is none."""
    ends: NDArray[np.bool_] = scratch[0, : len(rows)]
    others = scratch[1, : len(rows) - 1]
    np.not_equal(rows[1:], rows[:-1], out=ends[:-1])
    np.not_equal(columns[1:], columns[:-1], out=others)
    ends[:-1] |= others
    ends[-1] = True
    return ends


def _count_on_device(pred: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """`count_pairs` in PyTorch, for devices other than the CPU: `torch.bincount` would wait to learn its size."""
    cells = (ABOVE + 1) * (num_classes + 1)
    total = torch.zeros(LANES * cells, dtype=torch.int64, device=pred.device)
    one = torch.ones(1, dtype=torch.int64, device=pred.device)
    for start in range(0, len(pred), DEVICE_CHUNK):
        ids, rows = (maps[start : start + DEVICE_CHUNK].to(torch.int64) for maps in (pred, labels))
        rows = rows.masked_fill(rows > IGNORED, ABOVE).masked_fill(rows < 0, BELOW)
        columns = ids.masked_fill((ids < 0) | (ids >= num_classes), num_classes)
        lane = torch.arange(len(ids), device=pred.device) % LANES
        places = (lane * (ABOVE + 1) + rows) * (num_classes + 1) + columns
        total.scatter_add_(0, places, one.expand_as(places))
    return total.view(LANES, ABOVE + 1, num_classes + 1).sum(dim=0)


def _opencv() -> Any | None:
    """OpenCV; None where it does not load."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2
