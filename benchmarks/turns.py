"""The one way two pieces of work are timed: in one process, in turn (A B A B), after a warm-up.

A busy machine stretches both sides of a turn alike, so ratios of turns are kept next to the medians; seconds of every
turn are kept too, for whoever asks how sure a ratio is (``gate.py``).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Turns:
    """Seconds of every turn, ours and the peer's, and what both returned in the warm-up."""

    ours: list[float]
    peer: list[float]
    our_output: Any
    peer_output: Any

    def record(self) -> dict[str, Any]:
        """Everything but the outputs, as a row of JSON."""
        return figures_of(self.ours, self.peer)


def take_turns(
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    *,
    turns: int,
    device: str = "cpu",
    at_most: float | None = None,
    at_least: int = 3,
    share: float = 1.0,
) -> Turns:
    """Time both in turn.

    Args:
        ours: the work, without arguments.
        peer: what it is compared with.
        turns: how many turns are taken, at least 1.
        device: where the work runs; anything but the CPU is waited for before and after each timing.
        at_most: no turn is begun after so many seconds of turns.
        at_least: turns that are taken whatever they cost.
        share: the part of our work that the peer does too; our seconds count that much (one class of eight, say).

    Returns:
        Seconds of each turn and the outputs of the warm-up, one call of either.
    """
    if turns < 1:
        raise ValueError(f"turns: expected at least 1, got {turns}")
    our_output, peer_output = ours(), peer()
    seconds: tuple[list[float], list[float]] = ([], [])
    begin = time.perf_counter()
    for turn in range(turns):
        if at_most is not None and turn >= at_least and time.perf_counter() - begin > at_most:
            break
        for column, call in zip(seconds, (ours, peer), strict=True):
            column.append(seconds_of(call, device=device))
    return Turns([share * one for one in seconds[0]], seconds[1], our_output, peer_output)


def seconds_of(call: Callable[[], Any], *, device: str = "cpu") -> float:
    """Seconds of one call, the device's work included."""
    wait_for(device)
    start = time.perf_counter()
    output = call()
    wait_for(device)
    seconds = time.perf_counter() - start
    del output  # freed outside the timing, alike for both sides
    return seconds


def wait_for(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def figures_of(ours: Sequence[float], peer: Sequence[float]) -> dict[str, Any]:
    """Medians, their ratio (above 1: ours is faster) and the spread of the ratios of a turn.

    Args:
        ours: our seconds, one a turn.
        peer: the peer's seconds of the same turns.

    Returns:
        ``ours_ms`` and ``peer_ms``: medians; ``ratio``: of the medians; ``ratio_of_a_turn``: lowest, lower quartile,
        median, upper quartile, highest; ``seconds``: every turn.
    """
    ratios = [theirs / own for own, theirs in zip(ours, peer, strict=True)]
    return {
        "turns": len(ratios),
        "ours_ms": significant(1e3 * statistics.median(ours)),
        "peer_ms": significant(1e3 * statistics.median(peer)),
        "ratio": significant(statistics.median(peer) / statistics.median(ours)),
        "ratio_of_a_turn": [significant(value) for value in five_numbers(ratios)],
        "seconds": {"ours": [significant(one, 5) for one in ours], "peer": [significant(one, 5) for one in peer]},
    }


def five_numbers(values: Sequence[float]) -> list[float]:
    """Lowest, lower quartile, median, upper quartile, highest."""
    if len(values) == 1:
        return [values[0]] * 5
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    return [min(values), lower, middle, upper, max(values)]


def significant(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")
