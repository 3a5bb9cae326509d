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
from mvcseg.shapes import check_integer, check_num_classes

IGNORED = 255
CHUNK = 1 << 20
"""Pixels counted at a time; OpenCV counts in float32, which is exact below 2**24."""
DENSE = 1 / 12
"""Share of pixels unlike their left neighbour from which runs no longer pay."""
SAMPLE = 1 << 16
"""Pixels by which that share is judged."""


def confusion_matrix(pred: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """Pixel counts by true class and predicted class.

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
    check_num_classes(num_classes)
    check_integer(pred=pred, labels=labels)
    if pred.shape != labels.shape:
        raise ShapeError(f"labels: expected {tuple(pred.shape)} from pred, got {tuple(labels.shape)}")
    labels = labels.to(pred.device)
    _check_bytes(labels, num_classes=num_classes)
    counts = _count_by_label(pred.reshape(-1), labels.reshape(-1), num_classes=num_classes)
    # Looking at the counts waits for the device, for the sake of an error at the call that caused it.
    stray = counts[num_classes:IGNORED].sum(dim=1).nonzero()
    if len(stray):
        raise _stray_label(num_classes + int(stray[0]), num_classes=num_classes)
    return counts[:num_classes].clone()


def _check_bytes(labels: Tensor, *, num_classes: int) -> None:
    """Labels wider than a byte must hold bytes before they are narrowed."""
    if labels.dtype == torch.uint8 or labels.numel() == 0:
        return
    wide = labels if labels.dtype in (torch.int16, torch.int32, torch.int64) else labels.to(torch.int64)
    lowest, highest = (int(value) for value in torch.aminmax(wide))
    if lowest < 0 or highest > IGNORED:
        raise _stray_label(lowest if lowest < 0 else highest, num_classes=num_classes)


def _stray_label(value: int, *, num_classes: int) -> DataError:
    hint = "; a raw mask (0 void, 1..K) must be mapped first" if value == num_classes else ""
    return DataError(f"labels: expected class ids 0..{num_classes - 1} or 255 (ignored), got {value}{hint}")


def _count_by_label(pred: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """Counts ``(256, K + 1)`` int64 of (label byte, prediction), the last column predictions that are no class."""
    if pred.device.type != "cpu":
        return _count_on_device(pred, labels, num_classes=num_classes)
    pred_ids, label_ids = pred.detach().numpy(), labels.detach().numpy()

    def count(start: int) -> NDArray[Any]:
        columns = _as_bytes(pred_ids[start : start + CHUNK], num_classes=num_classes)
        rows = label_ids[start : start + CHUNK].astype(np.uint8, copy=False)
        return _count_pairs(rows, columns)

    starts = range(0, len(pred_ids), CHUNK)
    total = np.zeros((256, 256))
    if len(starts) == 1:
        total += count(0)
    else:
        with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
            for counts in pool.map(count, starts):
                total += counts
    outside = total[:, num_classes:].sum(axis=1, keepdims=True)
    return torch.from_numpy(np.concatenate((total[:, :num_classes], outside), axis=1).astype(np.int64))


def _as_bytes(ids: NDArray[Any], *, num_classes: int) -> NDArray[np.uint8]:
    """The same class ids as bytes; whatever is no class becomes some value from K to 255."""
    if ids.dtype == np.uint8:
        return ids
    wide = ids.astype(np.int64, copy=False)  # uint64 from 2**63 on turns negative, which is no class either
    return np.clip(wide, -1, num_classes).astype(np.uint8)  # -1 turns into 255


def _count_pairs(rows: NDArray[np.uint8], columns: NDArray[np.uint8]) -> NDArray[Any]:
    """Counts ``(256, 256)`` of the pairs of bytes, exact.

    Label maps are mostly runs of one pair, so runs are counted, weighted by their length. Where they are not, OpenCV's
    histogram counts every pixel, several times as fast as NumPy's bincount.
    """
    is_dense = np.count_nonzero(_changes(rows[:SAMPLE], columns[:SAMPLE])) > DENSE * min(len(rows), SAMPLE)
    cv2 = _opencv() if is_dense else None
    if cv2 is not None:
        counts: NDArray[np.float32] = cv2.calcHist(
            [rows[None], columns[None]], [0, 1], None, [256, 256], [0, 256, 0, 256]
        )
        return counts
    last = np.append(np.flatnonzero(_changes(rows, columns)), len(rows) - 1)
    pairs = rows[last].astype(np.int64) * 256 + columns[last]
    return np.bincount(pairs, weights=np.diff(last, prepend=-1), minlength=256 * 256).reshape(256, 256)


def _changes(rows: NDArray[np.uint8], columns: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the next pair is another one."""
    changes: NDArray[np.bool_] = rows[1:] != rows[:-1]
    changes |= columns[1:] != columns[:-1]
    return changes


def _count_on_device(pred: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """`_count_by_label` in PyTorch, for devices other than the CPU."""
    cells = 256 * (num_classes + 1)
    total = torch.zeros(cells, dtype=torch.int64, device=pred.device)
    for start in range(0, len(pred), 8 * CHUNK):
        ids = pred[start : start + 8 * CHUNK].to(torch.int64)
        rows = labels[start : start + 8 * CHUNK].to(torch.int64)
        columns = ids.masked_fill((ids < 0) | (ids >= num_classes), num_classes)
        total += torch.bincount(rows * (num_classes + 1) + columns, minlength=cells)
    return total.view(256, num_classes + 1)


def _opencv() -> Any | None:
    """OpenCV; None where it does not load."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2
