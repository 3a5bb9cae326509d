"""A row of the comparison: one piece of work done by us and by a peer, its outputs compared in the same run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from turns import significant, take_turns


@dataclass(frozen=True)
class Row:
    """What is timed against what, and how the outputs must agree.

    Args:
        key: name that stays the same from run to run, ``group/...``.
        work: what is done, for readers.
        peer: who else does it, and how.
        ours: the work by public names of the library.
        theirs: the same by the peer.
        difference: how far the outputs lie apart, of ``(ours, theirs)``.
        tolerance: the largest difference allowed.
        measure: what the difference counts, for readers.
        target: the least ratio asked for, where one is.
        turns: most of this row; None takes those of the run.
        at_most: seconds of turns after which no further is begun, once three are taken.
        devices: where the row makes sense.
    """

    key: str
    work: str
    peer: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    difference: Callable[[Any, Any], float]
    tolerance: float
    measure: str = "largest difference"
    target: float | None = None
    turns: int | None = None
    at_most: float = 20.0
    devices: tuple[str, ...] = ("cpu", "cuda")


def measured(row: Row, *, turns: int, device: str = "cpu") -> dict[str, Any]:
    """The row as JSON; ``equal`` says whether the outputs agree as they must (a NaN never does)."""
    taken = take_turns(row.ours, row.theirs, turns=min(row.turns or turns, turns), device=device, at_most=row.at_most)
    difference = row.difference(taken.our_output, taken.peer_output)
    return {
        "key": row.key,
        "work": row.work,
        "peer": row.peer,
        "target": row.target,
        **taken.record(),
        "measure": row.measure,
        "difference": significant(difference, 3) if math.isfinite(difference) else str(difference),
        "tolerance": row.tolerance,
        "equal": difference <= row.tolerance,
    }


def largest(ours: Any, theirs: Any) -> float:
    """Largest difference of two tensors, or of two sequences of numbers; NaN where a NaN meets a number."""
    a, b = (x.double().cpu() if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64) for x in (ours, theirs))
    if a.shape != b.shape:
        raise ValueError(f"outputs: expected one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    both_nan = a.isnan() & b.isnan()
    return float((a - b).abs()[~both_nan].max()) if not bool(both_nan.all()) else 0.0


def share_that_differs(ours: Tensor, theirs: Tensor) -> float:
    """Of two label maps, the share of pixels whose labels are not the same."""
    if ours.shape != theirs.shape:
        raise ValueError(f"outputs: expected one shape, got {tuple(ours.shape)} and {tuple(theirs.shape)}")
    return float((ours.long().cpu() != theirs.long().cpu()).double().mean())
