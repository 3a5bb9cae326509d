"""Contrastive re-identification: a query's vector in one frame should resemble itself in others, and nothing else.

What is compared with what differs from stage to stage: here for the tracker and for the refiner, in
``mvcseg.losses.reid`` for a segmenter that is trained as CTVIS is. ``mvcseg.losses.contrast_terms`` has the formula.

Source: DVIS++ (arXiv 2312.13305) and CTVIS (arXiv 2307.12616). They average over the comparisons of one process and
then over processes; here the mean is over the comparisons of all clips of a step, wherever they were computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.losses.class_memory import ClassMemory
from mvcseg.losses.contrast_terms import (
    Scores,
    at_least_float32,
    contrastive_loss,
    matched_pairs,
    matched_targets,
    of_frames,
    refiner_scores,
    tracker_scores,
)
from mvcseg.losses.set_matching import Match
from mvcseg.losses.targets import Targets
from mvcseg.ops.points import Draw
from mvcseg.shapes import check_float, check_shapes

SMALLEST_SIZE = 1e-6
"""What a sum is divided by at least, where no target is to be compared."""


class Contrast(Protocol):
    """A contrastive loss on the vectors that a query model gives while training."""

    def __call__(
        self,
        embeds: Tensor,
        matches: Sequence[Sequence[Match]],
        targets: Sequence[Targets],
        *,
        draws: Sequence[Draw],
        size: Tensor | None = None,
    ) -> Tensor:
        """The weighted loss, a scalar with a graph.

        Args:
            embeds: ``(B, T, Q, C)``, one vector for every query and frame.
            matches: for each clip which query meets which target, one entry a frame, or one for all its frames.
            targets: of each clip.
            draws: of each clip, where uniform random numbers come from.
            size: what the sum over all comparisons is divided by; None takes ``self.size(targets)``.
        """
        ...

    def size(self, targets: Sequence[Targets]) -> Tensor:
        """How many comparisons these clips make if every target meets a query, a scalar.

        The losses of a step's parts, each divided by the mean size of all parts, have the loss of all clips at
        once as their mean. Known without the model's answer.
        """
        ...


class TrackerContrast:
    """Contrast of the tracker's references: a query resembles itself in the next frame, and no other query.

    Per matched query and frame (but the first) one comparison with the frame before and one with the frame after.

    Args:
        weight: factor on the loss, at least 0; 2 as DVIS++ trains.

    Raises:
        ConfigError: ``weight`` is negative or not finite.

    Source: DVIS++, arXiv 2312.13305.
    """

    def __init__(self, *, weight: float = 2.0) -> None:
        self.weight = check_factor(weight=weight)

    def __call__(
        self,
        embeds: Tensor,
        matches: Sequence[Sequence[Match]],
        targets: Sequence[Targets],
        *,
        draws: Sequence[Draw] = (),
        size: Tensor | None = None,
    ) -> Tensor:
        """See ``Contrast.__call__``; nothing is drawn.

        Raises:
            ShapeError: ``embeds`` is not ``(B, T, Q, C)``, or matches or targets are not one entry a clip.
            DTypeError: ``embeds`` is not floating-point.
        """
        check_clips(embeds, matches, targets)
        with torch.autocast(embeds.device.type, enabled=False):
            parts = [
                contrastive_loss(scores).sum()
                for clip, groups in zip(at_least_float32(embeds), matches, strict=True)
                for scores in tracker_scores(clip, groups)
            ]
            return self.weight * mean_over(parts, embeds=embeds, size=self.size(targets) if size is None else size)

    def size(self, targets: Sequence[Targets]) -> Tensor:
        """See ``Contrast.size``: a target of T frames makes ``(T - 1) + (T - 2)`` comparisons."""
        return count_over(
            len(shown_classes(clip)) * (max(clip.num_frames - 1, 0) + max(clip.num_frames - 2, 0)) for clip in targets
        )


class RefinerContrast:
    """Contrast of the refiner's outputs: a query resembles itself in all frames.

    Per matched query and frame one comparison with the other queries of its frame as negatives and, where earlier
    clips left vectors of the target's class in the memory, one with those.

    Args:
        memory: vectors of earlier clips; None compares within the clip only. What a step sees, it remembers; the
            training loop calls ``memory.commit`` after the step.
        weight: factor on the loss, at least 0; 2 as DVIS++ trains.

    Raises:
        ConfigError: ``weight`` is negative or not finite.

    Source: DVIS++, arXiv 2312.13305.
    """

    def __init__(self, memory: ClassMemory | None = None, *, weight: float = 2.0) -> None:
        self.memory = memory
        self.weight = check_factor(weight=weight)

    def __call__(
        self,
        embeds: Tensor,
        matches: Sequence[Sequence[Match]],
        targets: Sequence[Targets],
        *,
        draws: Sequence[Draw] = (),
        size: Tensor | None = None,
    ) -> Tensor:
        """See ``Contrast.__call__``; with a memory, one number is drawn for every vector that is to be remembered.

        Raises:
            ShapeError: ``embeds`` is not ``(B, T, Q, C)``, or matches, targets or draws are not one entry a clip.
            DTypeError: ``embeds`` is not floating-point.
        """
        check_clips(embeds, matches, targets, None if self.memory is None else draws)
        clips = at_least_float32(embeds)
        with torch.autocast(embeds.device.type, enabled=False):
            parts = []
            for clip, match, of_clip in zip(clips, matches, targets, strict=True):
                groups = of_frames(match, num_frames=len(clip))
                within = refiner_scores(clip, groups)
                parts.append(contrastive_loss(within).sum())
                parts.append(self._against_memory(clip, groups, of_clip.class_ids, within.positive))
            loss = self.weight * mean_over(parts, embeds=embeds, size=self.size(targets) if size is None else size)
        if self.memory is not None and embeds.requires_grad:
            for clip, match, of_clip, draw in zip(clips, matches, targets, draws, strict=True):
                _remember(self.memory, clip, of_frames(match, num_frames=len(clip)), of_clip.class_ids, draw=draw)
        return loss

    def size(self, targets: Sequence[Targets]) -> Tensor:
        """See ``Contrast.size``: a target of T frames makes T comparisons, 2 T if its class is in the memory."""
        shown = [(clip.num_frames, shown_classes(clip)) for clip in targets]
        return count_over(frames * (len(classes) + self._num_remembered(classes)) for frames, classes in shown)

    def _num_remembered(self, class_ids: Tensor) -> int:
        return 0 if self.memory is None else int(self.memory.of_classes(class_ids)[1].any(dim=1).sum())

    def _against_memory(self, clip: Tensor, groups: Sequence[Match], class_ids: Tensor, positive: Tensor) -> Tensor:
        if self.memory is None:
            return clip[..., :0].sum()
        frames, queries = matched_pairs(groups, device=clip.device)
        rows = matched_targets(groups, device=clip.device)
        remembered, is_filled = (found.to(clip.device)[rows] for found in self.memory.of_classes(class_ids))
        negative = torch.einsum("nc,nlc->nl", clip[frames, queries], remembered.to(clip.dtype))
        return contrastive_loss(Scores(positive, negative, is_filled)).sum()


def mean_over(parts: Sequence[Tensor], *, embeds: Tensor, size: Tensor) -> Tensor:
    """The sum of the parts divided by ``size``; zero with a graph where there is nothing to compare."""
    nothing = at_least_float32(embeds[..., :0]).sum()
    return torch.stack([nothing, *parts]).sum() / size.to(nothing).clamp(min=SMALLEST_SIZE)


def shown_classes(targets: Targets) -> Tensor:
    """Class of every target that any frame shows, ``(M,)``."""
    return targets.class_ids[targets.is_present.any(dim=1)]


def count_over(counts: Iterable[int]) -> Tensor:
    """Their sum, a scalar."""
    return torch.tensor(float(sum(counts)))


def check_factor(**named: float) -> float:
    """Require one factor that is finite and not negative."""
    ((name, value),) = named.items()
    if isinstance(value, bool) or not isinstance(value, Real) or not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name}: expected a finite number of at least 0, got {value!r}")
    return float(value)


def check_clips(
    embeds: Tensor,
    matches: Sequence[Sequence[Match]],
    targets: Sequence[Targets],
    draws: Sequence[Draw] | None = None,
) -> None:
    """Require vectors of clips, and of each clip its matches, its targets and, where it is asked for, its draw."""
    sizes = check_shapes(embeds=(embeds, "b t q c"))
    check_float(embeds=embeds)
    for name, given in (("matches", matches), ("targets", targets), ("draws", draws)):
        if given is not None and len(given) != sizes["b"]:
            raise ShapeError(f"{name}: expected one entry for each of {sizes['b']} clips, got {len(given)}")
    for number, (groups, clip) in enumerate(zip(matches, targets, strict=True)):
        if len(groups) not in (1, sizes["t"]):
            raise ShapeError(
                f"matches[{number}]: expected one entry, or one for each of {sizes['t']} frames, got {len(groups)}"
            )
        if clip.num_frames != sizes["t"]:
            raise ShapeError(f"targets[{number}]: expected {sizes['t']} frames as in embeds, got {clip.num_frames}")


def _remember(memory: ClassMemory, clip: Tensor, groups: Sequence[Match], class_ids: Tensor, *, draw: Draw) -> None:
    frames, queries = matched_pairs(groups, device=clip.device)
    rows = matched_targets(groups, device=class_ids.device)
    memory.remember(clip[frames, queries], class_ids[rows], priorities=draw((len(rows),)))
