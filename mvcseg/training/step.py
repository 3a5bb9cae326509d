"""The gradient of one training step, spread over batches and processes as if all its clips were one batch.

What is random about a clip is drawn by a generator keyed by (seed, sample number), and a loss that is a sum divided
by a size is divided by the mean size of all parts of the step. So, for clips of equal size, neither the number of
processes nor the size of the batches decides what a step computes, beyond the rounding of sums. Clips of different
sizes are padded to the largest of their batch, for which their masks and points are then drawn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mvcseg.data.clip import PackedClip
from mvcseg.losses import Objective
from mvcseg.losses.mask_set import MaskSetObjective
from mvcseg.losses.objective import SizedObjective, with_generators
from mvcseg.masking import PatchMask
from mvcseg.mvc import MVCWrapper
from mvcseg.training.watching import WatchedObjective

LOSS_STREAM = 2
"""Third number of the key of a clip's losses; what makes the clip itself is keyed by (seed, sample) alone."""
GLOBAL_STREAM = 3
"""Third number of the key of draws from PyTorch's own generator, such as dropout, which no clip has to itself."""


@dataclass
class StepLosses:
    """The losses of one process in one step, summed up as its batches go by; each is a mean over batches.

    Attributes:
        sums: ``(2,)``: the clean and the masked loss.
        terms: single terms of the clean loss by name, as they are before weighting.
    """

    sums: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)

    def add(self, terms: Mapping[str, Tensor], *, parts: int) -> None:
        """Count the terms of one of several batches in."""
        for name, value in terms.items():
            part = value.detach().float() / parts
            self.terms[name] = self.terms[name] + part if name in self.terms else part

    def averaged(self, accelerator: Any, *, has_mask: bool) -> dict[str, float | None]:
        """Means over the processes, by their names in a log."""
        values = torch.stack([*self.sums, *self.terms.values()])
        clean, masked, *terms = accelerator.reduce(values, reduction="mean").tolist()
        whole = clean + masked if has_mask else clean
        losses = {"loss": whole, "loss_clean": clean, "loss_masked": masked if has_mask else None}
        return losses | dict(zip(self.terms, terms, strict=True))


def add_gradients(
    model: nn.Module,
    batches: Sequence[PackedClip],
    *,
    objective: Objective,
    mask: PatchMask | None,
    mask_weight: float,
    seed: int,
    progress: float,
    bfloat16: bool,
    accelerator: Any,
) -> StepLosses:
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
        The losses of this process; their means over processes are those of the step.
    """
    device: torch.device = accelerator.device
    objective = _for_step(objective, batches, progress=progress, accelerator=accelerator)
    terms_each = 1 if mask is None else 2
    losses = StepLosses(torch.zeros(2, device=device))
    watched = WatchedObjective(objective) if isinstance(objective, MaskSetObjective) else None
    for part, batch in enumerate(batches):
        frames, labels, _ = batch.unpacked(device)
        samples = [int(sample) for sample in torch.as_tensor(batch.sample).tolist()]
        generators = [keyed_generator((seed, sample, LOSS_STREAM), device) for sample in samples]
        torch.manual_seed(_seed_of((seed, samples[0], GLOBAL_STREAM)))
        terms = _loss_terms(
            model,
            frames,
            labels,
            objective=watched or objective,
            mask=mask,
            mask_weight=mask_weight,
            generators=generators,
        )
        for number in range(terms_each):
            is_last = part + 1 == len(batches) and number + 1 == terms_each
            # Gradients add up on each process; only the step's last backward averages them over processes.
            with contextlib.nullcontext() if is_last else accelerator.no_sync(model):
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
                    term = next(terms) / len(batches)
                accelerator.backward(term)
            losses.sums[number] += term.detach()
            if watched is not None and number == 0:
                losses.add(watched.terms, parts=len(batches))
    return losses


def keyed_generator(key: tuple[int, ...], device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose draws follow from the key alone.

    Args:
        key: numbers of at least 0.
        device: where it draws.

    Example:
        >>> bool(torch.rand(1, generator=keyed_generator((0, 7))) == torch.rand(1, generator=keyed_generator((0, 7))))
        True
    """
    return torch.Generator(device).manual_seed(_seed_of(key))


def _seed_of(key: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1


def _for_step(objective: Objective, batches: Sequence[PackedClip], *, progress: float, accelerator: Any) -> Objective:
    """The objective with the mean size of all batches of all processes, known from the labels before any forward."""
    if not isinstance(objective, SizedObjective):
        return objective
    sizes = torch.stack([objective.size(batch.labels).float() for batch in batches])
    size = accelerator.reduce(sizes.mean(dim=0).to(accelerator.device), reduction="mean")
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
