"""Stages: what learns, what stays, and that they predict what the model predicts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tiny_dvis import CLASSES, KINDS, QUERIES, WIDTH, as_input, tiny_dvis, video
from torch import Tensor, nn

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.losses.queries import FactoredMasks, LayerPrediction, QueryClip
from mvcseg.models.backbones.vit import VisionTransformer
from mvcseg.models.backbones.vit_adapter import ViTAdapter
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.noise import QueryNoise
from mvcseg.models.dvis.semantic import class_table, mask_logits, semantic_scores
from mvcseg.models.mask2former import Mask2FormerHead
from mvcseg.training.stage_objective import stage_objective
from mvcseg.training.stages import RefinerStage, SegmenterStage, TrackerStage, build_stage

ORDER = (3, 0, 5, 1, 4, 2)
SIZE = (40, 60)
STAGES = {"segmenter": SegmenterStage, "online": TrackerStage, "offline": RefinerStage}
STAGES |= {"first online": TrackerStage, "first offline": RefinerStage}
LAYERS = {"segmenter": 4, "online": 2, "offline": 2, "first online": 2, "first offline": 2}
TRAINED = {"segmenter": ("backbone.", "sem_seg_head."), "online": ("tracker.",), "offline": ("refiner.",)}
TRAINED |= {"first online": ("tracker.",), "first offline": ("refiner.",)}


def clips(count: int = 2, *, length: int = 3) -> Tensor:
    """``(B, T, 3, H, W)`` in ``[0, 1]``."""
    return torch.cat([as_input(video(length, seed=5 + number)) for number in range(count)])


def labels_of(frames: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    blocks = torch.randint(0, CLASSES, (*frames.shape[:2], 4, 6), generator=generator)
    return blocks.repeat_interleave(10, dim=2).repeat_interleave(10, dim=3)


def gradients(stage: nn.Module, clip: QueryClip) -> None:
    objective = stage_objective(stage, num_points=16)  # type: ignore[arg-type]
    objective.predict = lambda *_: clip
    frames = clips()
    objective(stage, frames, labels_of(frames)).backward()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_the_stage_follows_from_the_parts(kind: str) -> None:
    stage = build_stage(tiny_dvis(kind))
    assert type(stage) is STAGES[kind]
    assert stage.training


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_predicts_classes_and_masks_of_every_clip(kind: str) -> None:
    clip = build_stage(tiny_dvis(kind))(clips())
    assert len(clip.layers) == LAYERS[kind]
    times = 1 if "offline" in kind else 3
    for layer in clip.layers:
        assert layer.class_logits.shape == (2, times, QUERIES, CLASSES + 1)
        assert layer.masks.shape == (2, 3, QUERIES, 16, 16)
    assert (clip.guide is None) == (kind == "segmenter")
    if clip.guide is not None:
        assert clip.guide.class_logits.shape == (2, times, QUERIES, CLASSES + 1)
        assert clip.guide.masks.shape == (2, 3, QUERIES, 16, 16)
        assert not clip.guide.class_logits.requires_grad


def test_the_vectors_to_contrast_are_those_of_the_part_that_learns() -> None:
    widths = {"segmenter": WIDTH, "online": 2 * WIDTH, "offline": 2 * WIDTH, "first offline": WIDTH}
    for kind, width in widths.items():
        embeds = build_stage(tiny_dvis(kind))(clips()).embeds
        assert embeds is not None
        assert embeds.shape == (2, 3, QUERIES, width)
        assert embeds.requires_grad
    assert build_stage(tiny_dvis("segmenter"), is_contrasted=False)(clips()).embeds is None
    assert build_stage(tiny_dvis("first online"))(clips()).embeds is None


@pytest.mark.parametrize("learnt_before", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_stages_part_learns_and_all_of_it(kind: str, learnt_before: bool) -> None:
    model = tiny_dvis(kind)
    model.requires_grad_(learnt_before)
    stage = build_stage(model)
    gradients(stage, stage(clips()))
    for name, parameter in model.named_parameters():
        learns = name.startswith(TRAINED[kind])
        assert parameter.requires_grad == learns, name
        assert (parameter.grad is not None) == learns, name


def test_without_contrast_the_reid_head_stays() -> None:
    stage = build_stage(tiny_dvis("segmenter"), is_contrasted=False)
    gradients(stage, stage(clips()))
    for name, parameter in stage.named_parameters():
        assert (parameter.grad is None) == ("reid_embed" in name), name
        assert parameter.requires_grad == ("reid_embed" not in name), name


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_parts_stay_in_eval_mode(kind: str) -> None:
    model = tiny_dvis(kind)
    stage = build_stage(model)
    stage.eval()
    stage.train()
    for name, module in model.named_modules():
        trains = f"{name}.".startswith(TRAINED[kind])
        assert module.training == trains or not name, name


def adapted() -> DVIS:
    """A segmenter on a small ViT adapter, whose batch norms follow the data in training."""
    torch.manual_seed(0)
    backbone = ViTAdapter(VisionTransformer(32, depth=4, heads=2, grid=3), stem_width=8)
    sizes = {"width": 32, "encoder_layers": 1, "encoder_hidden": 32, "decoder_layers": 1, "decoder_hidden": 32}
    return DVIS(backbone, Mask2FormerHead(backbone.channels, num_classes=4, num_queries=5, has_reid=False, **sizes))


def test_the_transformer_of_an_adapter_is_frozen_in_the_segmenters_stage_and_its_norms_learn() -> None:
    model = adapted()
    stage = build_stage(model)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    stage(clips())
    for name, module in model.named_modules():
        assert module.training == ("vit_module" not in name), name
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("vit_module" not in name), name
    moved = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert {"backbone.norm1.running_mean", "backbone.spm.stem.1.running_var"} <= moved


def test_the_adapter_of_a_later_stage_keeps_its_norms() -> None:
    tiny = tiny_dvis("online")
    segmenter = adapted()
    head = Mask2FormerHead(
        segmenter.backbone.channels, num_classes=CLASSES, num_queries=QUERIES, has_reid=True, width=WIDTH
    )
    model = DVIS(segmenter.backbone, head, tracker=tiny.tracker)
    stage = build_stage(model)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    stage(clips())
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert [name for name, module in model.named_children() if module.training] == ["tracker"]


def scores_of(layer: LayerPrediction, *, online: LayerPrediction | None = None) -> Tensor:
    """Class scores ``(T, K, H, W)`` of the first clip, as inference pools them; with ``online`` as an offline model."""
    tables = [class_table(each.class_logits[0].mean(dim=0)) for each in (layer, *([online] if online else []))]
    table = torch.stack(tables).amax(dim=0)
    masks = layer.masks
    assert isinstance(masks, FactoredMasks)
    biases = [None] * masks.kernels.shape[1] if masks.bias is None else masks.bias[0]
    frames = zip(masks.kernels[0], masks.features[0], biases, strict=True)
    return torch.stack([semantic_scores(mask_logits(*frame), table, size=SIZE, output_size=SIZE) for frame in frames])


@pytest.mark.parametrize("order", [None, ORDER])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "segmenter"])
@torch.no_grad()
def test_the_last_layer_predicts_what_the_model_does(kind: str, order: Any) -> None:
    model = tiny_dvis(kind, class_order=order, dtype=torch.float64)
    frames = clips(1).double()
    clip = build_stage(model)(frames)
    scores = scores_of(clip.layers[-1], online=clip.guide if "offline" in kind else None)
    torch.testing.assert_close(scores, model.eval().scores(frames, output_size=SIZE)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("order", [None, ORDER])
@torch.no_grad()
def test_the_last_layer_of_a_segmenter_predicts_what_the_model_does(order: Any) -> None:
    model = tiny_dvis("segmenter", class_order=order, dtype=torch.float64)
    frames = clips(1, length=1).double()
    scores = scores_of(build_stage(model)(frames).layers[-1])
    torch.testing.assert_close(scores, model.eval().scores(frames, output_size=SIZE)[0], rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_the_guide_of_a_tracker_is_the_segmenters_answer_in_tracked_order() -> None:
    model, noise = tiny_dvis("online", class_order=ORDER), QueryNoise("rs", probability=1.0)
    frames = clips(1)
    guide = build_stage(model, noise=noise)(frames, noise_generators=seeded(0)).guide
    assert guide is not None
    draws = noise.draw(3, queries=QUERIES, width=2 * WIDTH, generator=seeded(0)[0])
    orders = [torch.arange(QUERIES), *(draw.order for draw in draws[1:] if draw is not None)]
    columns = torch.tensor([*ORDER, CLASSES]).argsort()
    queries = model.segment(frames[0])
    for t, order in enumerate(orders):
        torch.testing.assert_close(guide.class_logits[0, t], queries.class_logits[t][order][:, columns])
        masks = queries.masks()[t][order]
        torch.testing.assert_close(guide.masks.chosen(0, t, torch.arange(QUERIES)), masks, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_batch_gives_what_its_clips_give_alone() -> None:
    frames = clips(2)
    for kind in KINDS:
        stage = build_stage(tiny_dvis(kind, dtype=torch.float64))
        together = stage(frames.double())
        for number in range(2):
            alone = stage(frames[number : number + 1].double())
            for both, one in zip(together.layers, alone.layers, strict=True):
                torch.testing.assert_close(both.class_logits[number], one.class_logits[0], rtol=1e-9, atol=1e-9)


def noisy(generators: Any) -> Tensor:
    stage = build_stage(tiny_dvis("online"), noise=QueryNoise("wa", probability=1.0))
    with torch.no_grad():
        return stage(clips(), noise_generators=generators).layers[-1].class_logits  # type: ignore[no-any-return]


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_each_clips_noise_follows_from_its_own_generator() -> None:
    first, same, other = noisy(seeded(0, 1)), noisy(seeded(0, 1)), noisy(seeded(0, 2))
    assert torch.equal(first, same)
    assert torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(noisy(seeded(0))[0], first[0])


def test_noise_spares_the_first_frame_and_eval_mode() -> None:
    plain = build_stage(tiny_dvis("online"))
    spoilt = build_stage(tiny_dvis("online"), noise=QueryNoise("wa", probability=1.0))
    with torch.no_grad():
        clean = plain(clips()).layers[-1].class_logits
        noisy = spoilt(clips(), noise_generators=seeded(0, 1)).layers[-1].class_logits
        assert torch.equal(noisy[:, 0], clean[:, 0])
        assert not torch.equal(noisy[:, 1], clean[:, 1])
        assert torch.equal(spoilt.eval()(clips()).layers[-1].class_logits, clean)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_devices_generators_make_noise_on_the_host() -> None:
    stage = build_stage(tiny_dvis("online"), noise=QueryNoise("wa", probability=1.0)).cuda()
    generators = [torch.Generator("cuda").manual_seed(seed) for seed in (0, 1)]
    again = [torch.Generator("cuda").manual_seed(seed) for seed in (0, 1)]
    with torch.no_grad():
        first, same = (stage(clips().cuda(), noise_generators=own).layers[-1] for own in (generators, again))
    assert torch.equal(first.class_logits, same.class_logits)


@pytest.mark.parametrize(
    ("kind", "arguments", "told"),
    [
        ("segmenter", {"noise": QueryNoise()}, "noise: expected none, since only a tracker"),
        ("offline", {"noise": QueryNoise()}, "noise: expected none, since only a tracker"),
        ("first online", {"noise": QueryNoise()}, "noise: expected none for the tracker of first-version DVIS"),
        ("segmenter", {"masked_parts": ["pixels"]}, r"masked_parts: a segmenter is one part, expected None"),
        ("online", {"masked_parts": ["refiner"]}, "expected some of tracker, pixels for this stage.* got 'refiner'"),
        ("offline", {"masked_parts": ()}, "expected some of tracker, refiner, pixels .* got none"),
    ],
)
def test_what_does_not_belong_to_a_stage_is_refused(kind: str, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_stage(tiny_dvis(kind), **arguments)


@pytest.mark.parametrize("kind", ["segmenter", "online", "offline"])
def test_other_frames_than_clips_are_refused(kind: str) -> None:
    stage = build_stage(tiny_dvis(kind))
    with pytest.raises(ShapeError, match=r"frames: expected \(b t 3 h w\)"):
        stage(torch.rand(2, 3, 32, 32))
    with pytest.raises(ShapeError, match="with no empty axis"):
        stage(torch.rand(1, 0, 3, 32, 32))
    with pytest.raises(DTypeError, match="frames"):
        stage(torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8))


def test_generators_are_one_for_each_clip_or_one() -> None:
    with pytest.raises(ConfigError, match="noise_generators: expected one for each of 2 clips, or one, got 3"):
        noisy(seeded(0, 1, 2))


def test_a_stage_runs_under_bfloat16() -> None:
    for kind in KINDS:
        stage = build_stage(tiny_dvis(kind))
        objective = stage_objective(stage, num_points=16)
        frames = clips()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = objective(stage, frames, labels_of(frames))  # type: ignore[arg-type]
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(p.grad.isfinite().all() for p in stage.parameters() if p.grad is not None)


def test_frozen_parts_leave_no_graph() -> None:
    for kind in ("online", "offline"):
        clip = build_stage(tiny_dvis(kind))(clips())
        masks = clip.layers[-1].masks
        assert isinstance(masks, FactoredMasks)
        assert not masks.features.requires_grad
        assert masks.kernels.requires_grad
        assert clip.guide is not None
        assert not any(
            getattr(clip.guide.masks, field.name).requires_grad
            for field in dataclasses.fields(clip.guide.masks)  # type: ignore[arg-type]
            if getattr(clip.guide.masks, field.name) is not None
        )
