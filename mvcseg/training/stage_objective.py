"""The loss of each stage of DVIS++, with the matching and the contrast that belong to it.

Source: DVIS++, arXiv 2312.13305; CTVIS, arXiv 2307.12616, for the contrast of a segmenter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from mvcseg.errors import ConfigError
from mvcseg.losses.class_memory import ClassMemory
from mvcseg.losses.contrastive import Contrast, RefinerContrast, TrackerContrast
from mvcseg.losses.mask_set import MaskSetObjective, Predict
from mvcseg.losses.queries import QueryClip
from mvcseg.losses.reid import ReidContrast
from mvcseg.losses.set_losses import SetLosses
from mvcseg.losses.set_matching import Matching
from mvcseg.models.dvis.tracker import ReferringTracker
from mvcseg.segmenter import Segmenter
from mvcseg.training.frozen_outputs import PassPair
from mvcseg.training.stages import RefinerStage, SegmenterStage, Stage, TrackerStage

CONTRAST_WEIGHT, SIMILARITY_WEIGHT = 2.0, 3.0
"""Of the contrastive loss in every stage, and of the similarity error that CTVIS adds to it."""
GUIDED_SHARE = 0.5
"""Share of the run in which the part before decides which query meets which target."""


def stage_objective(
    stage: Stage,
    *,
    num_points: int = 12544,
    class_weight: float = 2.0,
    mask_weight: float = 5.0,
    dice_weight: float = 5.0,
    no_object_weight: float = 0.1,
    contrast_weight: float | None = None,
    guide_until: float | None = None,
    memory: ClassMemory | None = None,
    **settings: Any,
) -> MaskSetObjective:
    """The objective of a stage; defaults are those of the published training.

    Args:
        stage: of ``build_stage``.
        num_points: points at which each mask is compared, in a frame.
        class_weight: of the classes' cross-entropy, in loss and matching.
        mask_weight: of the masks' cross-entropy, likewise.
        dice_weight: of their dice loss, likewise.
        no_object_weight: of the class that means no object.
        contrast_weight: of the contrastive loss; 0 is none, None is 2 where the stage has one.
        guide_until: share of the run, from its start, in which the part before decides which query meets which
            target; None is one half for tracker and refiner, 0 for a segmenter.
        memory: of the refiner's contrast; None compares within a clip alone.
        settings: further arguments of ``MaskSetObjective``.

    Raises:
        ConfigError: a number is out of range, or the stage has nothing to contrast.
    """
    if guide_until is None:
        guide_until = 0.0 if isinstance(stage, SegmenterStage) else GUIDED_SHARE
    return StageObjective(
        is_partly_masked=stage.is_partly_masked,
        matching=_matching(stage),
        guide_until=guide_until,
        class_weight=class_weight,
        mask_weight=mask_weight,
        dice_weight=dice_weight,
        no_object_weight=no_object_weight,
        num_points=num_points,
        contrast=_contrast(stage, contrast_weight, memory),
        **settings,
    )


class StageObjective(MaskSetObjective):
    """The set loss of a stage.

    Where only some of the stage's parts read masked frames, ``with_generators`` renews it for each batch, as
    ``MVCWrapper`` does where it is given generators: the first call afterwards is the clean pass, the second the masked
    one, which reuses what frozen parts said in the first.

    Args:
        is_partly_masked: whether some parts read clean frames in the masked pass.
        settings: arguments of ``MaskSetObjective``, without ``predict``.
    """

    def __init__(self, *, is_partly_masked: bool, **settings: Any) -> None:
        super().__init__(predict=_predict, **settings)
        self.is_partly_masked = is_partly_masked

    def terms(
        self, segmenter: Segmenter, frames: Tensor, labels: Tensor, weight: Tensor | None = None
    ) -> tuple[SetLosses, Tensor | None]:
        """See ``MaskSetObjective.terms``.

        Raises:
            ConfigError: further: some parts read clean frames, and it was not renewed for this batch.
        """
        if self.is_partly_masked and self._generators is None:
            raise ConfigError(
                "generator: missing; where masked_parts leaves parts on the clean clip, give loss_terms a generator, "
                "or one for each clip, so that the two passes of a batch belong together"
            )
        return super().terms(segmenter, frames, labels, weight)

    def with_generators(self, generators: Sequence[torch.Generator]) -> MaskSetObjective:
        """The same objective for one batch, drawing from these, one for each clip of the batch, or one for all."""
        objective = super().with_generators(generators)
        if self.is_partly_masked:
            objective.predict = self._asking(pair=PassPair())
        return objective

    def lean(self) -> StageObjective:
        """The same objective in less memory: part of the stage is computed again in the backward pass.

        As much as makes up for the gradients that are there already; see ``training.sparing``.
        """
        return cast("StageObjective", self._copy(predict=self._asking(spares=True)))

    def _asking(self, **choices: Any) -> Predict:
        asked: Callable[..., QueryClip] = self.predict
        return partial(asked, **choices)


def _predict(stage: Any, frames: Tensor, generators: Sequence[torch.Generator] | None, **choices: Any) -> QueryClip:
    clip: QueryClip = stage(frames, noise_generators=generators, **choices)
    return clip


def _matching(stage: Stage) -> Matching:
    if isinstance(stage, SegmenterStage):
        return "frame"
    return "first" if isinstance(stage, TrackerStage) else "video"


def _contrast(stage: Stage, weight: float | None, memory: ClassMemory | None) -> Contrast | None:
    if isinstance(stage, SegmenterStage):
        has_contrast = stage.is_contrasted
    else:
        has_contrast = isinstance(stage.model.tracker, ReferringTracker)  # first-version DVIS has none
    if memory is not None and not isinstance(stage, RefinerStage):
        raise ConfigError("memory: expected None, since only the refiner's contrast remembers")
    if weight is None:
        weight = CONTRAST_WEIGHT if has_contrast else 0.0
    if not weight:
        return None
    if not has_contrast:
        raise ConfigError(
            f"contrast_weight: expected 0, got {weight!r}: a segmenter without a trained re-identification head and "
            "first-version DVIS have nothing to contrast"
        )
    if isinstance(stage, SegmenterStage):
        return ReidContrast(weight=weight, similarity_weight=weight * SIMILARITY_WEIGHT / CONTRAST_WEIGHT)
    return TrackerContrast(weight=weight) if isinstance(stage, TrackerStage) else RefinerContrast(memory, weight=weight)
