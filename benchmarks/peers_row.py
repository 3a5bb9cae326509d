"""A row of the comparison: one piece of work done by us and by a peer, its outputs compared in the same process."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peers_processes import figures_of_processes
from torch import Tensor
from turns import significant, take_turns

AT_LEAST = 2
"""Turns of a row in a process, however long they take."""


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
        turns: most of this row in a process; None takes those of the run.
        at_most: seconds of turns in a process after which no further is begun, once `AT_LEAST` are taken.
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
    at_most: float = 4.0
    devices: tuple[str, ...] = ("cpu", "cuda")


def measured(row: Row, *, turns: int, device: str = "cpu") -> dict[str, Any]:
    """The row of this process as JSON; ``equal`` says whether the outputs agree as they must (a NaN never does)."""
    number = min(row.turns or turns, turns)
    taken = take_turns(
        row.ours, row.theirs, turns=number, device=device, at_most=row.at_most, at_least=min(AT_LEAST, number)
    )
    difference = row.difference(taken.our_output, taken.peer_output)
    return {
        "key": row.key,
        "work": row.work,
        "peer": row.peer,
        "target": row.target,
        **figures_of_processes([{"ours": taken.ours, "peer": taken.peer}]),
        "measure": row.measure,
        "difference": significant(difference, 3) if math.isfinite(difference) else str(difference),
        "tolerance": row.tolerance,
        "equal": difference <= row.tolerance,
    }


def largest(ours: Any, theirs: Any) -> float:
    """Largest difference of two tensors, or of two sequences of numbers.

    A NaN equals a NaN (nothing was scored, on both sides) and differs from every number: then the result is NaN, which
    no tolerance allows. So it is where there is no number at all to compare. Infinities of one sign are equal.
    """
    a, b = (x.double().cpu() if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64) for x in (ours, theirs))
    if a.shape != b.shape:
        raise ValueError(f"outputs: expected one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    both_nan = a.isnan() & b.isnan()
    if bool(both_nan.all()):
        return math.nan
    return float(torch.where((a == b) | both_nan, 0.0, (a - b).abs()).max())


def share_that_differs(ours: Tensor, theirs: Tensor) -> float:
    """Of two label maps, the share of pixels whose labels are not the same."""
    if ours.shape != theirs.shape:
        raise ValueError(f"outputs: expected one shape, got {tuple(ours.shape)} and {tuple(theirs.shape)}")
    return float((ours.long().cpu() != theirs.long().cpu()).double().mean())
