"""The set loss as an objective: laws of batches, steps, guides, weights and bad input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.losses import (
    DenseMasks,
    FactoredMasks,
    LayerPrediction,
    MaskSetObjective,
    QueryClip,
    Targets,
    targets_of_instances,
)
from mvcseg.losses.mask_set import named_losses
from mvcseg.losses.objective import RandomObjective, SizedObjective
from mvcseg.losses.set_matching import Match
from mvcseg.losses.targets import TargetMasks
from mvcseg.masking import PatchMask
from mvcseg.mvc import MVCWrapper

T, Q, K, D, H, W = 2, 6, 4, 3, 36, 60  # padded to 64 x 64, masks 16 x 16
MATCHINGS = ("frame", "first", "video")


class QueryNet(torch.nn.Module):
    """Two layers of free kernels on features of the frames; enough to have gradients."""

    def __init__(self, *, matching: str = "frame", is_dense: bool = False, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.num_classes = K
        self.is_clip = matching == "video"
        self.is_dense = is_dense
        self.kernels = torch.nn.Parameter(torch.randn(2, Q, D, generator=generator))
        self.bias = torch.nn.Parameter(torch.randn(2, Q, generator=generator))
        self.classes = torch.nn.Parameter(torch.randn(2, Q, K + 1, generator=generator))
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, frames: Tensor) -> QueryClip:
        batch, count = frames.shape[:2]
        padded = torch.nn.functional.pad(frames.flatten(0, 1), (0, -frames.shape[-1] % 32, 0, -frames.shape[-2] % 32))
        features = self.scale * torch.nn.functional.avg_pool2d(padded, 4).unflatten(0, (batch, count)) * 4 - 1
        layers = []
        for kernels, bias, classes in zip(self.kernels, self.bias, self.classes, strict=True):
            masks: Any = FactoredMasks(kernels.expand(batch, count, -1, -1), features, bias.expand(batch, count, -1))
            if self.is_dense:
                masks = DenseMasks(torch.einsum("qd,btdhw->btqhw", kernels, features) + bias[:, None, None])
            mean = features.mean(dim=(2, 3, 4))
            logits = classes + (mean.mean(dim=1, keepdim=True) if self.is_clip else mean)[..., None, None]
            layers.append(LayerPrediction(logits, masks))
        return QueryClip(tuple(layers))


def clips(count: int = 4) -> tuple[Tensor, Tensor]:
    """Frames and labels; the last clip is void, the first has most classes."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand(count, T, 3, H, W, generator=generator)
    blocks = torch.randint(0, K, (count, T, H // 12, W // 12), generator=generator)
    labels = blocks.repeat_interleave(12, dim=2).repeat_interleave(12, dim=3)
    labels[1][labels[1] > 1] = 255
    labels[2, 0] = 0
    labels[-1] = 255
    return frames, labels


def generators(numbers: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in numbers]


def objective_of(matching: Any = "frame", **changes: Any) -> MaskSetObjective:
    return MaskSetObjective(matching=matching, num_points=24, **changes)


def loss_and_gradients(net: QueryNet, objective: Any, frames: Tensor, labels: Tensor) -> list[Tensor]:
    loss = objective(net, frames, labels)
    return [loss.detach(), *torch.autograd.grad(loss, list(net.parameters()))]


@pytest.mark.parametrize("parts", [[[0], [1], [2], [3]], [[0, 3], [1, 2]], [[0], [1, 2, 3]]])
@pytest.mark.parametrize("matching", MATCHINGS)
def test_the_mean_of_a_steps_parts_is_the_loss_of_all_clips_at_once(matching: str, parts: list[list[int]]) -> None:
    (frames, labels), net, objective = clips(), QueryNet(matching=matching), objective_of(matching)
    whole = loss_and_gradients(net, objective.with_generators(generators(range(4))), frames, labels)
    size = torch.stack([objective.size(labels[part]) for part in parts]).mean(dim=0)
    within = objective.for_step(size=size, progress=0.0)
    pieces = [
        loss_and_gradients(net, within.with_generators(generators(part)), frames[part], labels[part]) for part in parts
    ]
    for got, expected in zip(zip(*pieces, strict=True), whole, strict=True):
        assert torch.allclose(torch.stack(got).mean(dim=0), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_the_normaliser_of_classes_is_the_sum_of_all_queries_weights(matching: str) -> None:
    (frames, labels), net = clips(), QueryNet(matching=matching)
    losses, _ = objective_of(matching).with_generators(generators(range(4))).terms(net, frames, labels)
    logits = net(frames).layers[-1].class_logits
    classes = torch.full(logits.shape[:3], K)
    for clip, groups in enumerate(losses.matches):
        present = labels[clip].unique()
        for group, match in enumerate(groups):
            classes[clip, group, match.queries] = present[match.targets]
    weights = torch.tensor([1.0] * K + [0.1])
    mean = torch.nn.functional.cross_entropy(logits.flatten(0, 2), classes.flatten(), weight=weights)
    assert losses.layers[-1].classes.item() == pytest.approx(mean.item(), rel=1e-5)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_kept_as_a_product_or_whole_masks_have_the_same_loss_and_gradients(matching: str) -> None:
    (frames, labels), objective = clips(), objective_of(matching).with_generators(generators(range(4)))
    factored = loss_and_gradients(QueryNet(matching=matching), objective, frames, labels)
    objective = objective.with_generators(generators(range(4)))
    dense = loss_and_gradients(QueryNet(matching=matching, is_dense=True), objective, frames, labels)
    for got, expected in zip(factored, dense, strict=True):
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_the_total_is_the_weighted_sum_of_the_named_terms() -> None:
    (frames, labels), net = clips(), QueryNet()
    objective = objective_of(class_weight=3.0, mask_weight=0.5, dice_weight=7.0)
    losses, contrast = objective.with_generators(generators([1])).terms(net, frames, labels)
    assert contrast is None
    named = named_losses(losses)
    assert list(named) == ["loss_ce_0", "loss_mask_0", "loss_dice_0", "loss_ce", "loss_mask", "loss_dice"]
    factors = {"ce": 3.0, "mask": 0.5, "dice": 7.0}
    expected = sum(factors[name.split("_")[1]] * term.item() for name, term in named.items())
    total = objective.with_generators(generators([1]))(net, frames, labels)
    assert total.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("void", ["background", "ignored"])
def test_a_batch_of_void_clips_costs_what_its_classes_do_and_every_parameter_has_a_gradient(
    matching: str, void: Any
) -> None:
    frames, labels = clips()
    net, objective = QueryNet(matching=matching), objective_of(matching, void=void)
    loss = objective(net, frames, torch.full_like(labels, 255))
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())
    none = torch.stack([layer.class_logits.log_softmax(-1)[..., -1].mean() for layer in net(frames).layers])
    assert loss.item() == pytest.approx(-2 * none.sum().item(), rel=1e-5)
    assert objective.size(torch.full_like(labels, 255))[0] == 0


@pytest.mark.parametrize("matching", MATCHINGS)
def test_bfloat16_predictions_under_autocast_have_finite_float32_losses_and_gradients(matching: str) -> None:
    (frames, labels), net = clips(), QueryNet(matching=matching)
    objective = objective_of(matching, void="ignored").with_generators(generators(range(4)))

    def coarse(segmenter: Any, frames: Tensor, generators: Any) -> QueryClip:
        clip = segmenter(frames)
        layers = [
            LayerPrediction(
                layer.class_logits.bfloat16() * 100,
                FactoredMasks(*(part.bfloat16() * 30 for part in (layer.masks.kernels, layer.masks.features))),
            )
            for layer in clip.layers
        ]
        return QueryClip(tuple(layers))

    objective.predict = coarse
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(net, frames, labels)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    gradients = torch.autograd.grad(loss, [net.kernels, net.classes, net.scale])
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("name", ["kernels", "classes"])
def test_a_nan_prediction_gives_a_nan_loss(matching: str, name: str) -> None:
    (frames, labels), net = clips(), QueryNet(matching=matching)
    getattr(net, name).data[:, 2] = torch.nan
    assert objective_of(matching)(net, frames, labels).isnan()


@pytest.mark.parametrize("matching", MATCHINGS)
def test_more_targets_than_queries_cost_a_finite_loss(matching: str) -> None:
    net = QueryNet(matching=matching)
    for name in ("kernels", "bias", "classes"):
        setattr(net, name, torch.nn.Parameter(getattr(net, name)[:, :2].detach()))
    frames, labels = clips()
    assert len(labels[0].unique()) > 2
    assert objective_of(matching)(net, frames, labels).isfinite()


def test_a_clips_draws_follow_from_its_generator_alone() -> None:
    (frames, labels), net = clips(), QueryNet()
    size = torch.ones(3)
    objective = objective_of().for_step(size=size, progress=0.0)
    together = objective.with_generators(generators([5, 6]))(net, frames[:2], labels[:2])
    alone = [
        objective.with_generators(generators([5 + n]))(net, frames[n : n + 1], labels[n : n + 1]) for n in range(2)
    ]
    assert together.item() == pytest.approx(sum(loss.item() for loss in alone), rel=1e-5)
    again = objective.with_generators(generators([5, 6]))(net, frames[:2], labels[:2])
    assert torch.equal(together, again)


class Guided(QueryNet):
    """Says the classes of the labels in the order of the queries, as a guide, whatever its own layers say."""

    def forward(self, frames: Tensor) -> QueryClip:
        clip = super().forward(frames)
        logits = torch.full_like(clip.layers[0].class_logits, -9.0)
        logits[..., torch.arange(K), torch.arange(K)] = 9.0  # query k is sure of class k
        return QueryClip(clip.layers, guide=LayerPrediction(logits, clip.layers[0].masks))


@pytest.mark.parametrize(("progress", "is_guided"), [(0.0, True), (0.49, True), (0.5, False), (0.9, False)])
def test_the_guide_assigns_all_layers_until_its_share_of_the_run_is_over(progress: float, is_guided: bool) -> None:
    frames, labels = clips()
    objective = objective_of("first", guide_until=0.5, mask_weight=0.0, dice_weight=0.0)
    step = objective.for_step(size=objective.size(labels), progress=progress).with_generators(generators(range(4)))
    losses, _ = step.terms(Guided(seed=3), frames, labels)
    for layer in losses.layers:
        wanted = {
            query: present.tolist()[target]
            for present, (match, *_) in zip((labels[0].unique(), labels[2].unique()), layer.matches[::2], strict=False)
            for query, target in zip(match.queries.tolist(), match.targets.tolist(), strict=True)
        }
        assert all(query == class_id for query, class_id in wanted.items()) == is_guided


def test_without_a_guide_each_layer_is_assigned_on_its_own() -> None:
    frames, labels = clips()
    guided, plain = (
        objective_of("first", guide_until=until).with_generators(generators(range(4)))(QueryNet(), frames, labels)
        for until in (1.0, 0.0)
    )
    assert torch.equal(guided, plain)


def test_weights_of_one_change_nothing_and_void_can_be_left_out() -> None:
    (frames, labels), net = clips(), QueryNet()

    def loss(weight: Tensor | None = None, **changes: Any) -> float:
        objective = objective_of(**changes).with_generators(generators(range(4)))
        return objective(net, frames, labels, weight).item()

    known = (labels != 255).float()
    assert loss(torch.ones(labels.shape)) == pytest.approx(loss(), rel=1e-5)
    assert loss(known) == pytest.approx(loss(void="ignored"), rel=1e-6)
    assert loss(void="ignored") != pytest.approx(loss(), rel=1e-3)
    half = torch.full(labels.shape, 0.5)
    assert loss(half, void="ignored") == pytest.approx(loss(known / 2), rel=1e-6)


def test_ignored_void_takes_a_perfect_mask_of_the_rest_for_perfect() -> None:
    labels = torch.zeros(1, 1, 32, 32, dtype=torch.int64)
    labels[..., 16:] = 255
    everywhere = DenseMasks(torch.full((1, 1, 1, 8, 8), 50.0))
    clip = QueryClip((LayerPrediction(torch.zeros(1, 1, 1, 2), everywhere),))
    for void, is_perfect in (("ignored", True), ("background", False)):
        objective = MaskSetObjective(predict=lambda *_: clip, num_points=64, void=void, importance=0.0)  # type: ignore[arg-type]
        losses, _ = objective.terms(None, torch.rand(1, 1, 3, 32, 32), labels)  # type: ignore[arg-type]
        assert (losses.layers[0].mask.item() < 1.0) == is_perfect
        assert (losses.layers[0].dice.item() < 0.02) == is_perfect


def test_masks_may_cover_the_frames_alone() -> None:
    frames, labels = torch.rand(1, 1, 3, 40, 40), torch.zeros(1, 1, 40, 40, dtype=torch.int64)
    full = DenseMasks(torch.full((1, 1, 1, 10, 10), 50.0))

    def mask_loss(covered: tuple[int, int] | None) -> float:
        clip = QueryClip((LayerPrediction(torch.zeros(1, 1, 1, 2), full),), covered=covered)
        objective = MaskSetObjective(predict=lambda *_: clip, num_points=512, importance=0.0)
        objective = objective.with_generators(generators([0]))
        return objective.terms(None, frames, labels)[0].layers[0].mask.item()  # type: ignore[arg-type]

    assert mask_loss((40, 40)) < 2.0  # at the border alone
    assert mask_loss(None) > 15.0  # the frame is 40 of 64 pixels high and wide
    assert mask_loss(None) == mask_loss((64, 64)) != mask_loss((40, 64))


class Noting:
    """A contrast that keeps what it is given."""

    def __call__(self, embeds: Tensor, matches: Any, targets: Any, *, draws: Any, size: Any = None) -> Tensor:
        self.matches, self.targets, self.draws, self.given = matches, targets, draws, size
        return 3.0 * embeds.mean()

    def size(self, targets: Sequence[Targets]) -> Tensor:
        return torch.tensor(float(sum(len(each) for each in targets)))


def test_the_contrast_is_added_and_gets_matches_targets_draws_and_its_size() -> None:
    (frames, labels), contrast = clips(), Noting()
    net = QueryNet()
    embeds = torch.randn(4, T, Q, 5)

    def predict(segmenter: Any, frames: Tensor, generators: Any) -> QueryClip:
        return QueryClip(segmenter(frames).layers, embeds=embeds)

    with_contrast, plain = (
        objective_of(predict=predict, contrast=each).with_generators(generators(range(4))) for each in (contrast, None)
    )
    total = with_contrast(net, frames, labels)
    plain_total = plain(net, frames, labels)
    assert total.item() == pytest.approx(plain_total.item() + 3 * embeds.mean().item(), rel=1e-5)
    assert len(contrast.matches) == len(contrast.targets) == len(contrast.draws) == 4
    assert isinstance(contrast.matches[0][0], Match)
    counts = [len(labels[clip][labels[clip] != 255].unique()) for clip in range(4)]
    assert contrast.given == sum(counts) == with_contrast.size(labels)[2]
    with_contrast.for_step(size=torch.tensor([1.0, 1.0, 7.5]), progress=0.0)(net, frames, labels)
    assert contrast.given == 7.5
    with pytest.raises(ConfigError, match="contrast: expected a prediction with embeds"):
        objective_of(contrast=contrast)(net, frames, labels)


def test_targets_can_be_made_otherwise() -> None:
    frames, labels = clips()

    def of_halves(clip: Tensor) -> Targets:
        return targets_of_instances(clip, (torch.arange(W) >= W // 2).int().expand(clip.shape))

    plain, halved = objective_of(), objective_of(targets=of_halves)
    assert halved.size(labels)[0] > plain.size(labels)[0]
    assert halved(QueryNet(), frames, labels).isfinite()
    masks: TargetMasks = of_halves(labels[0]).masks
    assert masks.shape == (T, H, W)


def test_it_draws_has_a_size_and_returns_copies() -> None:
    objective, (_, labels) = objective_of(), clips()
    assert isinstance(objective, RandomObjective)
    assert isinstance(objective, SizedObjective)
    within = objective.for_step(size=objective.size(labels) * 2, progress=0.3).with_generators(generators([0]))
    assert within is not objective
    frames, net = clips()[0], QueryNet()
    halved = within(net, frames, labels)
    full = objective.with_generators(generators([0]))(net, frames, labels)
    assert 2 * halved.item() == pytest.approx(full.item(), rel=1e-5)


def test_the_model_gets_the_generators_before_any_points_are_drawn() -> None:
    given: list[Any] = []

    def predict(segmenter: Any, frames: Tensor, own: Any) -> QueryClip:
        given.append([generator.initial_seed() for generator in own])
        return segmenter(frames)  # type: ignore[no-any-return]

    frames, labels = clips()
    objective_of(predict=predict).with_generators(generators([3, 1, 4, 1]))(QueryNet(), frames, labels)
    assert given == [[3, 1, 4, 1]]


@pytest.mark.parametrize("matching", MATCHINGS)
def test_the_loss_is_the_same_on_every_device(matching: str, device: torch.device) -> None:
    frames, labels = clips()
    losses = []
    for place in (torch.device("cpu"), device):
        net = QueryNet(matching=matching).to(place)
        objective = objective_of(matching, void="ignored").with_generators(generators(range(4)))
        loss = objective(net, frames.to(place), labels.to(place), torch.full(labels.shape, 0.5, device=place))
        loss.backward()
        assert loss.device.type == place.type
        assert objective.size(labels.to(place)).device.type == place.type
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_masked_video_consistency_takes_it_twice() -> None:
    (frames, labels), net = clips(), QueryNet()
    mvc = MVCWrapper(net, mask=PatchMask(patch_size=16, ratio=0.5), objective=objective_of())  # type: ignore[arg-type]
    clean, masked = mvc.loss_terms(frames, labels, generator=generators(range(4)))
    assert clean.isfinite()
    assert masked.isfinite()
    assert clean.item() != masked.item()


def test_queries_learn_the_classes_and_masks_of_a_clip() -> None:
    labels = torch.zeros(1, T, 32, 32, dtype=torch.int64)
    labels[:, :, :, 16:], labels[:, 1, 16:, 16:] = 2, 255
    masks = torch.nn.Parameter(torch.randn(1, T, Q, 8, 8, generator=torch.Generator().manual_seed(0)))
    classes = torch.nn.Parameter(torch.zeros(1, T, Q, K + 1))
    objective = MaskSetObjective(
        predict=lambda *_: QueryClip((LayerPrediction(classes, DenseMasks(masks)),)), matching="first", num_points=64
    )
    optimizer = torch.optim.Adam([masks, classes], lr=0.3)
    draws = generators([0])
    for _ in range(60):
        optimizer.zero_grad()
        objective.with_generators(draws)(None, torch.rand(1, T, 3, 32, 32), labels).backward()  # type: ignore[arg-type]
        optimizer.step()
    scores = torch.einsum("btqk,btqhw->btkhw", classes.softmax(-1)[..., :-1], masks.sigmoid()).argmax(dim=2)
    coarse = labels[:, :, 2::4, 2::4]
    assert torch.equal(scores[coarse != 255], coarse[coarse != 255])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guide_until": 1.5}, "guide_until: expected a share"),
        ({"void": "kept"}, "void: expected background or ignored"),
        ({"class_weight": -1.0}, "class_weight: expected a finite number"),
        ({"dice_weight": float("inf")}, "dice_weight: expected a finite number"),
        ({"no_object_weight": -0.1}, "no_object_weight: expected"),
        ({"num_points": 0}, "num_points: expected"),
        ({"oversample": 0.0}, "oversample: expected"),
        ({"importance": 2.0}, "importance: expected"),
        ({"matching": "clip"}, "matching: expected one of frame, first, video"),
    ],
)
def test_numbers_outside_their_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MaskSetObjective(**changes)


def test_bad_input_is_refused_by_name() -> None:
    (frames, labels), net, objective = clips(), QueryNet(), objective_of()
    with pytest.raises(ShapeError, match="labels: expected"):
        objective(net, frames, labels[:, :1])
    with pytest.raises(ShapeError, match="weight: expected"):
        objective(net, frames, labels, torch.ones(1, T, H, W))
    with pytest.raises(DTypeError, match="labels: expected an integer"):
        objective(net, frames, labels.float())
    with pytest.raises(DataError, match=r"labels: expected classes 0..3 or 255, got 9"):
        objective(net, frames, torch.where(labels == 3, 9, labels))
    with pytest.raises(ConfigError, match="generators: expected one for each of 4 clips, or one, got 2"):
        objective.with_generators(generators([0, 1]))(net, frames, labels)
    with pytest.raises(DTypeError, match="predict: expected a QueryClip, got Tensor"):
        objective(lambda frames: frames, frames, labels)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="targets: expected one for each of 4 clips"):
        objective_of(predict=lambda net, frames, _: net(frames.repeat(2, 1, 1, 1, 1)))(net, frames[:2], labels[:2])
