"""Query noise: in training the tracker starts some frames from spoilt queries, so that it learns to put them right.

Source: DVIS++, arXiv 2312.13305, section on the denoising training strategy. Of its modes, VSPW uses the weighted
average.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mvcseg.errors import ConfigError

NoiseMode = Literal["none", "rs", "wa", "cc"]
"""No noise, random shuffle, weighted average with a shuffled query, channels cut over to a shuffled query."""


@dataclass(frozen=True)
class NoiseDraw:
    """What noise does to the Q queries of one frame.

    Attributes:
        permutation: ``(Q,)`` int64, the query mixed into each.
        kept: ``(Q, 1)`` or ``(Q, C)`` in ``[0, 1]``, the share each query keeps of itself.
        is_moved: ``(Q,)`` bool, whether the other query counts as the one that stands here.
    """

    permutation: Tensor
    kept: Tensor
    is_moved: Tensor

    @property
    def order(self) -> Tensor:
        """``(Q,)`` int64, the query that stands in each place; one may stand in two."""
        return torch.where(self.is_moved, self.permutation, torch.arange(len(self.permutation)))

    def apply(self, queries: Tensor) -> Tensor:
        """Queries ``(Q, C)`` with noise."""
        kept = self.kept.to(queries)
        return queries * kept + queries[self.permutation.to(queries.device)] * (1.0 - kept)


def shuffle(permutation: Tensor) -> NoiseDraw:
    """Every query gives way to another."""
    queries = len(permutation)
    return NoiseDraw(permutation, torch.zeros(queries, 1), torch.ones(queries, dtype=torch.bool))


def weighted_average(permutation: Tensor, weight: Tensor) -> NoiseDraw:
    """Query q keeps the share ``weight[q]``; below one half the other query counts as standing there."""
    return NoiseDraw(permutation, weight.unsqueeze(-1), weight < 0.5)


def channel_cut(permutation: Tensor, cut: Tensor, *, width: int) -> NoiseDraw:
    """Query q keeps its first ``cut[q]`` of ``width`` channels; below half of them the other query counts."""
    kept = torch.arange(width) < cut.unsqueeze(-1)
    return NoiseDraw(permutation, kept.to(torch.float32), cut < width // 2)


@dataclass(frozen=True)
class QueryNoise:
    """Spoils the queries that the tracker starts a frame from.

    Args:
        mode: which noise; the published VSPW training uses ``wa``.
        probability: with which a frame gets it, 0.5 in the published training.

    Raises:
        ConfigError: an unknown mode, or a probability outside ``[0, 1]``.

    Example:
        >>> noise = QueryNoise("wa", probability=1.0)
        >>> draws = noise.draw(3, queries=5, width=16, generator=torch.Generator().manual_seed(0))
        >>> [draw.apply(torch.zeros(5, 16)).shape for draw in draws]
        [torch.Size([5, 16]), torch.Size([5, 16]), torch.Size([5, 16])]
    """

    mode: NoiseMode = "wa"
    probability: float = 0.5

    def __post_init__(self) -> None:
        if self.mode not in get_args(NoiseMode):
            raise ConfigError(f"mode: expected one of {', '.join(get_args(NoiseMode))}, got {self.mode!r}")
        if not 0.0 <= self.probability <= 1.0:
            raise ConfigError(f"probability: expected a number in [0, 1], got {self.probability!r}")

    def draw(
        self, frames: int, *, queries: int, width: int, generator: torch.Generator | None = None
    ) -> list[NoiseDraw | None]:
        """What to do in each frame; None leaves it alone.

        Args:
            frames: how many.
            queries: Q.
            width: C.
            generator: a CPU generator, since the order of queries is settled on the host; None takes torch's own.
        """
        return list(self._draws(frames, queries, width, generator))

    def _draws(
        self, frames: int, queries: int, width: int, generator: torch.Generator | None
    ) -> Iterator[NoiseDraw | None]:
        for _ in range(frames):
            if self.mode == "none" or torch.rand((), generator=generator) >= self.probability:
                yield None
                continue
            permutation = torch.randperm(queries, generator=generator)
            if self.mode == "rs":
                yield shuffle(permutation)
            elif self.mode == "wa":
                yield weighted_average(permutation, torch.rand(queries, generator=generator))
            else:
                cut = torch.randint(width, (queries,), generator=generator)
                yield channel_cut(permutation, cut, width=width)
