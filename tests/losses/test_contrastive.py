"""Contrast of tracker and refiner: against the public implementation, over batches and processes, of nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from contrast_loops import one_by_one
from golden_files import Golden, GoldenFolders
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.losses.class_memory import ClassMemory
from mvcseg.losses.contrast_terms import contrastive_loss, refiner_scores, similarity_error, tracker_scores
from mvcseg.losses.contrastive import Contrast, RefinerContrast, TrackerContrast
from mvcseg.losses.reid import ReidContrast
from mvcseg.losses.set_matching import Match
from mvcseg.losses.targets import IndexMasks, Targets
from mvcseg.ops.points import draw_from

CPU = torch.device("cpu")


def targets_of(class_ids: Sequence[int], frames: int, *, is_present: Tensor | None = None) -> Targets:
    if is_present is None:
        is_present = torch.ones(len(class_ids), frames, dtype=torch.bool)
    masks = IndexMasks(torch.full((frames, 1, 1), -1))
    return Targets(torch.tensor(class_ids, dtype=torch.int64), is_present, masks)


def match(queries: Sequence[int], targets: Sequence[int]) -> Match:
    return Match(torch.tensor(queries, dtype=torch.int64), torch.tensor(targets, dtype=torch.int64))


def draws(count: int) -> list[Callable[[tuple[int, ...]], Tensor]]:
    return [draw_from(torch.Generator().manual_seed(number), device=CPU) for number in range(count)]


def contrasts() -> list[Contrast]:
    return [TrackerContrast(), RefinerContrast(), RefinerContrast(ClassMemory(5, width=4)), ReidContrast()]


@pytest.fixture
def stored(golden: GoldenFolders) -> Golden:
    return Golden(golden / "ops/contrastive.npz")


def check_number(stored: Golden, name: str, value: Tensor) -> None:
    assert value.item() == pytest.approx(stored.tensor(name).item(), rel=1e-6), name


def stored_match(stored: Golden) -> Match:
    return Match(stored.tensor("match_src"), stored.tensor("match_tgt"))


def test_tracker_loss_and_gradient_are_those_of_the_reference(stored: Golden) -> None:
    embeds = stored.tensor("refs").requires_grad_()
    loss = TrackerContrast(weight=1.0)(embeds[None], [[stored_match(stored)]], [targets_of([3, 3, 8], 4)])
    check_number(stored, "online_loss_reid", loss)
    # the stored gradient is that of both terms, though the reference trains with the first alone
    scores = tracker_scores(functional.normalize(embeds, dim=-1), [stored_match(stored)])
    error = torch.cat([similarity_error(part) for part in scores]).mean()
    check_number(stored, "online_loss_aux", error)
    (loss + error).backward()
    stored.check("online_grad", embeds.grad, rtol=2e-6)


def test_refiner_loss_is_that_of_the_reference_before_and_after_it_remembers(stored: Golden) -> None:
    memory = ClassMemory(9, width=32)
    contrast = RefinerContrast(memory, weight=1.0)
    classes = targets_of(stored.tensor("labels").tolist(), 4)
    for number, name in ((1, "emb"), (2, "emb2")):
        embeds = stored.tensor(name).permute(0, 2, 3, 1).clone().requires_grad_()
        loss = contrast(embeds, [[stored_match(stored)]], [classes], draws=draws(1))
        check_number(stored, f"offline_loss_reid_{number}", loss)
        memory.commit()
    assert memory.counts[[3, 8]].tolist() == [16, 8]


def test_cosine_term_is_that_of_the_reference_though_it_is_left_out_of_the_loss(stored: Golden) -> None:
    embeds = functional.normalize(stored.tensor("emb")[0].permute(1, 2, 0), dim=-1)
    error = similarity_error(refiner_scores(embeds, [stored_match(stored)])).mean()
    check_number(stored, "offline_loss_aux_1", error)


def test_loss_is_the_mean_over_the_comparisons_of_the_batch(generator: torch.Generator) -> None:
    embeds = torch.randn(2, 3, 6, 4, generator=generator)
    matches = [[match([5, 2], [0, 1])], [match([1], [0])]]
    targets = [targets_of([0, 1], 3), targets_of([2], 3)]
    parts = [
        contrastive_loss(scores)
        for clip, of_clip in zip(embeds, matches, strict=True)
        for scores in tracker_scores(clip, of_clip)
    ]
    assert torch.allclose(TrackerContrast()(embeds, matches, targets), 2 * torch.cat(parts).mean())
    assert len(torch.cat(parts)) == TrackerContrast().size(targets).item() == 9
    within = torch.cat([contrastive_loss(refiner_scores(*clip)) for clip in zip(embeds, matches, strict=True)])
    assert torch.allclose(RefinerContrast()(embeds, matches, targets), 2 * within.mean())
    assert len(within) == RefinerContrast().size(targets).item() == 9


@pytest.mark.parametrize("contrast", contrasts(), ids=["tracker", "refiner", "memory", "reid"])
def test_parts_of_a_step_add_up_to_the_loss_of_all_clips(contrast: Contrast, generator: torch.Generator) -> None:
    if isinstance(contrast, RefinerContrast) and contrast.memory is not None:
        contrast.memory.remember(torch.randn(3, 4), torch.tensor([0, 1, 1]), priorities=torch.rand(3))
        contrast.memory.commit()
    embeds = torch.randn(3, 3, 6, 4, generator=generator)
    matches = [[match([5, 2, 0], [0, 1, 2])] * 3, [match([1], [0])] * 3, [match([3, 4], [1, 0])] * 3]
    targets = [targets_of([0, 1, 4], 3), targets_of([2], 3), targets_of([1, 3], 3)]
    whole = contrast(embeds, matches, targets, draws=draws(3))
    sizes = [contrast.size(targets[:2]), contrast.size(targets[2:])]
    step = dict(size=torch.stack(sizes).mean())
    first = contrast(embeds[:2], matches[:2], targets[:2], draws=draws(3)[:2], **step)
    second = contrast(embeds[2:], matches[2:], targets[2:], draws=draws(3)[2:], **step)
    assert torch.allclose((first + second) / 2, whole)


@pytest.mark.parametrize("contrast", contrasts(), ids=["tracker", "refiner", "memory", "reid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_targets_give_zero_with_a_graph(contrast: Contrast, dtype: torch.dtype) -> None:
    embeds = torch.full((2, 3, 6, 4), torch.finfo(dtype).max, dtype=dtype, requires_grad=True)
    loss = contrast(embeds, [[match([], [])] * 3] * 2, [targets_of([], 3)] * 2, draws=draws(2))
    loss.backward()
    assert loss.item() == 0
    assert loss.dtype == torch.float32
    assert not embeds.grad.any()


@pytest.mark.parametrize("contrast", [TrackerContrast(), ReidContrast()], ids=["tracker", "reid"])
def test_one_frame_gives_zero_with_a_graph(contrast: Contrast) -> None:
    embeds = torch.randn(1, 1, 6, 4, requires_grad=True)
    loss = contrast(embeds, [[match([2], [0])]], [targets_of([1], 1)], draws=draws(1))
    loss.backward()
    assert loss.item() == 0
    assert not embeds.grad.any()


def test_one_frame_of_the_refiner_is_told_from_its_other_queries() -> None:
    embeds = torch.randn(1, 1, 6, 4, requires_grad=True)
    RefinerContrast()(embeds, [[match([2], [0])]], [targets_of([1], 1)]).backward()
    assert embeds.grad.isfinite().all()
    assert embeds.grad.any()


@pytest.mark.parametrize("contrast", contrasts(), ids=["tracker", "refiner", "memory", "reid"])
def test_loss_is_single_precision_under_autocast(contrast: Contrast, generator: torch.Generator) -> None:
    embeds = 30 * torch.randn(1, 3, 6, 4, generator=generator)
    arguments = ([[match([5, 2], [0, 1])] * 3], [targets_of([0, 1], 3)])
    plain = contrast(embeds, *arguments, draws=draws(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(contrast(embeds, *arguments, draws=draws(1)), plain)
    coarse = contrast(embeds.bfloat16(), *arguments, draws=draws(1))
    assert coarse.isfinite()
    assert torch.allclose(coarse, plain, rtol=0.05)


@pytest.mark.cuda
@pytest.mark.parametrize("contrast", contrasts(), ids=["tracker", "refiner", "memory", "reid"])
def test_every_device_gives_the_same(contrast: Contrast, device: torch.device, generator: torch.Generator) -> None:
    embeds = torch.randn(1, 3, 6, 4, generator=generator)
    arguments = ([[match([5, 2], [0, 1])] * 3], [targets_of([0, 1], 3)])
    there = contrast(embeds.to(device), *arguments, draws=draws(1))
    assert there.device.type == device.type
    assert torch.allclose(there.cpu(), contrast(embeds, *arguments, draws=draws(1)), rtol=1e-5)


def test_refiner_compares_with_remembered_vectors_of_the_targets_own_class() -> None:
    memory = ClassMemory(5, width=2, length=3)
    memory.remember(torch.tensor([[1.0, 0.0], [9.0, 9.0]]), torch.tensor([1, 2]), priorities=torch.rand(2))
    memory.commit()
    contrast = RefinerContrast(memory, weight=1.0)
    embeds = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]])
    targets = [targets_of([1], 1)]
    # within the frame a.n - a.p = 0 - 1, against the memory 0 - 1 likewise
    assert contrast.size(targets).item() == 2
    loss = contrast(embeds, [[match([0], [0])]], targets, draws=draws(1))
    assert torch.allclose(loss, torch.tensor(-1.0).exp().log1p())
    # a class not seen yet is compared within the frame alone
    assert contrast.size([targets_of([3], 1)]).item() == 1


def test_every_target_is_told_from_vectors_of_its_own_class(generator: torch.Generator) -> None:
    memory = ClassMemory(5, width=4)
    stored = torch.randn(2, 4, generator=generator)
    memory.remember(stored, torch.tensor([3, 1]), priorities=torch.rand(2))
    memory.commit()
    embeds = torch.randn(1, 2, 6, 4, generator=generator)
    loss = RefinerContrast(memory, weight=1.0)(
        embeds, [[match([5, 2], [1, 0])]], [targets_of([1, 3], 2)], draws=draws(1)
    )
    terms = []
    for t in range(2):
        for query, negative in ((5, stored[0]), (2, stored[1])):
            others = [embeds[0, t, i] for i in range(6) if i != query]
            for negatives in (others, [negative]):
                terms.append(one_by_one(embeds[0, t, query], list(embeds[0, :, query]), negatives))
    assert torch.allclose(loss, torch.stack(terms).mean())


def test_only_what_is_learned_from_is_remembered_and_only_after_the_step() -> None:
    memory = ClassMemory(5, width=4)
    contrast = RefinerContrast(memory)
    arguments = ([[match([5, 2], [0, 1])]], [targets_of([0, 1], 3)])
    contrast(torch.randn(1, 3, 6, 4), *arguments, draws=draws(1))
    memory.commit()
    assert not memory.counts.any()
    embeds = torch.randn(1, 3, 6, 4, requires_grad=True)
    first = contrast(embeds, *arguments, draws=draws(1))
    assert torch.equal(contrast(embeds, *arguments, draws=draws(1)), first)
    memory.commit()
    assert memory.counts.tolist() == [6, 6, 0, 0, 0]
    assert any(torch.equal(row, embeds[0, 1, 2]) for row in memory.vectors[1])


def test_a_target_no_frame_shows_is_not_counted() -> None:
    shown = torch.tensor([[True, True, True], [False, False, False]])
    targets = [targets_of([0, 1], 3, is_present=shown)]
    assert [contrast.size(targets).item() for contrast in contrasts()] == [3, 3, 3, 2]


@pytest.mark.parametrize("contrast", contrasts(), ids=["tracker", "refiner", "memory", "reid"])
def test_what_does_not_fit_is_refused(contrast: Contrast) -> None:
    embeds, matches, targets = torch.zeros(1, 3, 6, 4), [[match([5], [0])]], [targets_of([0], 3)]
    with pytest.raises(ShapeError, match=r"embeds: expected \(b t q c\)"):
        contrast(embeds[0], matches, targets, draws=draws(1))
    with pytest.raises(DTypeError, match="embeds: expected a floating-point"):
        contrast(embeds.long(), matches, targets, draws=draws(1))
    with pytest.raises(ShapeError, match="matches: expected one entry for each of 1 clips, got 2"):
        contrast(embeds, matches * 2, targets, draws=draws(1))
    with pytest.raises(ShapeError, match="targets: expected one entry for each of 1 clips, got 0"):
        contrast(embeds, matches, [], draws=draws(1))
    with pytest.raises(ShapeError, match=r"matches\[0\]: expected one entry, or one for each of 3 frames, got 2"):
        contrast(embeds, [matches[0] * 2], targets, draws=draws(1))
    with pytest.raises(ShapeError, match=r"targets\[0\]: expected 3 frames as in embeds, got 4"):
        contrast(embeds, matches, [targets_of([0], 4)], draws=draws(1))


@pytest.mark.parametrize("contrast", contrasts()[2:], ids=["memory", "reid"])
def test_what_draws_needs_a_draw_for_each_clip(contrast: Contrast) -> None:
    with pytest.raises(ShapeError, match="draws: expected one entry for each of 1 clips, got 0"):
        contrast(torch.zeros(1, 3, 6, 4), [[match([5], [0])]], [targets_of([0], 3)], draws=[])


@pytest.mark.parametrize("kind", [TrackerContrast, RefinerContrast, ReidContrast])
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), True, "2"])
def test_weights_are_finite_numbers_of_at_least_zero(kind: type, weight: object) -> None:
    with pytest.raises(ConfigError, match="weight: expected a finite number of at least 0"):
        kind(weight=weight)
