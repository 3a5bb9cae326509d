"""Contrastive re-identification of a segmenter's queries, which meet the targets frame by frame.

The vector of the query that meets a target in one frame should resemble the target's vectors of earlier frames and
differ from the other queries of the frame before.

Source: CTVIS (arXiv 2307.12616) as DVIS++ trains with it; the running mean is that of arXiv 2203.14208.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.losses.contrast_terms import (
    Scores,
    at_least_float32,
    contrastive_loss,
    inner_products,
    of_frames,
    similarity_error,
)
from mvcseg.losses.contrastive import check_clips, check_factor, count_over, mean_over
from mvcseg.losses.set_matching import Match
from mvcseg.losses.targets import Targets
from mvcseg.ops.points import Draw

MEAN_ABOVE = 0.5
"""A draw above this takes the running mean as positive, one of at most this the last vector."""


class ReidContrast:
    """Contrast of re-identification vectors over the frames of a clip.

    An anchor is the vector of the query that meets a target, in every frame but the first where the target is. Its
    positive is the target's last vector before or, with probability one half, the running mean of those before; where
    there are none, its next one. Its negatives are the queries of the frame before, but for the one that met the target
    there. The running mean moves to a new vector by the mean cosine similarity of that vector with those before,
    and not at all where it is negative.

    Args:
        weight: factor on the contrastive term, at least 0; 2 as CTVIS trains.
        similarity_weight: factor on the mean squared difference between cosine similarities and 1 (positive) or 0
            (negatives), at least 0; 3 as CTVIS trains.

    Raises:
        ConfigError: a factor is negative or not finite.

    Source: CTVIS, arXiv 2307.12616. Its code drops the anchors of a target that appears in frame t and is missing from
    t later ones, by comparing two counts that are not of the same frames; here they take part.
    """

    def __init__(self, *, weight: float = 2.0, similarity_weight: float = 3.0) -> None:
        self.weight = check_factor(weight=weight)
        self.similarity_weight = check_factor(similarity_weight=similarity_weight)

    def __call__(
        self,
        embeds: Tensor,
        matches: Sequence[Sequence[Match]],
        targets: Sequence[Targets],
        *,
        draws: Sequence[Draw],
        size: Tensor | None = None,
    ) -> Tensor:
        """See ``Contrast.__call__``; for each clip one number is drawn for every frame and target, ``(T, M)``.

        Raises:
            ShapeError: ``embeds`` is not ``(B, T, Q, C)``, or matches, targets or draws are not one entry a clip.
            DTypeError: ``embeds`` is not floating-point.
        """
        check_clips(embeds, matches, targets, draws)
        with torch.autocast(embeds.device.type, enabled=False):
            parts = []
            for clip, groups, of_clip, draw in zip(at_least_float32(embeds), matches, targets, draws, strict=True):
                contrast, error = reid_terms(clip, groups, of_clip, takes_mean=draw(_shape(of_clip)) > MEAN_ABOVE)
                parts.append(self.weight * contrast.sum() + self.similarity_weight * error.sum())
            return mean_over(parts, embeds=embeds, size=self.size(targets) if size is None else size)

    def size(self, targets: Sequence[Targets]) -> Tensor:
        """See ``Contrast.size``: one comparison for every frame but the first where a target of two frames is."""
        presence = (clip.is_present for clip in targets)
        return count_over(int((seen[:, 1:] & (seen.sum(dim=1, keepdim=True) > 1)).sum()) for seen in presence)


def reid_terms(
    embeds: Tensor, matches: Sequence[Match], targets: Targets, *, takes_mean: Tensor
) -> tuple[Tensor, Tensor]:
    """Both terms of every anchor of one clip.

    Args:
        embeds: ``(T, Q, C)``.
        matches: one entry a frame.
        targets: M of them.
        takes_mean: ``(T, M)`` bool, whether the running mean is the positive where a target was seen before.

    Returns:
        Contrastive loss and similarity error, ``(N,)`` each, frame by frame.
    """
    track = _track(matches, targets)
    frames, rows, before, nearest = (index.to(embeds.device) for index in track.anchors())
    vectors = embeds[torch.arange(len(embeds), device=embeds.device)[:, None], track.queries.to(embeds.device)]
    is_seen = track.is_seen.to(embeds.device)
    means = running_means(vectors, is_seen)
    is_mean = takes_mean.to(embeds.device)[frames, rows] & before
    positive = torch.where(is_mean[:, None], means[frames - 1, rows], vectors[nearest, rows])
    anchors, queries = vectors[frames, rows], track.queries.to(embeds.device)
    own = functional.one_hot(queries[frames - 1, rows], embeds.shape[1]).bool()
    is_negative = ~(own & is_seen[frames - 1, rows, None])

    def scores(anchors: Tensor, positive: Tensor, embeds: Tensor) -> Scores:
        products = inner_products(embeds[1:], embeds[:-1])
        negative = products[frames - 1, queries[frames, rows]]
        return Scores((anchors * positive).sum(dim=1, keepdim=True), negative, is_negative)

    directions = (functional.normalize(each, dim=-1) for each in (anchors, positive, embeds))
    return contrastive_loss(scores(anchors, positive, embeds)), similarity_error(scores(*directions))


def running_means(vectors: Tensor, is_seen: Tensor) -> Tensor:
    """Mean of a target's vectors up to each frame, in which vectors like those before count more.

    Args:
        vectors: ``(T, M, C)``.
        is_seen: ``(T, M)`` bool; vectors where it is False are not looked at.

    Returns:
        ``(T, M, C)``; zero before a target is seen.
    """
    directions = functional.normalize(vectors, dim=-1)
    mean = directions_sum = torch.zeros_like(vectors[:1].sum(dim=0))
    count = is_seen.new_zeros(is_seen.shape[1], dtype=torch.int64)
    means = []
    for vector, direction, seen in zip(vectors, directions, is_seen, strict=True):  # each mean follows from the last
        similarity = (directions_sum * direction).sum(dim=-1) / count.clamp(min=1)
        share = torch.where(count == 0, 1.0, similarity.clamp(min=0))[:, None]
        mean = torch.where(seen[:, None], (1 - share) * mean + share * vector, mean)
        directions_sum = torch.where(seen[:, None], directions_sum + direction, directions_sum)
        count = count + seen
        means.append(mean)
    return torch.stack(means)


@dataclass(frozen=True)
class _Track:
    """Where M targets of a clip are seen and by which query, on the host.

    Attributes:
        queries: ``(T, M)``, 0 where a target is not seen.
        is_seen: ``(T, M)`` bool, whether a target is present and met by a query.
    """

    queries: Tensor
    is_seen: Tensor

    def anchors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of every anchor its frame, its target, whether that was seen before, and the nearest other frame with it."""
        count = len(self.is_seen)
        numbers = torch.arange(count)[:, None]
        last = torch.where(self.is_seen, numbers, -1).cummax(dim=0).values
        last = torch.cat([torch.full_like(last[:1], -1), last[:-1]])
        following = torch.where(self.is_seen, numbers, count).flip(0).cummin(dim=0).values.flip(0)
        following = torch.cat([following[1:], torch.full_like(following[:1], count)])
        nearest = torch.where(last >= 0, last, following)
        is_anchor = self.is_seen & (nearest < count) & (numbers > 0)
        frames, rows = is_anchor.nonzero(as_tuple=True)
        return frames, rows, last[frames, rows] >= 0, nearest[frames, rows]


def _track(matches: Sequence[Match], targets: Targets) -> _Track:
    queries = torch.zeros(_shape(targets), dtype=torch.int64)
    is_met = torch.zeros(_shape(targets), dtype=torch.bool)
    for t, match in enumerate(of_frames(matches, num_frames=len(queries))):
        queries[t, match.targets.cpu()] = match.queries.cpu()
        is_met[t, match.targets.cpu()] = True
    return _Track(queries, is_met & targets.is_present.T.cpu())


def _shape(targets: Targets) -> tuple[int, int]:
    return targets.num_frames, len(targets)
