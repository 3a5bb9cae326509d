"""Learning rates over the run, and which weights decay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

Schedule = Literal["poly", "cosine", "constant", "steps"]
POLY_POWER = 0.9
"""Exponent of the "poly" schedule (DeepLab, arXiv 1606.00915, section 4.1)."""


def learning_rate_factor(
    step: int,
    *,
    steps: int,
    warm_up: int = 0,
    schedule: Schedule = "poly",
    drops: Sequence[int] = (),
    drop_factor: float = 0.1,
) -> float:
    """What the learning rate is multiplied with at a step, in ``[0, 1]``.

    Args:
        step: number of the step, from 0.
        steps: steps of the run.
        warm_up: the first steps rise linearly, ``(step + 1) / warm_up``; what is left of the run then falls.
        schedule: "poly" ``(1 - progress) ** 0.9``, "cosine" ``(1 + cos(pi * progress)) / 2``, "constant", or "steps".
        drops: of "steps": once so many steps are done, the rate falls.
        drop_factor: of "steps": what each fall multiplies it with.

    Example:
        >>> [round(learning_rate_factor(step, steps=6, warm_up=2, schedule="cosine"), 2) for step in range(6)]
        [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
        >>> [round(learning_rate_factor(step, steps=4, schedule="steps", drops=(2, 3)), 2) for step in range(4)]
        [1.0, 1.0, 0.1, 0.01]
    """
    if step < warm_up:
        return (step + 1) / warm_up
    if schedule == "steps":
        return float(drop_factor ** sum(step >= drop for drop in drops))
    progress = (step - warm_up) / max(1, steps - warm_up)
    if schedule == "poly":
        return float((1 - progress) ** POLY_POWER)
    return (1 + math.cos(math.pi * progress)) / 2 if schedule == "cosine" else 1.0


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Two optimizer groups: weights of two or more axes decay; biases, norms and other vectors do not.

    Args:
        model: frozen parameters are left out.
        weight_decay: of the first group.

    Example:
        >>> [len(group["params"]) for group in parameter_groups(nn.Linear(2, 3), weight_decay=0.1)]
        [1, 1]
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
