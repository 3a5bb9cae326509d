"""The whole model against the public implementation: every stored tensor, from frames to class map."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from golden_files import Golden, GoldenFolders, fill_module
from torch import Tensor
from torch.nn import functional

from mvcseg.models.dvis.build import build_empty
from mvcseg.models.dvis.config import PRESETS
from mvcseg.models.dvis.frame_masks import frame_masks, tracked_masks
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.names import to_official
from mvcseg.models.dvis.semantic import class_table, semantic_labels, semantic_scores
from mvcseg.models.dvis.tracker import Tracked, TrackerState
from mvcseg.models.mask2former import FrameQueries

pytestmark = pytest.mark.golden
PART, WHOLE = 5e-6, 1e-5
"""Limits in single precision: backbone and pixel decoder, everything after them."""
DOUBLE = 1e-9
QUICK = ("offline", "b", torch.float32)
MARGIN = 1e-3
"""Best minus second score below which single precision may choose another class."""


@pytest.fixture(scope="module")
def build() -> Iterator[Callable[[str, torch.dtype], DVIS]]:
    """The reference's offline and online model of one backbone, which share all they can; one pair at a time."""
    made: dict[tuple[str, torch.dtype], DVIS] = {}

    def build_once(model: str, dtype: torch.dtype) -> DVIS:
        kind, _, backbone = model.removeprefix("dvis_plus_").partition("_")
        if (backbone, dtype) not in made:
            made.clear()
            gc.collect()
            # scores of the reference are in the order of training
            config = dataclasses.replace(PRESETS[f"vspw_offline_{backbone}"], class_order=None)
            offline = build_empty(config).to(dtype)
            fill_module(offline, names=partial(to_official, backbone=offline.backbone))
            made[backbone, dtype] = offline
        whole = made[backbone, dtype]
        if kind == "offline":
            return whole
        return DVIS(whole.backbone, whole.sem_seg_head, tracker=whole.tracker).eval()

    yield build_once
    made.clear()


def inputs(stored: Golden, dtype: torch.dtype) -> Tensor:
    return stored.frames().to(dtype)[None] / 255


def joined(queries: list[FrameQueries]) -> FrameQueries:
    names = [field.name for field in dataclasses.fields(FrameQueries)]
    return FrameQueries(**{name: torch.cat([getattr(frame, name) for frame in queries]) for name in names})


def limits(dtype: torch.dtype) -> tuple[float, float]:
    return (PART, WHOLE) if dtype == torch.float32 else (DOUBLE, DOUBLE)


def watch_segmenter(model: DVIS, frames: Tensor) -> tuple[dict[str, Tensor], list[Tensor], list[FrameQueries]]:
    """Every stored stage of the segmenter, the pixels each layer sees, and the queries, frame by frame."""
    stages: dict[str, list[Tensor]] = {}
    visible: list[list[Tensor]] = []
    queries: list[FrameQueries] = []
    head = model.sem_seg_head
    for frame in torch.split(frames, 1):
        seen: list[Tensor] = []
        hooks = [
            layer.register_forward_pre_hook(
                lambda _, args, kwargs, seen=seen: seen.append(kwargs["visible"]), with_kwargs=True
            )
            for layer in head.predictor.transformer_cross_attention_layers
        ]
        kept: dict[str, object] = {}
        hooks += [
            part.register_forward_hook(lambda _, args, result, name=name, kept=kept: kept.update({name: result}))
            for name, part in (("backbone", model.backbone), ("pixels", head.pixel_decoder))
        ]
        queries.append(model.segment(frame))
        for hook in hooks:
            hook.remove()
        visible.append(seen)
        pixels = kept["pixels"]
        named = {"images": model.normalise(frame), "pixel_decoder.mask_features": pixels.mask_features}
        named |= {f"backbone.res{level}": x for level, x in enumerate(kept["backbone"], start=2)}
        named |= {f"pixel_decoder.ms{i}": x for i, x in enumerate(pixels.scales)}
        for i, prediction in enumerate(head.predictor.layer_predictions(pixels)):
            if i in (0, 1, 4):
                named |= {f"segmenter.layer{i}.logits": prediction.class_logits}
                named |= {f"segmenter.layer{i}.masks": prediction.masks()}
        for name, x in named.items():
            stages.setdefault(name, []).append(x)
    bits = [torch.cat(layer) for layer in zip(*visible, strict=True)]
    return {name: torch.cat(parts) for name, parts in stages.items()}, bits, queries


