"""Training a query model of one's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_transformers import tiny_net

from mvcseg.adapters import from_transformers
from mvcseg.losses.mask_set import MaskSetObjective
from mvcseg.training import TrainConfig
from mvcseg.training.own_trainee import own_trainee
from mvcseg.training.step import keyed_generator

NAMES = ("a", "b", "c", "d", "e")


def test_what_an_eomt_draws_is_keyed_by_clip() -> None:
    net = tiny_net("eomt")
    net.attn_mask_probs.fill_(0.5)
    config = replace(TrainConfig(steps=1, model="own"), num_points=32)
    trainee = own_trainee(config, from_transformers(net), class_names=NAMES)
    draw = torch.Generator().manual_seed(3)
    frames = torch.rand(2, 2, 3, 32, 48, generator=draw)
    labels = torch.randint(5, (2, 2, 32, 48), generator=draw)
    objective = trainee.objective
    assert isinstance(objective, MaskSetObjective)
    objective = objective.for_step(size=objective.size(labels) / 2, progress=0.0)

    def loss_of(clips: slice) -> float:
        generators = [keyed_generator((0, sample, 2)) for sample in range(2)[clips]]
        loss = objective.with_generators(generators)(trainee.module, frames[clips], labels[clips])  # type: ignore[arg-type]
        return float(loss.detach())

    assert loss_of(slice(2)) == pytest.approx(loss_of(slice(1)) + loss_of(slice(1, 2)), rel=1e-5)
