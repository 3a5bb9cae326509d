"""The gradient of one training step, spread over batches and processes as if all its clips were one batch.

What is random about a clip is drawn by a generator keyed by (seed, sample number), and a loss that is a sum divided
by a size is divided by the mean size of all parts of the step. So neither the number of processes nor the size of
the batches decides what a step computes, beyond the rounding of sums.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mvcseg.data.clips import Clip
from mvcseg.losses import Objective
from mvcseg.losses.objective import SizedObjective, with_generators
from mvcseg.masking import PatchMask
from mvcseg.mvc import MVCWrapper

LOSS_STREAM = 1
"""Keeps the draws of a clip's losses apart from those that made the clip, keyed by (seed, sample) alone."""


def add_gradients(
    model: nn.Module,
    batches: Sequence[Clip],
    *,
    objective: Objective,
    mask: PatchMask | None,
    mask_weight: float,
    seed: int,
    progress: float,
    bfloat16: bool,
    accelerator: Any,
) -> Tensor:
    """Back-propagate every batch of a step, clean and then masked.

    Args:
        model: prepared by the accelerator.
        batches: of this process, on the host.
        objective: what is minimised.
        mask: the mask of MVC; None trains plainly.
        mask_weight: lambda of Eq. 4.
        seed: of the run.
        progress: share of the run that is done, in ``[0, 1)``.
        bfloat16: autocast to it.
        accelerator: of Accelerate; gradients are averaged over its processes on the last backward.

    Returns:
        ``(2,)``: the clean and the masked loss of this process, mean over its batches; their mean over processes is
        that of the step. The masked one is 0 without a mask.
    """
    device: torch.device = accelerator.device
    objective = _for_step(objective, batches, progress=progress, accelerator=accelerator)
    terms_each = 1 if mask is None else 2
    sums = torch.zeros(2, device=device)
    for part, batch in enumerate(batches):
        frames, labels = (tensor.to(device, non_blocking=True) for tensor in (batch.frames, batch.labels))
        generators = [
            keyed_generator((seed, int(sample), LOSS_STREAM), device)
            for sample in torch.as_tensor(batch.sample).tolist()
        ]
        terms = _loss_terms(
            model, frames, labels, objective=objective, mask=mask, mask_weight=mask_weight, generators=generators
        )
        for number in range(terms_each):
            is_last = part + 1 == len(batches) and number + 1 == terms_each
            # Gradients add up on each process; only the step's last backward averages them over processes.
            with contextlib.nullcontext() if is_last else accelerator.no_sync(model):
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
                    term = next(terms) / len(batches)
                accelerator.backward(term)
            sums[number] += term.detach()
    return sums


def keyed_generator(key: tuple[int, ...], device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose draws follow from the key alone.

    Args:
        key: numbers of at least 0.
        device: where it draws.

    Example:
        >>> bool(torch.rand(1, generator=keyed_generator((0, 7))) == torch.rand(1, generator=keyed_generator((0, 7))))
        True
    """
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(seed >> 1)


def _for_step(objective: Objective, batches: Sequence[Clip], *, progress: float, accelerator: Any) -> Objective:
    """The objective with the mean size of all batches of all processes, known from the labels before any forward."""
    if not isinstance(objective, SizedObjective):
        return objective
    sizes = torch.stack([objective.size(batch.labels).float() for batch in batches])
    size = accelerator.reduce(sizes.mean().to(accelerator.device), reduction="mean")
    return objective.for_step(size=size, progress=progress)


def _loss_terms(
    model: nn.Module,
    frames: Tensor,
    labels: Tensor,
    *,
    objective: Objective,
    mask: PatchMask | None,
    mask_weight: float,
    generators: Sequence[torch.Generator],
) -> Iterator[Tensor]:
    segmenter: Any = model
    if mask is None:
        yield with_generators(objective, generators)(segmenter, frames, labels)
    else:
        mvc = MVCWrapper(segmenter, mask=mask, objective=objective, weight=mask_weight)
        yield from mvc.loss_terms(frames, labels, generator=generators)
