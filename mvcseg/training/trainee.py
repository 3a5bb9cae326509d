"""What a run trains: a module, its objective, and how the finished model is written.

The loop knows nothing else of a model, so a compact segmenter, a stage of DVIS++ and anybody's own segmenter are
trained by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from mvcseg.errors import ConfigError
from mvcseg.losses import Objective
from mvcseg.segmenter import Segmenter
from mvcseg.training.config import TrainConfig
from mvcseg.training.schedule import parameter_groups


class Memory(Protocol):
    """What an objective remembers of earlier steps, the same on every process."""

    def commit(self, gather: Callable[[list[Any]], list[Any]]) -> None:
        """Take in what the step brought; ``gather`` joins the lists of all processes in a fixed order."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """What a checkpoint holds of it."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """The inverse."""
        ...


@dataclass(frozen=True)
class Trainee:
    """What a run trains.

    Attributes:
        module: called by the objective, on frames ``(B, T, 3, H, W)``; prepared for several processes as a whole.
        objective: what is minimised.
        segmenter: evaluated and predicted with; shares its weights with ``module``.
        groups: of the optimizer, each with its own "lr", which the schedule multiplies.
        save: ``(segmenter, folder, facts) -> file`` writes the finished model, with facts that JSON can hold.
        memories: saved and resumed with the run.
        has_idle_parameters: whether some trained parameters may get no gradient in a step.
        test_size: shorter side of the frames it is evaluated with and cap on the longer one; None is the video's own.
    """

    module: nn.Module
    objective: Objective
    segmenter: Segmenter
    groups: Sequence[dict[str, Any]]
    save: Callable[[Any, Path, Mapping[str, Any]], Path]
    memories: tuple[Memory, ...] = ()
    has_idle_parameters: bool = False
    test_size: tuple[int | None, int | None] = (None, None)


def plain_groups(module: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Optimizer groups of a model that learns at one rate."""
    groups = parameter_groups(module, weight_decay=config.weight_decay)
    return [{**group, "lr": config.learning_rate} for group in groups]


def check_names(own: Sequence[str], wanted: Sequence[str], *, of: str) -> None:
    """Require a model's class names to be the data set's, where both are known.

    Raises:
        ConfigError: they differ; the first difference is named.
    """
    if not own or tuple(own) == tuple(wanted):
        return
    if len(own) != len(wanted):
        raise ConfigError(f"{of}: names {len(own)} classes, the data set has {len(wanted)}")
    index = next(index for index, (here, there) in enumerate(zip(own, wanted, strict=True)) if here != there)
    same = " in another order" if set(own) == set(wanted) else ""
    raise ConfigError(
        f"{of}: its class {index} is {own[index]!r}, the data set's is {wanted[index]!r}; the class lists differ{same}"
    )
