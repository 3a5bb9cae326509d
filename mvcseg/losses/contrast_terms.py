"""How much N anchors resemble what they should and what they should not: the arithmetic of contrastive losses.

For an anchor ``a`` with positives P and negatives N the loss is ``log(1 + sum over p, n of exp(a.n - a.p))``.

Source: DVIS++ (arXiv 2312.13305); the form is that of IDOL (arXiv 2207.10661).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from mvcseg.losses.set_matching import Match
from mvcseg.shapes import check_float, check_shapes

FAR_BELOW = -1e30
"""Score of what does not take part; finite, so that no gradient depends on how infinities are treated."""


@dataclass(frozen=True)
class Scores:
    """Inner products of N anchors with what they should resemble and what they should not.

    Attributes:
        positive: ``(N, P)``.
        negative: ``(N, S)``.
        is_negative: ``(N, S)`` bool, which of ``negative`` count; None counts all.
    """

    positive: Tensor
    negative: Tensor
    is_negative: Tensor | None = None


def contrastive_loss(scores: Scores) -> Tensor:
    """``log(1 + sum over p, n of exp(a.n - a.p))`` of every anchor.

    Computed from logarithms of sums, so finite for any finite scores; in float32 at least.

    Returns:
        ``(N,)``; zero where an anchor has nothing to be told from.

    Raises:
        ShapeError: the scores do not have the same anchors.
        DTypeError: scores are not floating-point.

    Example:
        >>> contrastive_loss(Scores(positive=torch.tensor([[0.0]]), negative=torch.tensor([[0.0, 0.0]])))  # log 3
        tensor([1.0986])
    """
    _check(scores)
    positive, negative = at_least_float32(scores.positive), at_least_float32(scores.negative)
    if scores.is_negative is not None:
        negative = torch.where(scores.is_negative, negative, FAR_BELOW)
    # the double sum is a product: of the sum over n of exp(a.n) and that over p of exp(-a.p)
    exponent = _log_sum(negative) + _log_sum(-positive)
    return torch.logaddexp(exponent, torch.zeros_like(exponent))


def similarity_error(cosines: Scores) -> Tensor:
    """Mean squared difference of cosine similarities from 1 (positives) and 0 (negatives), for every anchor.

    Returns:
        ``(N,)``, in float32 at least.

    Raises:
        ShapeError: the scores do not have the same anchors.
        DTypeError: scores are not floating-point.

    Example:
        >>> similarity_error(Scores(positive=torch.tensor([[1.0]]), negative=torch.tensor([[0.5]])))
        tensor([0.1250])
    """
    _check(cosines)
    positive, negative = at_least_float32(cosines.positive), at_least_float32(cosines.negative)
    is_negative = torch.ones_like(negative, dtype=torch.bool) if cosines.is_negative is None else cosines.is_negative
    squares = (positive - 1).square().sum(dim=1) + (negative.square() * is_negative).sum(dim=1)
    return squares / (positive.shape[1] + is_negative.sum(dim=1)).clamp(min=1)


def tracker_scores(embeds: Tensor, matches: Sequence[Match]) -> list[Scores]:
    """Every matched query of a frame against the frame before, and against the frame after.

    Anchors are of the second frame and later. The positive is the same query's vector in the other frame, the
    negatives are all other queries' vectors there.

    Args:
        embeds: ``(T, Q, C)``; of unit length, the scores are cosine similarities.
        matches: one entry a frame, or one for all.

    Returns:
        Two sets of scores: with the frame before (N = matched queries of frames 1..T-1), with the one after (of
        frames 1..T-2).
    """
    groups = of_frames(matches, num_frames=len(embeds))
    products = inner_products(embeds[1:], embeds[:-1])  # [t, i, j]: query i of frame t + 1, query j of frame t
    return [
        _against_other_frame(products, groups[1:]),
        _against_other_frame(products[1:].transpose(1, 2), groups[1:-1]),
    ]


def refiner_scores(embeds: Tensor, matches: Sequence[Match]) -> Scores:
    """Every matched query of every frame against itself in all frames, and against the others of its frame.

    Args:
        embeds: ``(T, Q, C)``; of unit length, the scores are cosine similarities.
        matches: one entry a frame, or one for all.

    Returns:
        Scores of N = matched queries of all frames, with ``P = T`` positives (the anchor itself among them) and
        ``Q`` negatives, the anchor itself not counted.
    """
    frames, queries = matched_pairs(of_frames(matches, num_frames=len(embeds)), device=embeds.device)
    over_time = rearrange(embeds, "t q c -> q t c")
    within = inner_products(embeds, embeds)
    return Scores(
        positive=inner_products(over_time, over_time)[queries, frames],
        negative=within[frames, queries],
        is_negative=~functional.one_hot(queries, embeds.shape[1]).bool(),
    )


def matched_pairs(groups: Sequence[Match], *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Frame and query ``(N,)`` of all that is matched, frame by frame."""
    frames = [torch.full((len(match.queries),), t, dtype=torch.int64) for t, match in enumerate(groups)]
    return _joined(frames).to(device), _joined([match.queries for match in groups]).to(device)


def matched_targets(groups: Sequence[Match], *, device: torch.device) -> Tensor:
    """Target ``(N,)`` of all that is matched, frame by frame."""
    return _joined([match.targets for match in groups]).to(device)


def of_frames(matches: Sequence[Match], *, num_frames: int) -> list[Match]:
    """One match a frame, where one may hold for all frames."""
    return list(matches) if len(matches) == num_frames else list(matches) * num_frames


def inner_products(ours: Tensor, theirs: Tensor) -> Tensor:
    """``(G, I, J)`` of vectors ``(G, I, C)`` and ``(G, J, C)``."""
    return torch.einsum("gic,gjc->gij", ours, theirs)


def at_least_float32(values: Tensor) -> Tensor:
    """The values, not coarser than float32."""
    check_float(values=values)
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _against_other_frame(products: Tensor, groups: Sequence[Match]) -> Scores:
    """Scores from products ``(G, Q, Q)`` of each group's queries with another frame's."""
    frames, queries = matched_pairs(groups, device=products.device)
    rows = products[frames, queries]
    return Scores(
        positive=rows.gather(1, queries[:, None]),
        negative=rows,
        is_negative=~functional.one_hot(queries, products.shape[-1]).bool(),
    )


def _log_sum(scores: Tensor) -> Tensor:
    """``log(sum(exp(scores)))`` over the last axis; ``FAR_BELOW`` of none at all."""
    none = scores.new_full((len(scores), 1), FAR_BELOW)
    return torch.logsumexp(torch.cat([scores, none], dim=1), dim=1)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.empty(0, dtype=torch.int64), *(part.cpu() for part in parts)])


def _check(scores: Scores) -> None:
    named = {"positive": (scores.positive, "n p"), "negative": (scores.negative, "n s")}
    if scores.is_negative is not None:
        named["is_negative"] = (scores.is_negative, "n s")
    check_shapes(**named)
    check_float(positive=scores.positive, negative=scores.negative)
