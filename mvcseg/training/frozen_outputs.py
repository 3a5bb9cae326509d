"""What the frozen parts of a stage give its trained part, and how a masked pass reuses it.

Frozen parts run frame by frame without a graph, so their memory is that of one frame and what they give.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar, cast

import torch
from torch import Tensor

from mvcseg.errors import ConfigError
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.semantic import full_precision
from mvcseg.models.mask2former import FrameQueries


@dataclass(frozen=True)
class TrackerInputs:
    """What the segmenter says of B clips of T frames.

    Attributes:
        class_logits: ``(B, T, Q, K + 1)``, classes in the order of training.
        mask_embeds: ``(B, T, Q, D)``.
        embeds: ``(B, T, Q, C)``, normed.
        embeds_unnormed: ``(B, T, Q, C)``.
        mask_features: ``(B, T, D, h, w)``.
    """

    class_logits: Tensor
    mask_embeds: Tensor
    embeds: Tensor
    embeds_unnormed: Tensor
    mask_features: Tensor

    PARTS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "tracker": ("class_logits", "mask_embeds", "embeds", "embeds_unnormed"),
        "pixels": ("mask_features",),
    }
    """Fields by the part that reads them."""

    @classmethod
    def check_parts(cls, parts: Iterable[str] | None) -> tuple[str, ...]:
        """Parts that read masked frames; None is all.

        Raises:
            ConfigError: none is named, or one is unknown.
        """
        return _check_parts(parts, valid=tuple(cls.PARTS))


@dataclass(frozen=True)
class RefinerInputs:
    """What segmenter and tracker say of B clips of T frames.

    Attributes:
        embeds: ``(B, T, Q, C)``, tracked.
        class_logits: ``(B, 1, Q, K + 1)``, the tracker's, mean over time, classes in the order of training.
        kernels: ``(B, T, Q, D)``, of the tracker's masks.
        kernel_bias: ``(B, T, Q)``, or None.
        memory: ``(B, T, Q, C)``, what the refiner looks up.
        mask_features: ``(B, T, D, h, w)``.
    """

    embeds: Tensor
    class_logits: Tensor
    kernels: Tensor
    kernel_bias: Tensor | None
    memory: Tensor
    mask_features: Tensor

    PARTS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "tracker": ("embeds", "class_logits", "kernels", "kernel_bias"),
        "refiner": ("memory",),
        "pixels": ("mask_features",),
    }
    """Fields by the part that reads them."""

    @classmethod
    def check_parts(cls, parts: Iterable[str] | None) -> tuple[str, ...]:
        """Parts that read masked frames; None is all.

        Raises:
            ConfigError: none is named, or one is unknown.
        """
        return _check_parts(parts, valid=tuple(cls.PARTS))


Inputs = TypeVar("Inputs", TrackerInputs, RefinerInputs)


@dataclass
class PassPair:
    """A clean pass and then a masked pass over the same clips.

    Made for one batch; the first call of a stage with it is the clean pass, whose frozen outputs it keeps for the
    second if that needs any.
    """

    clean: TrackerInputs | RefinerInputs | None = None

    def take(self, inputs: Inputs, *, masked_parts: Iterable[str]) -> Inputs:
        """What the trained part reads: in the clean pass ``inputs``, in the masked one those only for the masked parts.

        Args:
            inputs: of this pass.
            masked_parts: keys of ``inputs.PARTS``.
        """
        parts = set(masked_parts)
        if parts == set(inputs.PARTS):
            return inputs
        if self.clean is None:
            self.clean = inputs
            return inputs
        masked = {name: getattr(inputs, name) for part in sorted(parts) for name in inputs.PARTS[part]}
        return cast(Inputs, dataclasses.replace(self.clean, **masked))


@torch.no_grad()
def read_segmenter(model: DVIS, frames: Tensor) -> TrackerInputs:
    """Frozen backbone and segmenter on every frame of clips ``(B, T, 3, H, W)``, one at a time."""
    batch, count = frames.shape[:2]
    gathered: dict[str, Tensor] = {}
    for index, frame in enumerate(torch.split(frames.flatten(0, 1), 1)):
        queries = model.segment(frame)
        for field in dataclasses.fields(FrameQueries):
            part = getattr(queries, field.name)
            if not index:
                # filled in place: to join a list at the end would hold everything twice
                gathered[field.name] = part.new_empty((batch * count, *part.shape[1:]))
            gathered[field.name][index] = part[0]
    return TrackerInputs(**{name: tensor.view(batch, count, *tensor.shape[1:]) for name, tensor in gathered.items()})


@torch.no_grad()
def read_tracker(model: DVIS, frames: Tensor) -> RefinerInputs:
    """Frozen backbone, segmenter and tracker on clips ``(B, T, 3, H, W)``, each the whole of a video."""
    assert model.tracker is not None, "a refiner has a tracker"
    segmented = read_segmenter(model, frames)
    tracked = model.tracker(segmented.embeds, segmented.embeds_unnormed)
    kernels = model.tracker.mask_kernels(tracked.embeds)
    return RefinerInputs(
        embeds=tracked.embeds,
        class_logits=full_precision(tracked.class_logits).mean(dim=1, keepdim=True),
        kernels=kernels.weight,
        kernel_bias=kernels.bias,
        memory=model.tracker.refiner_memory(segmented.embeds, segmented.embeds_unnormed),
        mask_features=segmented.mask_features,
    )


def _check_parts(parts: Iterable[str] | None, *, valid: tuple[str, ...]) -> tuple[str, ...]:
    chosen = valid if parts is None else tuple(dict.fromkeys(parts))
    unknown = [part for part in chosen if part not in valid]
    if unknown or not chosen:
        told = f"got {unknown[0]!r}" if unknown else "got none"
        raise ConfigError(f"masked_parts: expected some of {', '.join(valid)} for this stage, or None for all, {told}")
    return chosen
