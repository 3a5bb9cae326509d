"""The set loss of query models: each target is assigned a query, which is to give its class and its mask.

Every layer of a prediction is assigned and compared on its own (deep supervision), unless a guide assigns them all.
Masks are compared at points, most of them where the predicted mask is uncertain.

Source: Mask2Former, arXiv 2112.01527, section 3.3; DVIS++, arXiv 2312.13305, sections 3.3-3.5 (matching of clips).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError
from mvcseg.losses.contrastive import Contrast
from mvcseg.losses.queries import QueryClip
from mvcseg.losses.set_losses import SetLosses, SetSettings, set_loss_terms, set_size
from mvcseg.losses.set_matching import ClipTargets, Matching, PairCosts
from mvcseg.losses.targets import Targets, targets_of_labels
from mvcseg.ops.points import Draw, draw_from
from mvcseg.segmenter import IGNORE_INDEX, Segmenter
from mvcseg.shapes import check_integer, check_shapes

Predict = Callable[[Any, Tensor, Sequence[torch.Generator] | None], QueryClip]
"""``(segmenter, frames, generators) -> QueryClip``."""

STRIDE = 32
"""Frames are padded to the right and bottom up to a multiple of this before a query model sees them."""


class MaskSetObjective:
    """The set loss, as an objective: sum over layers of weighted class, mask and dice terms, plus contrast.

    Args:
        predict: what the segmenter says of frames ``(B, T, 3, H, W)``; by default ``segmenter(frames)``, which must
            then return a ``QueryClip``. Gets the generators, one for each clip, for a model that draws.
        matching: ``"frame"``, ``"first"`` or ``"video"``; see ``losses.set_matching``.
        guide_until: share of the run in which the assignment of ``QueryClip.guide``, if there is one, is used for all
            layers.
        class_weight: of the cross-entropy, in the loss and in the assignment.
        mask_weight: of the binary cross-entropy of masks, likewise.
        dice_weight: of dice, likewise.
        no_object_weight: of queries without a target, within the class cross-entropy.
        num_points: points of each mask.
        oversample: candidates for each point, of which the most uncertain are kept.
        importance: share of points that are chosen by uncertainty.
        contrast: a loss of ``QueryClip.embeds``, or None.
        keep_absent: for ``matching="frame"``, compare the clip's other targets with empty masks in frames that do not
            show them, as the published training does. Off, a frame's targets are those it shows.
        void: ``"background"`` takes void pixels (255) as outside of every mask, as the published training does;
            ``"ignored"`` gives them no weight.
        targets: the targets of one clip's labels ``(T, H, W)``; by default one for each class present.

    Raises:
        ConfigError: a number is outside its range, or a word unknown.

    Example:
        >>> from mvcseg.losses.queries import DenseMasks, LayerPrediction
        >>> def predict(segmenter, frames, generators):
        ...     return QueryClip((LayerPrediction(torch.zeros(1, 2, 6, 5), DenseMasks(torch.zeros(1, 2, 6, 8, 16))),))
        >>> objective = MaskSetObjective(predict=predict, num_points=16)
        >>> frames, labels = torch.rand(1, 2, 3, 32, 64), torch.zeros(1, 2, 32, 64, dtype=torch.uint8)
        >>> objective(None, frames, labels).ndim
        0
    """

    def __init__(
        self,
        *,
        predict: Predict | None = None,
        matching: Matching = "frame",
        guide_until: float = 0.0,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object_weight: float = 0.1,
        num_points: int = 12544,
        oversample: float = 3.0,
        importance: float = 0.75,
        contrast: Contrast | None = None,
        keep_absent: bool = False,
        void: Literal["background", "ignored"] = "background",
        targets: Callable[[Tensor], Targets] = targets_of_labels,
    ) -> None:
        if not 0 <= guide_until <= 1:
            raise ConfigError(f"guide_until: expected a share in [0, 1], got {guide_until!r}")
        if void not in ("background", "ignored"):
            raise ConfigError(f"void: expected background or ignored, got {void!r}")
        self.predict: Predict = _call_segmenter if predict is None else predict
        self.guide_until = guide_until
        self.contrast = contrast
        self.void = void
        self.targets = targets
        self.settings = SetSettings(
            matching=matching,
            weights=PairCosts(class_weight, mask_weight, dice_weight),
            no_object_weight=no_object_weight,
            num_points=num_points,
            oversample=oversample,
            importance=importance,
            keep_absent=keep_absent,
        )
        self._generators: Sequence[torch.Generator] | None = None
        self._size: Tensor | None = None
        self._progress = 0.0

    def with_generators(self, generators: Sequence[torch.Generator]) -> MaskSetObjective:
        """The same objective drawing from these, one for each clip of the batch, or one for all."""
        return self._copy(_generators=tuple(generators))

    def for_step(self, *, size: Tensor, progress: float) -> MaskSetObjective:
        """The same objective within a training step.

        Args:
            size: mean of ``size`` over the parts of the step, ``(3,)``.
            progress: share of the run that is done, in ``[0, 1)``.
        """
        return self._copy(_size=size, _progress=progress)

    def size(self, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """What the sums over labels ``(B, T, H, W)`` are divided by.

        Returns:
            ``(3,)`` float: the two numbers of ``set_losses.set_size``, and the contrast's number of comparisons (0
            without).
        """
        check_shapes(labels=(labels, "b t h w"))
        targets = [self.targets(clip) for clip in labels]
        comparisons = torch.zeros(()) if self.contrast is None else self.contrast.size(targets)
        sizes = [*set_size(targets, settings=self.settings), comparisons.float().cpu()]
        return torch.stack(sizes).to(labels.device)

    def __call__(self, segmenter: Segmenter, frames: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss, a scalar with a graph.

        Args:
            segmenter: what ``predict`` asks.
            frames: ``(B, T, 3, H, W)`` in ``[0, 1]``.
            labels: ``(B, T, H, W)`` classes, 255 void.
            weight: ``(B, T, H, W)`` pixel weights in ``[0, 1]`` that multiply the terms of masks, or None.

        Raises:
            ShapeError: the prediction, labels or weights do not fit the frames.
            DTypeError: labels are not integer, or the prediction is no ``QueryClip``.
            DataError: a label is outside the classes.
            ConfigError: the number of generators is not the number of clips, or there is a contrast and the prediction
                has no embeds.
        """
        return self.total(*self.terms(segmenter, frames, labels, weight))

    def terms(
        self, segmenter: Segmenter, frames: Tensor, labels: Tensor, weight: Tensor | None = None
    ) -> tuple[SetLosses, Tensor | None]:
        """The single terms, not weighted, and the contrastive loss or None; arguments as in a call."""
        check_shapes(frames=(frames, "b t 3 h w"), labels=(labels, "b t h w"))
        check_integer(labels=labels)
        if weight is not None:
            check_shapes(labels=(labels, "b t h w"), weight=(weight, "b t h w"))
        draws = self._draws(len(frames), frames.device)
        clip = self.predict(segmenter, frames, self._generators)
        if not isinstance(clip, QueryClip):
            raise DTypeError(
                f"predict: expected a QueryClip, got {type(clip).__name__}; pass predict=... for a model that returns "
                "something else"
            )
        targets = self._targets(clip, labels, weight)
        size = self.size(labels) if self._size is None else self._size
        guided = self._progress < self.guide_until
        losses = set_loss_terms(clip, targets, settings=self.settings, draws=draws, size=size[:2], guided=guided)
        if self.contrast is None:
            return losses, None
        if clip.embeds is None:
            raise ConfigError("contrast: expected a prediction with embeds to compare, got embeds=None")
        plain = [each.targets for each in targets]
        return losses, self.contrast(
            clip.embeds, losses.matches, plain, draws=draws, size=size[2].to(clip.embeds.device)
        )

    def total(self, losses: SetLosses, contrast: Tensor | None) -> Tensor:
        """The weighted sum of ``terms``."""
        total = losses.total(self.settings.weights)
        return total if contrast is None else total + contrast

    def _targets(self, clip: QueryClip, labels: Tensor, weight: Tensor | None) -> list[ClipTargets]:
        height, width = labels.shape[-2:]
        covered = clip.covered or (height + -height % STRIDE, width + -width % STRIDE)
        weight = None if weight is None else weight.float()
        if self.void == "ignored":
            is_known = (labels != IGNORE_INDEX).float()
            weight = is_known if weight is None else weight * is_known
        return [
            ClipTargets(self.targets(each), covered, None if weight is None else weight[video])
            for video, each in enumerate(labels)
        ]

    def _draws(self, count: int, device: torch.device) -> list[Draw]:
        generators = self._generators
        if generators is None:
            return [draw_from(None, device=device)] * count
        if len(generators) not in (1, count):
            raise ConfigError(f"generators: expected one for each of {count} clips, or one, got {len(generators)}")
        draws = [draw_from(generator, device=device) for generator in generators]
        return draws * count if len(draws) == 1 else draws

    def _copy(self, **changes: Any) -> MaskSetObjective:
        twin = copy.copy(self)
        vars(twin).update(changes)
        return twin


def named_losses(losses: SetLosses) -> Mapping[str, Tensor]:
    """The single terms by the names of the published logs: the last layer's plain, others with their number."""
    last = len(losses.layers) - 1
    return {
        f"loss_{name}" + ("" if number == last else f"_{number}"): term
        for number, layer in enumerate(losses.layers)
        for name, term in (("ce", layer.classes), ("mask", layer.mask), ("dice", layer.dice))
    }


def _call_segmenter(segmenter: Any, frames: Tensor, generators: Sequence[torch.Generator] | None) -> QueryClip:
    clip: QueryClip = segmenter(frames)
    return clip
