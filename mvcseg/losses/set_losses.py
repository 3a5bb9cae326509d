"""The terms of the set loss, layer by layer, of predictions and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.losses.point_losses import mask_losses_at
from mvcseg.losses.queries import LayerPrediction, QueryClip
from mvcseg.losses.set_matching import (
    ClipTargets,
    Match,
    Matching,
    PairCosts,
    check_matching,
    check_prediction,
    count_targets,
    match_clip,
)
from mvcseg.losses.set_terms import class_loss
from mvcseg.losses.targets import Targets
from mvcseg.ops.points import Draw, check_point_numbers, uncertain_points


@dataclass(frozen=True)
class SetSettings:
    """Numbers of the set loss; see ``MaskSetObjective``."""

    matching: Matching = "frame"
    weights: PairCosts = field(default_factory=PairCosts)
    no_object_weight: float = 0.1
    num_points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75
    keep_absent: bool = False

    def __post_init__(self) -> None:
        """Check words and ranges."""
        check_matching(self.matching)
        check_point_numbers(num_points=self.num_points, oversample=self.oversample, importance=self.importance)
        if not self.no_object_weight >= 0:
            raise ConfigError(f"no_object_weight: expected at least 0, got {self.no_object_weight!r}")


@dataclass(frozen=True)
class LayerLosses:
    """One layer's terms, divided by their normalisers but not weighted; scalars.

    Attributes:
        classes: weighted mean of the class cross-entropy over queries.
        mask: binary cross-entropy, summed over targets and divided by their number.
        dice: likewise.
        matches: for every clip a match for each frame, or a single one for ``matching="video"``.
    """

    classes: Tensor
    mask: Tensor
    dice: Tensor
    matches: list[list[Match]]


@dataclass(frozen=True)
class SetLosses:
    """Terms of all layers.

    Attributes:
        layers: in the order of ``QueryClip.layers``.
    """

    layers: tuple[LayerLosses, ...]

    @property
    def matches(self) -> list[list[Match]]:
        """Of the last layer."""
        return self.layers[-1].matches

    def total(self, weights: PairCosts) -> Tensor:
        """Sum over layers of the weighted terms."""
        terms = [
            weights.class_weight * layer.classes + weights.mask_weight * layer.mask + weights.dice_weight * layer.dice
            for layer in self.layers
        ]
        return torch.stack(terms).sum()


def set_loss_terms(
    clip: QueryClip,
    targets: Sequence[ClipTargets],
    *,
    settings: SetSettings,
    draws: Sequence[Draw],
    size: Tensor | None = None,
    guided: bool = False,
) -> SetLosses:
    """Class, mask and dice terms of every layer.

    A clip draws, for its last layer first and then for the others from the first on: ``(1, P, 2)`` for each frame that
    is matched (once for all layers where guided), then ``(N, oversample * P, 2)`` and ``(N, P - importance * P, 2)``
    for its N masks; for ``matching="video"``, P is ``num_points * T``.

    Args:
        clip: predictions of B clips.
        targets: of each clip.
        settings: numbers.
        draws: of each clip.
        size: ``(2,)``, what the sums are divided by; None takes ``set_size``.
        guided: assign once, on ``clip.guide``, if there is one.

    Raises:
        ShapeError: the numbers of clips differ, or sizes do not fit.
        ConfigError: ``settings.matching`` is unknown.
        DataError: a target's class is none of the prediction's.
    """
    batch = clip.layers[-1].class_logits.shape[0]
    if not batch == len(targets) == len(draws):
        raise ShapeError(f"targets: expected one for each of {batch} clips, got {len(targets)} and {len(draws)} draws")
    if size is None:
        size = set_size([each.targets for each in targets], settings=settings)
    guide = clip.guide if guided else None
    given = None if guide is None else _match(guide, targets, settings, draws)
    last = len(clip.layers) - 1
    found: dict[int, LayerLosses] = {}
    for number in (last, *range(last)):
        layer = clip.layers[number]
        matches = _match(layer, targets, settings, draws) if given is None else given
        found[number] = _layer_losses(layer, targets, matches, settings, draws, size)
    return SetLosses(tuple(found[number] for number in range(last + 1)))


def set_size(targets: Sequence[Targets], *, settings: SetSettings) -> Tensor:
    """What the sums over these clips are divided by, known without a prediction.

    Returns:
        ``(2,)`` float on the CPU: the number of target masks, and of groups that a query gives a class in (frames, or
        clips for ``matching="video"``). With Q queries and the weight w of no object, the sum of all queries' weights
        is ``w Q groups + (1 - w) masks``.
    """
    counts = [count_targets(each, matching=settings.matching, keep_absent=settings.keep_absent) for each in targets]
    groups = [1 if settings.matching == "video" else each.num_frames for each in targets]
    return torch.tensor([float(sum(counts)), float(sum(groups))])


def _match(
    layer: LayerPrediction, targets: Sequence[ClipTargets], settings: SetSettings, draws: Sequence[Draw]
) -> list[list[Match]]:
    return [
        match_clip(
            layer,
            each,
            video=video,
            matching=settings.matching,
            costs=settings.weights,
            num_points=settings.num_points,
            draw=draws[video],
            keep_absent=settings.keep_absent,
        )
        for video, each in enumerate(targets)
    ]


def _layer_losses(
    layer: LayerPrediction,
    targets: Sequence[ClipTargets],
    matches: list[list[Match]],
    settings: SetSettings,
    draws: Sequence[Draw],
    size: Tensor,
) -> LayerLosses:
    logits = layer.class_logits
    for each in targets:
        check_prediction(layer, each.targets, matching=settings.matching)
    classes = torch.full(logits.shape[:3], logits.shape[-1] - 1)
    for video, groups in enumerate(matches):
        for group, match in enumerate(groups):
            classes[video, group, match.queries] = targets[video].targets.class_ids[match.targets]
    weight = settings.no_object_weight
    entropy = class_loss(logits.flatten(0, 2), classes.flatten().to(logits.device), no_object_weight=weight)
    parts = [
        _mask_sums(layer, each, matches[video], video=video, settings=settings, draw=draws[video])
        for video, each in enumerate(targets)
    ]
    num_masks, num_groups = size.to(entropy).unbind()
    mask, dice = (torch.stack(terms).sum() / _not_zero(num_masks) for terms in zip(*parts, strict=True))
    of_queries = weight * logits.shape[2] * num_groups + (1.0 - weight) * num_masks
    return LayerLosses(entropy / _not_zero(of_queries), mask, dice, matches)


def _mask_sums(
    layer: LayerPrediction,
    clip: ClipTargets,
    matches: Sequence[Match],
    *,
    video: int,
    settings: SetSettings,
    draw: Draw,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and dice of one clip, summed over its matched masks."""
    tall = settings.matching == "video"
    frames: list[int | None] = [None] if tall else list(range(len(matches)))
    device = layer.class_logits.device
    queries = [match.queries.to(device) for match in matches]

    masks = layer.masks.chosen(video, None, queries[0]) if tall else layer.masks.chosen_of_frames(video, queries)
    if not len(masks):
        nothing = masks.sum(dtype=torch.promote_types(masks.dtype, torch.float32))
        return nothing, nothing
    points = uncertain_points(
        masks,
        num_points=settings.num_points * (clip.targets.num_frames if tall else 1),
        oversample=settings.oversample,
        importance=settings.importance,
        draw=draw,
    )
    groups = list(zip(frames, matches, torch.split(points, [len(own) for own in queries]), strict=True))
    wanted = [clip.targets.at(frame, match.targets, own, covered=clip.covered) for frame, match, own in groups]
    weights = [weight for frame, _, own in groups if (weight := clip.weight_at(frame, own)) is not None]
    return mask_losses_at(masks, points, torch.cat(wanted), torch.cat(weights) if weights else None)


def _not_zero(size: Tensor) -> Tensor:
    return torch.where(size > 0, size, torch.ones_like(size))
