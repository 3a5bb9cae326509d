"""Vectors of earlier clips, a few for each class, that later clips are told apart from.

Source: the memory of DVIS++'s refiner (arXiv 2312.13305), which holds 20 vectors a class, a random choice among those
it had and those of the last clip. There each process has its own; here all processes hold the same, so that a run does
not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mvcseg.errors import CheckpointError, DataError, ShapeError
from mvcseg.shapes import check_float, check_integer, check_num_classes, check_positive, check_shapes

Remembered: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Vectors ``(N, C)``, their classes ``(N,)`` and priorities ``(N,)``, on the CPU."""


class ClassMemory:
    """Up to ``length`` vectors for each class.

    What a training step sees waits until ``commit``: all parts of a step compare with the same memory, whether they
    run one after the other or on several processes.

    Args:
        num_classes: K.
        width: C, the length of a vector.
        length: most vectors a class has; 20 as DVIS++ trains.

    Attributes:
        vectors: ``(K, length, C)`` float32 on the CPU, zero where there is none yet.
        counts: ``(K,)`` int64, how many each class has.

    Raises:
        ConfigError: a number is below 1, or there are more classes than labels can hold.

    Example:
        >>> memory = ClassMemory(5, width=2)
        >>> memory.remember(torch.ones(3, 2), torch.tensor([4, 4, 1]), priorities=torch.rand(3))
        >>> memory.commit()
        >>> memory.counts.tolist()
        [0, 1, 0, 0, 2]
    """

    def __init__(self, num_classes: int, *, width: int, length: int = 20) -> None:
        check_num_classes(num_classes)
        check_positive(width=width, length=length)
        self.vectors = torch.zeros(num_classes, length, width)
        self.counts = torch.zeros(num_classes, dtype=torch.int64)
        self._num_commits = 0
        self._waiting: list[Remembered] = []

    def of_classes(self, class_ids: Tensor) -> tuple[Tensor, Tensor]:
        """What is remembered of some classes.

        Args:
            class_ids: ``(M,)``, 0..K-1.

        Returns:
            Vectors ``(M, length, C)`` and which of them there are, ``(M, length)`` bool, on the CPU.

        Raises:
            ShapeError: ``class_ids`` has another number of axes.
            DTypeError: ``class_ids`` is no integer tensor.
            DataError: a class is outside 0..K-1.
        """
        rows = self._rows(class_ids)
        return self.vectors[rows], torch.arange(self.vectors.shape[1]) < self.counts[rows, None]

    def remember(self, vectors: Tensor, class_ids: Tensor, *, priorities: Tensor) -> None:
        """Take vectors into the memory at the next ``commit``, without their graph.

        Args:
            vectors: ``(N, C)``.
            class_ids: ``(N,)``, 0..K-1.
            priorities: ``(N,)`` uniform in ``[0, 1)``: where there are too many, those with the largest stay.

        Raises:
            ShapeError: the sizes do not agree.
            DTypeError: ``vectors`` or ``priorities`` are not floating-point, or ``class_ids`` no integers.
            DataError: a class is outside 0..K-1.
        """
        check_shapes(vectors=(vectors, "n c"), class_ids=(class_ids, "n"), priorities=(priorities, "n"))
        check_float(vectors=vectors, priorities=priorities)
        if vectors.shape[1] != self.vectors.shape[2]:
            raise ShapeError(f"vectors: expected width {self.vectors.shape[2]}, got {tuple(vectors.shape)}")
        kept = vectors.detach().to("cpu", torch.float32, copy=True)
        self._waiting.append((kept, self._rows(class_ids), priorities.detach().to("cpu", torch.float64)))

    def commit(self, gather: Callable[[list[Remembered]], list[Remembered]] | None = None) -> None:
        """Take in what was remembered since the last commit.

        A class that would have too many keeps a random choice of what it had and what is new. Which depends on the
        priorities and on the number of commits alone, not on the order or the processes in which vectors came.

        Args:
            gather: joins the lists of all processes into one, the same on each; None where there is one process.
        """
        waiting, self._waiting = self._waiting, []
        arrived = waiting if gather is None else gather(waiting)
        generator = torch.Generator().manual_seed(self._num_commits)
        self._num_commits += 1
        num_classes, length, _ = self.vectors.shape
        # drawn for every place, so that one class's draws do not depend on how many vectors another has
        places = torch.rand(num_classes, length, generator=generator, dtype=torch.float64)
        if not arrived:
            return
        vectors, class_ids, priorities = (torch.cat(parts) for parts in zip(*arrived, strict=True))
        for row in sorted(set(class_ids.tolist())):
            count, is_new = int(self.counts[row]), class_ids == row
            candidates = torch.cat([self.vectors[row, :count], vectors[is_new]])
            order = torch.cat([places[row, :count], priorities[is_new]]).argsort(descending=True, stable=True)[:length]
            self.counts[row] = len(order)
            self.vectors[row, : len(order)] = candidates[order]

    def state_dict(self) -> dict[str, Any]:
        """All that a later run needs to go on; what waits for a commit is not part of it."""
        return {"vectors": self.vectors.clone(), "counts": self.counts.clone(), "num_commits": self._num_commits}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict``; what waits for a commit is dropped.

        Raises:
            CheckpointError: an entry is missing, or the memory stored has other classes, length or width.
        """
        for name in ("vectors", "counts", "num_commits"):
            if name not in state:
                raise CheckpointError(f"class memory: expected {name} in its state, got {sorted(state)}")
        got, expected = tuple(state["vectors"].shape), tuple(self.vectors.shape)
        if got != expected:
            raise CheckpointError(f"class memory: expected vectors (classes, length, width) {expected}, got {got}")
        self.vectors = state["vectors"].to("cpu", torch.float32, copy=True)
        self.counts = state["counts"].to("cpu", torch.int64, copy=True)
        self._num_commits = int(state["num_commits"])
        self._waiting = []

    def _rows(self, class_ids: Tensor) -> Tensor:
        check_shapes(class_ids=(class_ids, "m"))
        check_integer(class_ids=class_ids)
        rows = class_ids.to("cpu", torch.int64)
        outside = rows[(rows < 0) | (rows >= len(self.counts))]
        if len(outside):
            raise DataError(f"class_ids: expected 0..{len(self.counts) - 1}, got {int(outside[0])}")
        return rows
