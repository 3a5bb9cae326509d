"""Re-identification over frames that targets come into and leave, against a loop written from the description."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from contrast_loops import error_one_by_one, one_by_one
from golden_files import Golden, GoldenFolders, fill_module, unit_uniform
from torch import Tensor
from torch.nn import functional

from mvcseg.losses.queries import DenseMasks, LayerPrediction
from mvcseg.losses.reid import ReidContrast, reid_terms, running_means
from mvcseg.losses.set_matching import ClipTargets, Match, PairCosts, match_clip
from mvcseg.losses.targets import DenseTargetMasks, IndexMasks, Targets
from mvcseg.models.dvis.build import build_empty
from mvcseg.models.dvis.config import PRESETS
from mvcseg.models.dvis.names import to_official
from mvcseg.models.mask2former import FrameQueries


def targets_of(is_present: Sequence[Sequence[int]]) -> Targets:
    """Targets from a row of ones and zeros for each."""
    present = torch.tensor(is_present, dtype=torch.bool)
    return Targets(torch.arange(len(present)), present, IndexMasks(torch.full((present.shape[1], 1, 1), -1)))


def match_all(targets: Targets, generator: torch.Generator, *, num_queries: int) -> list[Match]:
    """Every target meets a query in every frame, also where it is absent."""
    rows = [torch.randperm(len(targets), generator=generator) for _ in range(targets.num_frames)]
    queries = [torch.randperm(num_queries, generator=generator)[: len(targets)] for _ in rows]
    return [Match(*pair) for pair in zip(queries, rows, strict=True)]


def query_of(match: Match, row: int) -> int:
    return int(match.queries[match.targets == row])


def loop_mean(past: list[Tensor]) -> Tensor:
    """The running mean of a target's vectors so far."""
    mean = past[0]
    for number in range(1, len(past)):
        cosines = [functional.cosine_similarity(past[number], other, dim=0) for other in past[:number]]
        share = max(torch.zeros((), dtype=mean.dtype), sum(cosines) / number)
        mean = (1 - share) * mean + share * past[number]
    return mean