def check_segmenter(stored: Golden, model: DVIS, frames: Tensor) -> set[str]:
    """Compare what the file keeps of the segmenter; returns the names."""
    part, whole = limits(frames.dtype)
    stages, visible, frame_queries = watch_segmenter(model, frames)
    queries = joined(frame_queries)
    stages |= {
        "segmenter.pred_logits": queries.class_logits,
        "segmenter.pred_masks": queries.masks(),
        "segmenter.pred_embds": queries.embeds,
        "segmenter.pred_embds_without_norm": queries.embeds_unnormed,
        "segmenter.pred_reid_embed": queries.embeds[..., 256:],
    }
    checked = {name for name in stages if name in stored}
    for name in sorted(checked):
        stored.check(name, stages[name], rtol=whole if name.startswith("segmenter") else part)
    # no layer attends by the last prediction
    last = functional.interpolate(queries.masks(), size=stages["pixel_decoder.ms0"].shape[-2:], mode="bilinear")
    for i, seen in enumerate([*visible, last.flatten(2) >= 0]):
        if f"attn_mask_bits.{i}" in stored:
            expected = ~torch.from_numpy(stored.bits(f"attn_mask_bits.{i}"))
            opened = expected | ~expected.any(dim=-1, keepdim=True)
            assert torch.equal(seen, opened if i < len(visible) else expected)
            checked.add(f"attn_mask_bits.{i}")
    return checked


def check_tracked(stored: Golden, tracked: list[Tracked], masks: Tensor, whole: float) -> set[str]:
    """Compare a tracker's answers, one after the other in time; ``masks`` are ``(T, Q, h, w)``."""
    assert torch.equal(torch.cat([clip.order[0] for clip in tracked]), stored.tensor("tracker.match_indices"))
    stored.check("tracker.pred_references", torch.cat([clip.references[0] for clip in tracked]), rtol=whole)
    stored.check("tracker.pred_embds", torch.cat([clip.embeds[0] for clip in tracked]), rtol=whole)
    stored.check("tracker.pred_logits", torch.cat([clip.class_logits[0] for clip in tracked]), rtol=whole)
    stored.check("tracker.pred_masks", masks, rtol=whole)
    return {f"tracker.{name}" for name in ("match_indices", *(f"pred_{n}" for n in TRACKER_PARTS))}


TRACKER_PARTS = ("references", "embds", "logits", "masks")
REFINER_PARTS = ("embds", "logits", "masks")


def check_classes(stored: Golden, labels: Tensor, *, exactly: bool) -> set[str]:
    """Class maps ``(T, H, W)``: equal, but where the reference itself hardly decides."""
    differs = torch.from_numpy(stored.slice("final.argmax", labels) != stored.arrays["final.argmax"])
    decided = stored.tensor("final.margin_f16").float() > MARGIN
    assert decided.float().mean() > 0.9
    assert not (differs if exactly else differs & decided).any()
    return {"final.argmax", "final.margin_f16"}


def queries_masks(model: DVIS, queries: list[FrameQueries], embeds: Tensor) -> Tensor:
    """Tracker masks ``(T, Q, h, w)``, as the model makes them frame by frame."""
    masks = [
        tracked_masks(frame, model.tracker, embeds[:, t : t + 1]).permute(2, 0, 1) for t, frame in enumerate(queries)
    ]
    return torch.stack(masks)


