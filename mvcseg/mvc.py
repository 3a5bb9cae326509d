"""Masked video consistency: Eq. 3 and 4 of arXiv 2406.04979.

The same model learns from a clip and from the clip with patches hidden, both against the same labels
(Eq. 3), and the two losses are added (Eq. 4). The report's claim that this costs no extra memory holds when
the two graphs are never alive together, so the loss comes as two terms to be back-propagated in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from mvcseg.errors import ConfigError, DataError
from mvcseg.losses import Objective, PixelObjective
from mvcseg.losses.objective import lean, with_generators
from mvcseg.masking import apply_mask
from mvcseg.segmenter import IMAGENET_MEAN, Segmenter, own_labels
from mvcseg.shapes import check_float, check_integer, check_shapes


class ClipMask(Protocol):
    """Draws which pixels of a clip stay visible: ``PatchMask`` or the caller's own."""

    def __call__(self, frames: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """``(B, T, 1, H, W)`` bool for frames ``(B, T, 3, H, W)``, True = kept."""
        ...


class MVCWrapper(nn.Module):
    """A segmenter with its masked-consistency loss.

    As a segmenter it is the one it wraps, unmasked, in train and eval mode alike; parameters live under
    ``segmenter.``. Training asks for ``loss_terms``.

    Args:
        segmenter: the model, anything that meets the ``Segmenter`` protocol (also one prepared by DDP or
            Accelerate).
        mask: draws the mask, such as ``PatchMask(patch_size=64, ratio=0.5)``. The report names no numbers;
            MIC used 32 or 64 pixels and ratios from 0.5 to 0.7.
        objective: the model's own supervised loss, taken twice.
        weight: lambda of Eq. 4, at least 0. The report gives no value; MIC's is 1, the default.
        fill: what hidden pixels show, a number or one for each channel, in ``[0, 1]``.

    Raises:
        ConfigError: ``weight`` is negative or not finite, or ``mask`` cannot be called.

    Source: arXiv 2406.04979, Eq. 3-4. There is no teacher: both passes meet the ground truth.

    Example:
        >>> from mvcseg import PatchMask, PerFrame
        >>> net = PerFrame(nn.Conv2d(3, 4, 1), num_classes=4, logits_of=lambda out: out)
        >>> mvc = MVCWrapper(net, mask=PatchMask(patch_size=16, ratio=0.5))
        >>> frames, labels = torch.rand(1, 2, 3, 32, 48), torch.zeros(1, 2, 32, 48, dtype=torch.long)
        >>> for term in mvc.loss_terms(frames, labels):  # clean, then masked
        ...     term.backward()
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        mask: ClipMask,
        objective: Objective | None = None,
        weight: float = 1.0,
        fill: float | Sequence[float] = IMAGENET_MEAN,
    ) -> None:
        super().__init__()
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"weight: expected a finite number of at least 0, got {weight!r}")
        if not callable(mask):
            raise ConfigError(
                f"mask: expected PatchMask(patch_size=..., ratio=...) or a callable like it, got {mask!r}"
            )
        self.segmenter = segmenter
        self.mask = mask
        self.objective = PixelObjective() if objective is None else objective
        self.weight = float(weight)
        self.fill = fill

    @property
    def num_classes(self) -> int:
        """K of the wrapped segmenter."""
        inner: Any = self.segmenter
        if not hasattr(inner, "num_classes") and hasattr(inner, "module"):
            inner = inner.module  # DDP hides the attributes of what it holds
        number: int = inner.num_classes
        return number

    @property
    def stream(self) -> Callable[..., Iterator[Tensor]]:
        """The wrapped segmenter's ``stream(video, clip_length=...)``; absent where it has none."""
        inner: Any = self.segmenter
        return cast("Callable[..., Iterator[Tensor]]", inner.stream)

    @property
    def stream_labels(self) -> Callable[..., Iterator[Tensor]]:
        """The wrapped segmenter's ``stream_labels(video, clip_length=..., output_size=...)``; absent likewise."""
        return self._own_labels("stream_labels")

    @property
    def clip_labels(self) -> Callable[..., Tensor]:
        """The wrapped segmenter's ``clip_labels(frames, output_size=...)``; absent likewise."""
        return self._own_labels("clip_labels")

    def _own_labels(self, name: str) -> Callable[..., Any]:
        method = own_labels(self.segmenter, name)
        if method is None:
            raise AttributeError(f"{type(self.segmenter).__name__} has no {name} of its own")
        return method

    def forward(self, frames: Tensor, /) -> Tensor:
        """Logits ``(B, T, K, H, W)`` of the frames as they are, nothing hidden."""
        return self.segmenter(frames)

    def loss_terms(
        self,
        frames: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> Iterator[Tensor]:
        """The clean loss, then the masked loss times ``weight``; their sum is Eq. 4.

        The masked pass runs only when the second term is asked for: back-propagate the first before that,
        and one graph is alive at a time.

        Args:
            frames: ``(B, T, 3, H, W)`` in ``[0, 1]``.
            labels: ``(B, T, H, W)`` classes, 255 ignored.
            generator: randomness of the mask (see ``patch_mask``) and of an objective that draws; a sequence holds
                one for each clip, so that for clips of equal size what a clip gets does not depend on its neighbours
                in the batch (a mask is drawn for the batch's size).

        Yields:
            Two scalars, each with its own graph.

        Raises:
            ShapeError: frames and labels do not agree.
            DTypeError: frames are not floating-point or labels not integer.
            ConfigError: the number of generators is not the number of clips.
            DataError: on the CPU, frames are far outside ``[0, 1]``. Elsewhere looking would make the host wait.
        """
        check_shapes(frames=(frames, "b t 3 h w"), labels=(labels, "b t h w"))
        check_float(frames=frames)
        check_integer(labels=labels)
        _check_range(frames)
        if isinstance(generator, Sequence) and len(generator) != len(frames):
            raise ConfigError(f"generator: expected one for each of {len(frames)} clips, got {len(generator)}")
        return self._terms(frames, labels, generator)

    def _terms(
        self, frames: Tensor, labels: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None
    ) -> Iterator[Tensor]:
        objective = with_generators(self.objective, generator)
        yield objective(self.segmenter, frames, labels)
        # The masked clip has no name here, so it is gone before the backward pass, where memory peaks. Lean, since the
        # clean pass has left gradients that are to be added to: together they are to need no more than the clean pass.
        yield self.weight * lean(objective)(
            self.segmenter, apply_mask(frames, self._draw_mask(frames, generator), fill=self.fill), labels
        )

    def _draw_mask(self, frames: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
        if not isinstance(generator, Sequence):
            return self.mask(frames, generator=generator)
        clips = zip(torch.split(frames, 1), generator, strict=True)
        return torch.cat([self.mask(clip, generator=own) for clip, own in clips])


def _check_range(frames: Tensor) -> None:
    # resampling overshoots a little; bytes as floats and frames normalised already lie far outside
    if frames.device.type != "cpu" or frames.numel() == 0:
        return
    low, high = (value.item() for value in frames.detach().aminmax())
    if low < -0.5 or high > 1.5:
        raise DataError(
            f"frames: expected values in [0, 1], got {low:.3g} to {high:.3g}; divide bytes by 255, and leave "
            "normalisation to the model"
        )
