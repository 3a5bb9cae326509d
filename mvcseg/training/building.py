"""From a configuration to what it says to train."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mvcseg.errors import ConfigError
from mvcseg.losses import Objective
from mvcseg.segmenter import Segmenter
from mvcseg.training.compact_trainee import compact_trainee
from mvcseg.training.config import TrainConfig
from mvcseg.training.own_trainee import own_trainee
from mvcseg.training.trainee import Trainee


def build_trainee(
    config: TrainConfig,
    *,
    class_names: Sequence[str],
    segmenter: Segmenter | None = None,
    objective: Objective | None = None,
) -> Trainee:
    """What a configuration says to train on data of these classes.

    The weights follow from the seed; the caller's random state stays as it was.

    Args:
        config: the run's numbers.
        class_names: of the data set.
        segmenter: with ``model: "own"``, and only then: the model.
        objective: instead of the one that the configuration names.

    Raises:
        ConfigError: the configuration contradicts itself, the segmenter or the data.
        CheckpointError: ``start_from`` cannot be read or does not fit.
    """
    if (config.model == "own") != (segmenter is not None):
        told = "none; pass segmenter=... (--segmenter FILE.py:FUNCTION)" if segmenter is None else "one"
        raise ConfigError(
            f'model: expected "own" together with a segmenter of your own, got {config.model!r} and {told}'
        )
    names = tuple(class_names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if segmenter is not None:
            return own_trainee(config, segmenter, class_names=names, objective=objective)
        if config.model == "compact":
            return compact_trainee(config, class_names=names, objective=objective)
        from mvcseg.training.dvis_trainee import dvis_trainee

        return dvis_trainee(config, class_names=names, objective=objective)
