"""The VSPW scores as a plain NumPy script: frame by frame and clip by clip, the way the public ones go about it.

The yardstick of ``peers_scores.py`` in figures and in time; the definitions are those of VSPW_baseline's ``utils.py``
and ``VC_perclip.py``. It reads no files: videos are arrays.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Maps = NDArray[np.integer]
Video = tuple[Maps, Maps]
"""Predicted class ids and ground truth of a video, both ``(T, H, W)``."""


def mean_iou(videos: Iterable[Video], *, num_classes: int) -> float:
    """Mean IoU over the classes present in the ground truth (class ids, 255 void), from one confusion matrix."""
    confusion = np.zeros((num_classes, num_classes))
    for pred, labels in videos:
        for frame in range(len(labels)):
            confusion += confusion_of_frame(pred[frame], labels[frame], num_classes=num_classes)
    hits = np.diag(confusion)
    labelled = confusion.sum(axis=1)
    union = labelled + confusion.sum(axis=0) - hits
    present = labelled > 0
    return float(np.mean(hits[present] / union[present]))


def confusion_of_frame(pred: Maps, labels: Maps, *, num_classes: int) -> NDArray[np.int64]:
    """Counts of (true class, predicted class); predictions must be classes."""
    counted = (labels >= 0) & (labels < num_classes)
    pairs = num_classes * labels[counted].astype(int) + pred[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_ids(raw: Maps) -> Maps:
    """Raw mask values (0 void, k + 1 class k, 255 void) as class ids with 255 for void, step by step."""
    labels = raw.copy()
    labels[labels == 0] = 255
    labels = labels - 1
    labels[labels == 254] = 255
    return labels


def video_consistency(videos: Iterable[Video], *, clip_length: int) -> float:
    """Mean over the clips of all videos (raw masks); a clip whose ground truth is nowhere constant is left out."""
    scores: list[float] = []
    for pred, raw in videos:
        if len(raw) <= clip_length:
            continue
        scores.extend(clip_scores(pred, raw, clip_length=clip_length))
    return float(np.nanmean(np.array(scores)))


def clip_scores(pred: Maps, raw: Maps, *, clip_length: int) -> list[float]:
    """For every clip the share of steadily labelled pixels that are predicted steadily."""
    scores = []
    for start in range(len(raw) - clip_length):
        steady_label = np.ones(raw.shape[1:])
        steady_pred = np.ones(raw.shape[1:])
        for later in range(start + 1, start + clip_length):
            steady_label = np.logical_and(steady_label, raw[start] == raw[later])
            steady_pred = np.logical_and(steady_pred, pred[start] == pred[later])
        labelled = steady_label.sum()
        both = np.logical_and(steady_label, steady_pred).sum()
        scores.append(float(both) / float(labelled) if labelled else float("nan"))
    return scores
