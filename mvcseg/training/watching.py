"""The single terms of a set loss, noted while it is computed, for the log."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mvcseg.losses import Objective
from mvcseg.losses.mask_set import MaskSetObjective, named_losses
from mvcseg.losses.objective import lean
from mvcseg.segmenter import Segmenter

LOGGED = ("loss_ce", "loss_mask", "loss_dice")
"""Terms of the last layer, by the names of the published logs."""


class WatchedObjective:
    """A set loss that keeps the terms of its latest call.

    Args:
        objective: what is computed.

    Attributes:
        terms: of the latest call, by name, before weighting; the contrastive loss after it. Detached.
    """

    def __init__(self, objective: MaskSetObjective) -> None:
        self._objective = objective
        self.terms: dict[str, Tensor] = {}

    def __call__(self, segmenter: Segmenter, frames: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss, a scalar with a graph."""
        losses, contrast = self._objective.terms(segmenter, frames, labels, weight)
        named = named_losses(losses)
        self.terms.clear()
        self.terms.update({name: named[name].detach() for name in LOGGED})
        if contrast is not None:
            self.terms["loss_contrast"] = contrast.detach()
        return self._objective.total(losses, contrast)

    def with_generators(self, generators: Sequence[torch.Generator]) -> Objective:
        """The same, drawing from these; its terms are seen here too."""
        return self._twin(self._objective.with_generators(generators))

    def lean(self) -> Objective:
        """The same in less memory, where it can do with less; its terms are seen here too."""
        spared = lean(self._objective)
        assert isinstance(spared, MaskSetObjective)
        return self._twin(spared)

    def _twin(self, objective: MaskSetObjective) -> WatchedObjective:
        twin = WatchedObjective(objective)
        twin.terms = self.terms
        return twin
