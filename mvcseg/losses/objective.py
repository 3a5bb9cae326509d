"""Objectives: what a training step minimises, as a function of the segmenter and its input.

Masked video consistency calls the same objective on the clean and on the masked clip, so it needs to know
neither the loss nor what the model returns for it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mvcseg.errors import ConfigError
from mvcseg.losses.cross_entropy import counted_weight, pixel_cross_entropy
from mvcseg.segmenter import Segmenter
from mvcseg.shapes import check_integer, check_shapes


class Objective(Protocol):
    """``(segmenter, frames, labels, weight) -> scalar loss``."""

    def __call__(self, segmenter: Segmenter, frames: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """Loss of ``segmenter`` on frames ``(B, T, 3, H, W)``, labels and pixel weights ``(B, T, H, W)``."""
        ...


@runtime_checkable
class RandomObjective(Objective, Protocol):
    """An objective that draws, such as the points at which masks are compared."""

    def with_generators(self, generators: Sequence[torch.Generator]) -> Objective:
        """The same objective drawing from these, one for each clip of the batch, or one for all."""
        ...


@runtime_checkable
class SizedObjective(Objective, Protocol):
    """An objective that is a sum, or several, divided by sizes known from the labels alone.

    Where a step's clips are spread over batches and processes, each part's sum must be divided by the mean size
    of all parts: then the mean of the parts' losses is the loss of all clips at once.
    """

    def size(self, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """What the loss of labels ``(B, T, H, W)`` is divided by: a float tensor of a shape of its own."""
        ...

    def for_step(self, *, size: Tensor, progress: float) -> Objective:
        """The same objective within a training step.

        Args:
            size: mean of ``size`` over all parts of the step, of the same shape.
            progress: share of the run that is done, in ``[0, 1)``.
        """
        ...


@runtime_checkable
class LeanObjective(Objective, Protocol):
    """An objective that can do with less memory where it computes something twice."""

    def lean(self) -> Objective:
        """The same objective, to the bit, in less memory and more time."""
        ...


def lean(objective: Objective) -> Objective:
    """The objective in as little memory as it can do with."""
    return objective.lean() if isinstance(objective, LeanObjective) else objective


def with_generators(objective: Objective, generators: torch.Generator | Sequence[torch.Generator] | None) -> Objective:
    """The objective, drawing from these generators if it draws at all."""
    if generators is None or not isinstance(objective, RandomObjective):
        return objective
    return objective.with_generators([generators] if isinstance(generators, torch.Generator) else generators)


class PixelObjective:
    """Cross-entropy of the segmenter's logits.

    Args:
        class_weight: one factor a class, or None for equal ones.
        label_smoothing: share of the target spread over all classes, in ``[0, 1]``.

    Raises:
        ConfigError: ``label_smoothing`` is outside ``[0, 1]``, or a class weight is negative.

    Example:
        >>> from mvcseg import PerFrame
        >>> segmenter = PerFrame(torch.nn.Conv2d(3, 4, 1), num_classes=4, logits_of=lambda out: out)
        >>> labels = torch.zeros(1, 2, 32, 32, dtype=torch.uint8)
        >>> PixelObjective()(segmenter, torch.rand(1, 2, 3, 32, 32), labels).ndim
        0
    """

    def __init__(self, *, class_weight: Sequence[float] | None = None, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"label_smoothing: expected a share in [0, 1], got {label_smoothing!r}")
        if class_weight is not None and not all(value >= 0 for value in class_weight):
            raise ConfigError(f"class_weight: expected factors of at least 0, got {list(class_weight)}")
        self.class_weight = None if class_weight is None else tuple(float(value) for value in class_weight)
        self.label_smoothing = label_smoothing
        self._size: Tensor | None = None

    def size(self, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The sum of the weights of labelled pixels, a float scalar; arguments as in a call.

        Raises:
            ShapeError: weights do not fit the labels.
            DTypeError: labels are not integer.
        """
        check_shapes(labels=(labels, "b t h w"), weight=(labels if weight is None else weight, "b t h w"))
        check_integer(labels=labels)
        return counted_weight(labels, weight=weight, class_weight=self._class_weight(labels.device)).sum()

    def for_step(self, *, size: Tensor, progress: float) -> PixelObjective:
        """The same objective within a training step.

        Args:
            size: mean of ``size`` over all parts of the step; the loss is divided by it.
            progress: not used.
        """
        twin = copy.copy(self)
        twin._size = size
        return twin

    def __call__(self, segmenter: Segmenter, frames: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss, a scalar with a graph.

        Args:
            segmenter: gives logits ``(B, T, K, H, W)``.
            frames: ``(B, T, 3, H, W)`` in ``[0, 1]``.
            labels: ``(B, T, H, W)`` classes, 255 ignored.
            weight: ``(B, T, H, W)`` pixel weights in ``[0, 1]``, or None.

        Raises:
            ShapeError: logits, labels or weights do not fit the frames.
            DataError: on the CPU, a label is outside the classes.
        """
        logits = segmenter(frames)
        return pixel_cross_entropy(
            logits,
            labels,
            weight=weight,
            class_weight=self._class_weight(logits.device),
            label_smoothing=self.label_smoothing,
            divisor=self._size,
        )

    def _class_weight(self, device: torch.device) -> Tensor | None:
        return None if self.class_weight is None else torch.tensor(self.class_weight, device=device)