def check_whole(stored: Golden, model: DVIS, dtype: torch.dtype, folder: Path) -> None:
    """Every tensor of a file, those of the later parts as ``frame_masks`` and ``scores`` give them."""
    frames = inputs(stored, dtype)
    size, output_size = stored.frames().shape[-2:], tuple(stored.meta["output_hw"])
    _, whole = limits(dtype)
    checked = check_segmenter(stored, model, frames[0])
    queries = [model.segment(frame) for frame in torch.split(frames[0], 1)]
    both = joined(queries)
    tracked = model.tracker(both.embeds[None], both.embeds_unnormed[None])
    if "tracker.pred_embds" in stored:
        checked |= check_tracked(stored, [tracked], queries_masks(model, queries, tracked.embeds), whole)
    parts = list(frame_masks(queries, tracker=model.tracker, refiner=model.refiner, spill_folder=folder))
    if model.refiner is not None:
        refined = model.refiner(tracked.embeds, both.embeds_unnormed[None])
        stored.check("refiner.pred_embds", refined.embeds[0], rtol=whole)
        stored.check("refiner.pred_logits", refined.class_logits.expand(len(queries), -1, -1), rtol=whole)
        stored.check("refiner.pred_masks", torch.stack([f.logits.permute(2, 0, 1) for f in parts]), rtol=whole)
        checked |= {f"refiner.pred_{name}" for name in REFINER_PARTS}
    stored.check("final.mask_cls", parts[0].table[None], rtol=whole)
    scores = model.scores(frames, output_size=output_size)[0]
    stored.check("final.scores", scores.transpose(0, 1), rtol=whole)
    labels = torch.cat(list(model.stream_labels(stored.frames(), clip_length=3, output_size=output_size)))
    assert torch.equal(labels, scores.argmax(dim=1).to(torch.uint8))
    checked |= check_classes(stored, labels, exactly=dtype == torch.float64)
    assert len(parts) == len(frames[0])
    if size == output_size:
        assert torch.equal(model(frames)[0].exp().argmax(dim=1).to(torch.uint8), labels)
    assert checked | {"final.mask_cls", "final.scores", "frames"} >= set(stored.arrays), "something was not compared"


def open_case(golden: GoldenFolders, name: str, dtype: torch.dtype) -> Golden:
    return Golden(golden / f"forward/{name}{'_f64' if dtype == torch.float64 else ''}.npz")


def cases() -> list[object]:
    """Every R50 file."""
    return [
        pytest.param(f"r50_{kind}_{case}", dtype, marks=() if (kind, case, dtype) == QUICK else pytest.mark.slow)
        for dtype in (torch.float32, torch.float64)
        for kind in ("offline", "online")
        for case in "bac"
    ]


@pytest.mark.parametrize(("name", "dtype"), cases(), ids=str)
@torch.no_grad()
def test_every_stage_of_the_whole_model_is_the_references(
    golden: GoldenFolders, build: Callable[[str, torch.dtype], DVIS], name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    stored = open_case(golden, name, dtype)
    check_whole(stored, build(stored.meta["model"], dtype), dtype, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@torch.no_grad()
def test_tracking_goes_on_from_a_state_as_the_references_second_call(
    golden: GoldenFolders, build: Callable[[str, torch.dtype], DVIS], dtype: torch.dtype
) -> None:
    stored = open_case(golden, "r50_online_c_keep", dtype)
    model = build(stored.meta["model"], dtype)
    size = (stored.meta["input_hw"][0], stored.meta["input_hw"][1])
    _, whole = limits(dtype)
    queries = [model.segment(frame) for frame in torch.split(inputs(stored, dtype)[0], 1)]
    state: TrackerState | None = None
    calls: list[Tracked] = []
    tables, scores, labels = list[Tensor](), list[Tensor](), list[Tensor]()
    for start, stop, keeps in stored.meta["calls"]:
        both = joined(queries[start:stop])
        calls.append(model.tracker(both.embeds[None], both.embeds_unnormed[None], state=state if keeps else None))
        state = calls[-1].state
        tables.append(class_table(calls[-1].class_logits[0].mean(dim=0)))
        for t, frame in enumerate(queries[start:stop]):
            masks = tracked_masks(frame, model.tracker, calls[-1].embeds[:, t : t + 1])
            scores.append(semantic_scores(masks, tables[-1], size=size, output_size=size))
            labels.append(semantic_labels(masks, tables[-1], size=size, output_size=size)[0])
    embeds = torch.cat([call.embeds for call in calls], dim=1)
    checked = check_tracked(stored, calls, queries_masks(model, queries, embeds), whole)
    stored.check("final.mask_cls", torch.stack(tables), rtol=whole)
    stored.check("final.scores", torch.stack(scores, dim=1), rtol=whole)
    checked |= check_classes(stored, torch.stack(labels), exactly=dtype == torch.float64)
    assert checked | {"final.mask_cls", "final.scores"} >= set(stored.arrays)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["online", "offline"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@torch.no_grad()
def test_the_large_model_is_the_references(
    golden: GoldenFolders, build: Callable[[str, torch.dtype], DVIS], dtype: torch.dtype, kind: str, tmp_path: Path
) -> None:
    stored = open_case(golden, f"vitl_{kind}", dtype)
    stored.arrays = {name: x for name, x in stored.arrays.items() if not name.startswith("adapter.")}
    check_whole(stored, build(stored.meta["model"], dtype), dtype, tmp_path)
