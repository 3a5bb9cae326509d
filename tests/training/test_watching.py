"""The terms of a loss are noted without changing it."""

from __future__ import annotations

import torch

from mvcseg.losses.mask_set import MaskSetObjective
from mvcseg.losses.objective import lean, with_generators
from mvcseg.losses.queries import DenseMasks, LayerPrediction, QueryClip
from mvcseg.training.watching import LOGGED, WatchedObjective


def predict(segmenter: object, frames: torch.Tensor, generators: object) -> QueryClip:
    generator = torch.Generator().manual_seed(0)
    logits, masks = torch.randn(1, 2, 6, 5, generator=generator), torch.randn(1, 2, 6, 8, 16, generator=generator)
    return QueryClip((LayerPrediction(logits.requires_grad_(), DenseMasks(masks.requires_grad_())),))


FRAMES, LABELS = torch.zeros(1, 2, 3, 32, 64), torch.arange(4).repeat(1, 2, 32, 16)
OBJECTIVE = MaskSetObjective(predict=predict, num_points=16)


def loss_of(objective: object) -> torch.Tensor:
    drawn = with_generators(objective, torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    return drawn(None, FRAMES, LABELS)  # type: ignore[arg-type]


def test_the_loss_is_that_of_the_objective_and_its_terms_are_seen() -> None:
    watched = WatchedObjective(OBJECTIVE)
    assert torch.equal(loss_of(watched), loss_of(OBJECTIVE))
    assert watched.terms.keys() == set(LOGGED)


class Spared(MaskSetObjective):
    """One that can do with less."""

    def lean(self) -> MaskSetObjective:
        return self._copy(is_spared=True)


def test_a_lean_objective_stays_lean_and_watched() -> None:
    watched = WatchedObjective(Spared(predict=predict, num_points=16))
    spared = lean(watched)
    assert isinstance(spared, WatchedObjective)
    assert vars(spared._objective)["is_spared"]
    assert torch.equal(loss_of(spared), loss_of(OBJECTIVE))
    assert watched.terms.keys() == set(LOGGED)


def test_an_objective_that_cannot_do_with_less_stays_as_it_is() -> None:
    assert lean(WatchedObjective(OBJECTIVE))._objective is OBJECTIVE  # type: ignore[attr-defined]