def loop_terms(
    embeds: Tensor, matches: Sequence[Match], targets: Targets, takes_mean: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Frame by frame and target by target."""
    seen: dict[int, dict[int, Tensor]] = {row: {} for row in range(len(targets))}
    for t in range(targets.num_frames):
        for row in range(len(targets)):
            if targets.is_present[row, t] and row in matches[t].targets:
                seen[row][t] = embeds[t, query_of(matches[t], row)]
    losses, errors = [], []
    for t in range(1, targets.num_frames):
        for row in range(len(targets)):
            if t not in seen[row] or len(seen[row]) == 1:
                continue
            past = [seen[row][s] for s in sorted(seen[row]) if s < t]
            if not past:
                positive = next(seen[row][s] for s in sorted(seen[row]) if s > t)
            else:
                positive = loop_mean(past) if takes_mean[t, row] else past[-1]
            own = query_of(matches[t - 1], row) if t - 1 in seen[row] else None
            negatives = [embeds[t - 1, q] for q in range(embeds.shape[1]) if q != own]
            losses.append(one_by_one(seen[row][t], [positive], negatives))
            errors.append(error_one_by_one(seen[row][t], [positive], negatives))
    return losses, errors


PRESENCE = [
    [[1, 1, 1, 1], [1, 1, 1, 1]],
    [[0, 1, 1, 0], [1, 0, 0, 1], [1, 1, 0, 1]],
    [[0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0]],  # the second appears in frame 1 and is missing once after
    [[1, 1, 0, 1, 0, 1], [0, 1, 0, 0, 1, 1]],
]


@pytest.mark.parametrize("presence", PRESENCE)
@pytest.mark.parametrize("seed", range(3))
def test_terms_and_gradient_are_those_of_the_loop(presence: list[list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = targets_of(presence)
    matches = match_all(targets, generator, num_queries=6)
    embeds = torch.randn(targets.num_frames, 6, 5, dtype=torch.float64, generator=generator).requires_grad_()
    takes_mean = torch.rand(targets.num_frames, len(targets), generator=generator) > 0.3
    losses, errors = reid_terms(embeds, matches, targets, takes_mean=takes_mean)
    expected_losses, expected_errors = loop_terms(embeds, matches, targets, takes_mean)
    assert torch.allclose(losses, torch.stack(expected_losses), rtol=1e-12)
    assert torch.allclose(errors, torch.stack(expected_errors), rtol=1e-12)
    assert len(losses) == ReidContrast().size([targets]).item()
    got = torch.autograd.grad((2 * losses + 3 * errors).sum(), embeds)[0]
    total = torch.stack(expected_losses).sum() * 2 + torch.stack(expected_errors).sum() * 3
    assert torch.allclose(got, torch.autograd.grad(total, embeds)[0], rtol=1e-10)


def test_a_target_that_no_query_met_is_not_there(generator: torch.Generator) -> None:
    targets = targets_of([[1, 1, 1, 1], [1, 1, 1, 1]])
    matches = match_all(targets, generator, num_queries=6)
    cut = [*matches[:2], Match(matches[2].queries[:1], matches[2].targets[:1]), matches[3]]
    embeds = torch.randn(4, 6, 5, dtype=torch.float64, generator=generator)
    takes_mean = torch.ones(4, 2, dtype=torch.bool)
    losses, _ = reid_terms(embeds, cut, targets, takes_mean=takes_mean)
    assert torch.allclose(losses, torch.stack(loop_terms(embeds, cut, targets, takes_mean)[0]), rtol=1e-12)
    assert len(losses) == 5


def test_loss_is_weighted_and_takes_the_mean_above_one_half(generator: torch.Generator) -> None:
    targets = targets_of([[1, 1, 1], [1, 1, 1]])
    matches = match_all(targets, generator, num_queries=6)
    embeds = torch.randn(1, 3, 6, 5, generator=generator)
    numbers = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.5, 0.5001]])
    asked: list[tuple[int, ...]] = []

    def draw(shape: tuple[int, ...]) -> Tensor:
        asked.append(shape)
        return numbers

    loss = ReidContrast()(embeds, [matches], [targets], draws=[draw])
    losses, errors = loop_terms(embeds[0], matches, targets, numbers > 0.5)
    assert torch.allclose(loss, 2 * torch.stack(losses).mean() + 3 * torch.stack(errors).mean(), rtol=1e-5)
    assert asked == [(3, 2)]
    only = ReidContrast(weight=1.0, similarity_weight=0.0)(embeds, [matches], [targets], draws=[draw])
    assert torch.allclose(only, torch.stack(losses).mean(), rtol=1e-5)


def test_all_queries_are_negatives_where_the_target_was_absent(generator: torch.Generator) -> None:
    targets = targets_of([[1, 0, 1]])
    matches = [Match(torch.tensor([2]), torch.tensor([0]))] * 3
    embeds = torch.randn(3, 4, 5, dtype=torch.float64, generator=generator)
    losses, _ = reid_terms(embeds, matches, targets, takes_mean=torch.zeros(3, 1, dtype=torch.bool))
    assert torch.allclose(losses, one_by_one(embeds[2, 2], [embeds[0, 2]], list(embeds[1])))


def test_a_running_mean_of_equal_vectors_is_that_vector_and_opposite_ones_do_not_move_it() -> None:
    vector = torch.tensor([3.0, 4.0])
    vectors = torch.stack([vector, vector, vector, -vector])[:, None]
    is_seen = torch.tensor([False, True, True, True])[:, None]
    assert running_means(vectors, is_seen)[:, 0].tolist() == [[0, 0], [3, 4], [3, 4], [3, 4]]


def test_a_running_mean_moves_by_the_mean_cosine() -> None:
    # cosine of the second with the first is 0.6
    vectors = torch.tensor([[[1.0, 0.0]], [[0.6, 0.8]]])
    mean = running_means(vectors, torch.ones(2, 1, dtype=torch.bool))[1, 0]
    assert torch.allclose(mean, torch.tensor([0.4 + 0.6 * 0.6, 0.6 * 0.8]))


def golden_queries(stored: Golden, dtype: torch.dtype) -> FrameQueries:
    """What the segmenter trained as CTVIS, with the reference's weights, says of the stored frames."""
    model = build_empty(dataclasses.replace(PRESETS["vspw_ctvis_r50"], class_order=None)).to(dtype)
    fill_module(model, names=partial(to_official, backbone=model.backbone))
    with torch.no_grad():
        return model.segment(stored.tensor("frames").to(dtype) / 255)


def golden_targets(stored: Golden) -> Targets:
    shape = stored.index["masks"]["shape"]
    masks = DenseTargetMasks(torch.from_numpy(stored.bits("masks")).view(shape))
    return Targets(stored.tensor("labels"), stored.tensor("ids") >= 0, masks)


@pytest.mark.golden
@pytest.mark.slow
def test_both_terms_are_those_of_the_reference(golden: GoldenFolders) -> None:
    stored = Golden(golden / "train/train_step_r50.npz")
    queries, targets = golden_queries(stored, torch.float64), golden_targets(stored)
    layer = LayerPrediction(queries.class_logits[None], DenseMasks(queries.masks()[None]))
    run = Golden(golden / "train/train_step_r50_f64.npz").meta["runs"]["ctvis"]
    drawn = [name for name, _ in run["random_draws"] if "/rand/" in name]
    points = iter(drawn[-targets.num_frames :])  # the reference assigns anew, at other points, for this loss
    matches = match_clip(
        layer,
        ClipTargets(targets),
        video=0,
        matching="frame",
        costs=PairCosts(),
        num_points=stored.meta["num_points"],
        draw=lambda shape: torch.from_numpy(unit_uniform(next(points), shape, seed=2)),
        keep_absent=True,
    )
    coins = torch.zeros(targets.num_frames, len(targets))
    # one for every target that is there and was there before, frame by frame
    tossed = targets.is_present & (targets.is_present.cumsum(dim=1) > 1)
    coins[tossed.T] = torch.tensor([value for name, value in run["random_draws"] if "/np/" in name])
    losses, errors = reid_terms(queries.embeds[..., 256:], matches, targets, takes_mean=coins > 0.5)
    expected = run["losses_weighted"]
    assert 2 * losses.mean().item() == pytest.approx(expected["loss_reid"], rel=1e-10)
    assert 3 * errors.mean().item() == pytest.approx(expected["loss_aux_reid"], rel=1e-10)
