"""What query masks are compared with: the objects, or the classes, that a labelled clip shows.

Each target has one class and a mask over all frames. From a label map the masks are never made: an index map says
which target every pixel belongs to, and a mask's value at a point follows from the four pixels around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mvcseg.errors import DataError, DTypeError
from mvcseg.segmenter import IGNORE_INDEX
from mvcseg.shapes import check_integer, check_shapes


class TargetMasks(Protocol):
    """Masks of M targets in T frames of ``H x W`` pixels."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(T, H, W)``."""
        ...

    def holds(self, rows: Tensor, pixels: Tensor) -> Tensor:
        """Whether pixels belong to targets.

        Args:
            rows: numbers of targets, broadcast against ``pixels``.
            pixels: positions in the flattened ``(T H W)``.

        Returns:
            bool, of the broadcast shape.
        """
        ...


@dataclass(frozen=True)
class IndexMasks:
    """Masks that do not overlap, as one map.

    Attributes:
        index: ``(T, H, W)`` integer, the target of every pixel, -1 for none.
    """

    index: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(T, H, W)``."""
        t, h, w = self.index.shape
        return t, h, w

    def holds(self, rows: Tensor, pixels: Tensor) -> Tensor:
        """See ``TargetMasks.holds``."""
        return self.index.reshape(-1)[pixels] == rows.to(self.index.dtype)  # of one type: twice as fast


@dataclass(frozen=True)
class DenseTargetMasks:
    """Masks that may overlap, ``(M, T, H, W)`` bool."""

    masks: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(T, H, W)``."""
        _, t, h, w = self.masks.shape
        return t, h, w

    def holds(self, rows: Tensor, pixels: Tensor) -> Tensor:
        """See ``TargetMasks.holds``."""
        t, h, w = self.shape
        return self.masks.reshape(-1)[rows * (t * h * w) + pixels]


@dataclass(frozen=True)
class Targets:
    """The M targets of one clip.

    Classes and presence lie on the host, where the assignment is made; masks lie where the labels do.

    Attributes:
        class_ids: ``(M,)`` int64 on the CPU.
        is_present: ``(M, T)`` bool on the CPU, whether a target has a pixel in a frame.
        masks: of all targets.
    """

    class_ids: Tensor
    is_present: Tensor
    masks: TargetMasks

    def __len__(self) -> int:
        return len(self.class_ids)

    @property
    def num_frames(self) -> int:
        """T."""
        return int(self.is_present.shape[1])

    def at(self, frame: int | None, rows: Tensor, points: Tensor, *, covered: tuple[int, int] | None = None) -> Tensor:
        """Bilinear values of masks at points, zero outside of the frames.

        Args:
            frame: which frame; None takes the frames stacked along the height, one tall mask a target.
            rows: ``(N,)`` targets.
            points: ``(P, 2)`` for all of them or ``(N, P, 2)``, ``(x, y)`` in ``[0, 1]`` of the covered area.
            covered: height and width that points relate to, in pixels from the top left corner of a frame: at least
                the frame's where it was padded; None for the frame's own.

        Returns:
            ``(N, P)`` float in ``[0, 1]``.
        """
        frames, height, width = self.masks.shape
        tall, wide = (height, width) if covered is None else covered
        first, count = (0, frames) if frame is None else (frame, 1)
        points = points.to(torch.promote_types(points.dtype, torch.float32))
        columns = _pixel_pair(points[..., 0], size=wide, shown=width)
        rows_of_pixels = _pixel_pair(points[..., 1], size=tall, shown=height, count=count)
        rows = rows.to(points.device).unsqueeze(1)
        total = points.new_zeros(())
        for row, row_share in rows_of_pixels:
            row = (row + first * height) * width
            for column, column_share in columns:
                total = total + torch.where(self.masks.holds(rows, row + column), row_share * column_share, 0.0)
        return total


def _pixel_pair(at: Tensor, *, size: int, shown: int, count: int = 1) -> list[tuple[Tensor, Tensor]]:
    """The two pixels along one axis that a bilinear sample reads, and the share of each.

    Args:
        at: positions in ``[0, 1]``.
        size: pixels that each of ``count`` images covers.
        shown: how many of them, the first ones, the image has; a pixel without is given as 0, its share too.
        count: images, one after another.

    Returns:
        Twice: pixels, numbered through the images as they are, and shares.
    """
    place = at * (size * count) - 0.5
    low = place.floor()
    upper_share = place - low
    pairs = []
    for step, share in ((0, 1 - upper_share), (1, upper_share)):
        pixel = low.long() + step
        within = (pixel >= 0) & (pixel < size * count)
        if count > 1:
            image = pixel.div(size, rounding_mode="floor")
            pixel = pixel - image * size
            within &= pixel < shown
            pixel = pixel + image * shown
        elif shown < size:
            within &= pixel < shown
        pairs.append((torch.where(within, pixel, 0), torch.where(within, share, 0.0)))
    return pairs


