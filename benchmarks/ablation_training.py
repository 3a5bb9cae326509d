"""One training run of the study, plain or with masked video consistency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ablation_plan import Mask, Recipe
from torch import Tensor, nn

from mvcseg import MVCWrapper, PatchMask
from mvcseg.data.clips import ClipDataset
from mvcseg.losses import Objective, PixelObjective
from mvcseg.losses.objective import SizedObjective, with_generators
from mvcseg.training.schedule import learning_rate_factor

WEIGHT_DECAY = 0.01
LARGEST_NORM = 1.0
LAST_STEPS = 50


def train(
    model: nn.Module,
    clips: ClipDataset,
    *,
    steps: int,
    recipe: Recipe,
    mask: Mask | None,
    seed: int,
    objective: Objective | None = None,
) -> float:
    """Train in place; the mean clean loss of the last steps.

    Weights, clips and masks follow from the seed, so runs of one seed differ in nothing but what is compared: the
    clips of a plain run are those of the MVC run, and the first half of those of the run twice as long.
    """
    device = next(model.parameters()).device
    objective = PixelObjective() if objective is None else objective
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=WEIGHT_DECAY)
    losses = []
    model.train()
    for step in range(steps):
        factor = learning_rate_factor(step, steps=steps, warm_up=min(recipe.warm_up, steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * factor
        samples = range(step * recipe.batch_size, (step + 1) * recipe.batch_size)
        batch = [clips[sample] for sample in samples]
        frames = torch.stack([clip.frames for clip in batch]).to(device)
        labels = torch.stack([clip.labels for clip in batch]).to(device)
        generators = [_generator(seed, sample, device) for sample in samples]
        now = _for_step(objective, labels, progress=step / steps)
        losses.append(_add_gradients(model, frames, labels, mask=mask, objective=now, generators=generators))
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()
        optimizer.zero_grad()
    return float(torch.stack(losses[-LAST_STEPS:]).mean())


def _add_gradients(
    model: nn.Module,
    frames: Tensor,
    labels: Tensor,
    *,
    mask: Mask | None,
    objective: Objective,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Back-propagate a batch, clean and then masked; the clean loss."""
    if mask is None:
        clean = with_generators(objective, generators)(model, frames, labels)
        clean.backward()
        return clean.detach()
    cells = PatchMask(patch_size=mask.patch_size, ratio=mask.ratio)
    mvc = MVCWrapper(model, mask=cells, objective=objective, weight=mask.weight)
    terms = mvc.loss_terms(frames, labels, generator=generators)
    clean = next(terms)
    clean.backward()
    next(terms).backward()
    return clean.detach()


def _for_step(objective: Objective, labels: Tensor, *, progress: float) -> Objective:
    if not isinstance(objective, SizedObjective):
        return objective
    return objective.for_step(size=objective.size(labels), progress=progress)


def _generator(seed: int, sample: int, device: torch.device) -> torch.Generator:
    key = np.random.SeedSequence((seed, sample, 1)).generate_state(1)
    return torch.Generator(device).manual_seed(int(key[0]))
