from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_dvis import CLASSES, KINDS, WIDTH, as_input, tiny_dvis, video
from torch import Tensor

from mvcseg.errors import ConfigError
from mvcseg.losses.class_memory import ClassMemory
from mvcseg.losses.contrastive import RefinerContrast, TrackerContrast
from mvcseg.losses.reid import ReidContrast
from mvcseg.masking import PatchMask
from mvcseg.models.dvis.noise import QueryNoise
from mvcseg.mvc import MVCWrapper
from mvcseg.training.groups import published_groups
from mvcseg.training.stage_objective import stage_objective
from mvcseg.training.stages import Stage, build_stage

MATCHING = {"segmenter": "frame", "online": "first", "offline": "video", "first online": "first"}
MATCHING |= {"first offline": "video"}
CONTRAST = {"segmenter": ReidContrast, "online": TrackerContrast, "offline": RefinerContrast}


def batch(*, size: tuple[int, int] = (40, 60)) -> tuple[Tensor, Tensor]:
    """Two clips whose classes are patches that the frames show."""
    frames = torch.cat([as_input(video(3, height=size[0], width=size[1], seed=seed)) for seed in (5, 6)])
    return frames, (frames.mean(dim=2) * CLASSES).long().clamp(max=CLASSES - 1)


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("kind", KINDS)
def test_matching_guide_and_contrast_are_those_of_the_stage(kind: str) -> None:
    objective = stage_objective(build_stage(tiny_dvis(kind)))
    assert objective.settings.matching == MATCHING[kind]
    assert objective.guide_until == (0.0 if kind == "segmenter" else 0.5)
    assert type(objective.contrast) is CONTRAST.get(kind, type(None))
    if objective.contrast is not None:
        assert objective.contrast.weight == 2.0  # type: ignore[attr-defined]
    assert objective.settings.num_points == 12544
    assert (objective.settings.weights.class_weight, objective.settings.no_object_weight) == (2.0, 0.1)


def test_numbers_are_passed_on() -> None:
    stage = build_stage(tiny_dvis("segmenter"))
    objective = stage_objective(
        stage, num_points=7, class_weight=1.0, mask_weight=3.0, dice_weight=4.0, contrast_weight=1.0, guide_until=0.25
    )
    weights = objective.settings.weights
    assert (weights.class_weight, weights.mask_weight, weights.dice_weight) == (1.0, 3.0, 4.0)
    assert (objective.settings.num_points, objective.guide_until) == (7, 0.25)
    assert isinstance(objective.contrast, ReidContrast)
    assert (objective.contrast.weight, objective.contrast.similarity_weight) == (1.0, 1.5)
    assert stage_objective(stage, contrast_weight=0.0).contrast is None


def test_the_refiners_memory_is_the_one_given() -> None:
    memory = ClassMemory(CLASSES, width=2 * WIDTH)
    stage = build_stage(tiny_dvis("offline"))
    objective = stage_objective(stage, num_points=8, memory=memory)
    frames, labels = batch()
    objective.with_generators(seeded(0, 1))(stage, frames, labels)  # type: ignore[arg-type]
    memory.commit()
    assert set(memory.counts.nonzero()[:, 0].tolist()) == set(labels.unique().tolist())
    with pytest.raises(ConfigError, match="memory: expected None, since only the refiner's contrast remembers"):
        stage_objective(build_stage(tiny_dvis("online")), memory=memory)


@pytest.mark.parametrize("kind", ["first online", "first offline"])
def test_a_stage_with_nothing_to_contrast_takes_no_weight_for_it(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"contrast_weight: expected 0, got 2.0: .* nothing to contrast"):
        stage_objective(build_stage(tiny_dvis(kind)), contrast_weight=2.0)
    stage = build_stage(tiny_dvis("segmenter"), is_contrasted=False)
    assert stage_objective(stage).contrast is None
    with pytest.raises(ConfigError, match="contrast_weight: expected 0"):
        stage_objective(stage, contrast_weight=1.0)


def step(stage: Stage, objective: Any, frames: Tensor, labels: Tensor, seeds: tuple[int, ...]) -> list[float]:
    """Clean and masked loss with gradients."""
    mvc = MVCWrapper(stage, mask=PatchMask(patch_size=16, ratio=0.5), objective=objective)  # type: ignore[arg-type]
    losses = []
    for term in mvc.loss_terms(frames, labels, generator=seeded(*seeds)):
        term.backward()
        losses.append(term.item())
    return losses


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls_with_mvc_in_every_stage(kind: str) -> None:
    torch.manual_seed(0)
    model = tiny_dvis(kind, class_order=(3, 0, 5, 1, 4, 2))
    stage = build_stage(model, noise=QueryNoise("wa") if kind == "online" else None)
    objective = stage_objective(stage, num_points=64, contrast_weight=0.0, guide_until=0.0)
    # CTVIS's head takes no part in a loss without contrast
    optimizer = torch.optim.AdamW(published_groups(stage, learning_rate=2e-3, weight_decay=0.05))
    frames, labels = batch()
    totals = []
    for _ in range(12):
        totals.append(sum(step(stage, objective, frames, labels, (0, 1))))
        optimizer.step()
        optimizer.zero_grad()
    assert min(totals[-3:]) < 0.8 * totals[0]