def targets_of_labels(labels: Tensor, *, ignore: int = IGNORE_INDEX) -> Targets:
    """One target for every class that a clip shows, in the order of the classes.

    Args:
        labels: ``(T, H, W)`` classes from 0 to 255, any integer dtype.
        ignore: label of pixels that belong to no target.

    Returns:
        The targets; none where all pixels are ignored.

    Raises:
        ShapeError: ``labels`` is not three-dimensional.
        DTypeError: ``labels`` is not integer.
        DataError: a label is outside 0..255.

    Example:
        >>> targets = targets_of_labels(torch.tensor([[[7, 7], [2, 255]], [[7, 7], [7, 7]]]))
        >>> targets.class_ids.tolist(), targets.is_present.tolist()
        ([2, 7], [[True, False], [True, True]])
        >>> targets.at(0, torch.tensor([1]), torch.tensor([[0.5, 0.25], [0.25, 0.5]]))
        tensor([[1.0000, 0.5000]])
    """
    check_shapes(labels=(labels, "t h w"))
    check_integer(labels=labels)
    ignored = labels == ignore
    classes = torch.where(ignored, 0, labels.long())
    _check_range("labels", classes, most=255)
    return _of_codes(classes, ignored=ignored, classes=torch.arange(256))


def targets_of_instances(labels: Tensor, instances: Tensor, *, ignore: int = IGNORE_INDEX) -> Targets:
    """One target for every pair of a class and an instance number that a clip shows, in that order.

    Args:
        labels: ``(T, H, W)`` classes from 0 to 255, any integer dtype.
        instances: ``(T, H, W)`` numbers from 0 to 65535, any integer dtype; equal numbers of different classes are
            different objects.
        ignore: label of pixels that belong to no target.

    Returns:
        The targets; none where all pixels are ignored.

    Raises:
        ShapeError: the arguments are not three-dimensional or of different sizes.
        DTypeError: one is not integer.
        DataError: a label is outside 0..255 or a number outside 0..65535.

    Example:
        >>> labels, instances = torch.tensor([[[3, 3, 0]]]), torch.tensor([[[1, 2, 0]]])
        >>> targets_of_instances(labels, instances).class_ids.tolist()
        [0, 3, 3]
    """
    check_shapes(labels=(labels, "t h w"), instances=(instances, "t h w"))
    check_integer(labels=labels, instances=instances)
    ignored = labels == ignore
    classes, numbers = (torch.where(ignored, 0, maps.long()) for maps in (labels, instances))
    _check_range("labels", classes, most=255)
    _check_range("instances", numbers, most=65535)
    pairs, codes = torch.unique(classes * 65536 + numbers, return_inverse=True)
    return _of_codes(codes, ignored=ignored, classes=(pairs >> 16).cpu())


def targets_of_masks(masks: Tensor, class_ids: Tensor) -> Targets:
    """Targets whose masks may overlap.

    Args:
        masks: ``(M, T, H, W)`` bool.
        class_ids: ``(M,)`` classes of at least 0, any integer dtype.

    Raises:
        ShapeError: the numbers of masks and classes differ.
        DTypeError: ``masks`` are not bool or ``class_ids`` not integer.
        DataError: a class is negative.

    Example:
        >>> targets = targets_of_masks(torch.ones(2, 3, 4, 6, dtype=torch.bool), torch.tensor([5, 5]))
        >>> targets.is_present.shape
        torch.Size([2, 3])
    """
    check_shapes(masks=(masks, "m t h w"), class_ids=(class_ids, "m"))
    check_integer(class_ids=class_ids)
    if masks.dtype != torch.bool:
        raise DTypeError(f"masks: expected bool, got {masks.dtype}; compare with a threshold first")
    _check_range("class_ids", class_ids, most=None)
    return Targets(class_ids.long().cpu(), masks.flatten(2).any(dim=2).cpu(), DenseTargetMasks(masks))


def _of_codes(codes: Tensor, *, ignored: Tensor, classes: Tensor) -> Targets:
    """One target for every code ``(T, H, W)`` found outside of ``ignored``; ``classes`` ``(U,)`` of all codes."""
    frames = torch.arange(len(codes), device=codes.device)[:, None, None]
    counted = torch.where(ignored, len(codes) * len(classes), frames * len(classes) + codes)
    counts = counted.flatten().bincount(minlength=len(codes) * len(classes) + 1)[:-1]
    is_present = counts.view(len(codes), len(classes)).T.cpu() > 0
    rows = is_present.any(dim=1).nonzero()[:, 0]
    number_of = torch.full((len(classes),), -1, dtype=torch.int16)
    number_of[rows] = torch.arange(len(rows), dtype=torch.int16)
    index = torch.where(ignored, -1, number_of.to(codes.device)[codes])
    return Targets(classes[rows], is_present[rows], IndexMasks(index))


def _check_range(name: str, values: Tensor, *, most: int | None) -> None:
    if not values.numel():
        return
    low, high = values.aminmax()
    if int(low) < 0 or (most is not None and int(high) > most):
        expected = "at least 0" if most is None else f"0 to {most}"
        raise DataError(f"{name}: expected values of {expected}, got {int(low)} to {int(high)}")
