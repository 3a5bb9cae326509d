"""Training a stage of DVIS++."""

from __future__ import annotations

from mvcseg.losses import Objective
from mvcseg.training.config import TrainConfig
from mvcseg.training.trainee import Trainee


def dvis_trainee(config: TrainConfig, *, class_names: tuple[str, ...], objective: Objective | None = None) -> Trainee:
    """The stage that follows from the model's parts."""
    raise NotImplementedError