@pytest.mark.parametrize("kind", KINDS)
def test_clips_on_their_own_add_up_to_the_batch(kind: str) -> None:
    """What data-parallel training relies on: each clip draws from its own generator, sizes are averaged."""
    noise = QueryNoise("wa") if kind == "online" else None
    model = tiny_dvis(kind, dtype=torch.float64)
    stage = build_stage(model, noise=noise)
    objective = stage_objective(stage, num_points=16)
    frames, labels = batch()
    frames = frames.double()

    def gradients() -> dict[str, Tensor]:
        found = {name: p.grad for name, p in stage.named_parameters() if p.grad is not None}
        stage.zero_grad(set_to_none=True)
        return found

    step(stage, objective, frames, labels, (3, 4))
    together = gradients()
    sizes = torch.stack([objective.size(labels[number : number + 1]) for number in range(2)])
    shared = objective.for_step(size=sizes.double().mean(dim=0), progress=0.0)
    for number in range(2):
        clip = slice(number, number + 1)
        step(stage, shared, frames[clip], labels[clip], (3 + number,))
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient / 2, together[name], rtol=1e-6, atol=1e-8, msg=name)


def saved_bytes(objective: Any, stage: Stage, frames: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """The loss, and the bytes that its graph keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = objective.with_generators(seeded(0, 1))(stage, frames, labels)
    return loss, sum(kept.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_lean_objective_is_the_same_to_the_bit_and_keeps_less(kind: str) -> None:
    stage = build_stage(tiny_dvis(kind))
    objective = stage_objective(stage, num_points=256)
    frames, labels = batch()
    labels[1, 1] = 255
    results = []
    for own in (objective, objective.lean()):
        for parameter in stage.parameters():  # there is something to make room for
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        loss, kept = saved_bytes(own, stage, frames, labels)
        loss.backward()
        results.append((loss, kept, [p.grad for p in stage.parameters() if p.grad is not None]))
    (loss, kept, gradients), (lean_loss, lean_kept, lean_gradients) = results
    assert torch.equal(loss, lean_loss)
    assert all(torch.equal(one, other) for one, other in zip(gradients, lean_gradients, strict=True))
    assert lean_kept < kept


@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients_there_is_nothing_to_make_room_for(kind: str) -> None:
    stage = build_stage(tiny_dvis(kind))
    objective = stage_objective(stage, num_points=64)
    kept = [saved_bytes(own, stage, *batch())[1] for own in (objective, objective.lean())]
    assert kept[1] == pytest.approx(kept[0], rel=0.01)  # where storage is used twice it may count once


def test_mvc_is_lean_in_its_masked_pass_alone() -> None:
    stage = build_stage(tiny_dvis("online"))
    objective = stage_objective(stage, num_points=8)
    seen: list[bool] = []
    forward = stage.forward

    def watched(*arguments: Any, spares: bool = False, **choices: Any) -> Any:
        seen.append(spares)
        return forward(*arguments, spares=spares, **choices)

    stage.forward = watched  # type: ignore[method-assign]
    step(stage, objective, *batch(), (0, 1))
    assert seen == [False, True]


def test_padding_of_a_batch_changes_no_clips_targets() -> None:
    """Clips of different sizes share a batch: padded with the mean colour and ignored labels."""
    stage = build_stage(tiny_dvis("online"))
    frames, labels = batch(size=(64, 64))
    objective = stage_objective(stage, num_points=16)
    ignored = labels.clone()
    ignored[:, :, 40:] = 255
    assert objective.with_generators(seeded(0, 1))(stage, frames, ignored).isfinite()  # type: ignore[arg-type]


def test_a_clip_without_labels_costs_classes_only_and_trains() -> None:
    for kind in ("segmenter", "online", "offline"):
        stage = build_stage(tiny_dvis(kind))
        frames, labels = batch()
        loss = stage_objective(stage, num_points=16)(stage, frames, torch.full_like(labels, 255))  # type: ignore[arg-type]
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in stage.parameters() if p.grad is not None)


def test_a_partly_masked_stage_needs_generators() -> None:
    stage = build_stage(tiny_dvis("online"), masked_parts=("pixels",))
    frames, labels = batch()
    mvc = MVCWrapper(stage, mask=PatchMask(patch_size=8, ratio=0.5), objective=stage_objective(stage, num_points=16))
    with pytest.raises(ConfigError, match="generator: missing; where masked_parts"):
        next(iter(mvc.loss_terms(frames, labels)))
    next(iter(mvc.loss_terms(frames, labels, generator=torch.Generator().manual_seed(0)))).backward()
