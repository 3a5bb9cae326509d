"""Which parts read masked frames, and that the clean pass's frozen outputs are what the others read."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from typing import Any

import pytest
import torch
from tiny_dvis import tiny_dvis
from torch import Tensor

from mvcseg.errors import ConfigError
from mvcseg.losses.queries import FactoredMasks, QueryClip
from mvcseg.masking import PatchMask
from mvcseg.models.dvis.model import DVIS
from mvcseg.mvc import MVCWrapper
from mvcseg.training.frozen_outputs import PassPair, RefinerInputs, TrackerInputs, read_segmenter, read_tracker
from mvcseg.training.stage_objective import stage_objective
from mvcseg.training.stages import build_stage

PARTS = {"online": ("tracker", "pixels"), "offline": ("tracker", "refiner", "pixels")}
CHOICES = [
    (kind, chosen)
    for kind, parts in PARTS.items()
    for size in range(1, len(parts))
    for chosen in combinations(parts, size)
]


def frames_pair() -> tuple[Tensor, Tensor]:
    """A clip and one that differs everywhere."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(1, 3, 3, 40, 60, generator=generator)
    return clean, 1 - clean


def seen(clip: QueryClip) -> dict[str, Tensor]:
    """What each part's input shows in the last prediction."""
    masks = clip.layers[-1].masks
    assert isinstance(masks, FactoredMasks)
    return {"classes": clip.layers[-1].class_logits, "kernels": masks.kernels, "features": masks.features}


def by_hand(model: DVIS, kind: str, clean: Tensor, masked: Tensor, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """The last prediction, each input taken from the clip that its part is to read."""
    reads = {part: masked if part in parts else clean for part in PARTS[kind]}
    assert model.tracker is not None
    if kind == "online":
        inputs = read_segmenter(model, reads["tracker"])
        tracked = model.tracker(inputs.embeds, inputs.embeds_unnormed)
        kernels = model.tracker.mask_kernels(tracked.embeds).weight
        features = read_segmenter(model, reads["pixels"]).mask_features
        return {"classes": tracked.class_logits, "kernels": kernels, "features": features}
    start, memory = read_tracker(model, reads["tracker"]), read_tracker(model, reads["refiner"])
    assert model.refiner is not None
    refined = model.refiner(start.embeds, memory.memory)
    features = read_segmenter(model, reads["pixels"]).mask_features
    return {"classes": refined.class_logits[:, None], "kernels": refined.mask_embeds, "features": features}


@pytest.mark.parametrize(("kind", "parts"), CHOICES)
@torch.no_grad()
def test_each_part_reads_the_clip_it_is_to_read(kind: str, parts: tuple[str, ...]) -> None:
    model = tiny_dvis(kind)
    clean, masked = frames_pair()
    stage = build_stage(model, masked_parts=parts)
    pair = PassPair()
    first, second = stage(clean, pair=pair), stage(masked, pair=pair)
    for name, tensor in seen(stage(clean)).items():
        assert torch.equal(seen(first)[name], tensor)
    for name, tensor in by_hand(model, kind, clean, masked, parts).items():
        torch.testing.assert_close(seen(second)[name], tensor, rtol=1e-5, atol=1e-5)
    unchanged = {name for name, tensor in seen(first).items() if torch.equal(seen(second)[name], tensor)}
    assert ("features" in unchanged) == ("pixels" not in parts)
    assert ("classes" in unchanged) == (parts == ("pixels",))


@pytest.mark.parametrize("kind", PARTS)
@torch.no_grad()
def test_by_default_everything_reads_the_masked_clip_and_nothing_is_kept(kind: str) -> None:
    clean, masked = frames_pair()
    for choice in (None, PARTS[kind]):
        stage = build_stage(tiny_dvis(kind), masked_parts=choice)
        pair = PassPair()
        stage(clean, pair=pair)
        for name, tensor in seen(stage(masked)).items():
            assert torch.equal(seen(stage(masked, pair=pair))[name], tensor)
        assert pair.clean is None


@pytest.mark.parametrize("kind", PARTS)
def test_mvc_takes_the_clean_pass_first_and_forgets_it_after_the_masked_one(kind: str) -> None:
    stage = build_stage(tiny_dvis(kind), masked_parts=["tracker"])
    features: list[Tensor] = []

    def watch(module: Any, arguments: Any, clip: QueryClip) -> None:
        features.append(seen(clip)["features"])

    stage.register_forward_hook(watch)
    clean, other = frames_pair()
    labels = torch.zeros(1, 3, 40, 60, dtype=torch.long)
    mvc = MVCWrapper(stage, mask=PatchMask(patch_size=8, ratio=0.5), objective=stage_objective(stage, num_points=8))
    for frames in (clean, other):
        for term in mvc.loss_terms(frames, labels, generator=[torch.Generator().manual_seed(0)]):
            term.backward()
    assert torch.equal(features[0], features[1])
    assert torch.equal(features[2], features[3])
    assert not torch.equal(features[0], features[2])


def test_passes_that_nothing_pairs_are_refused() -> None:
    stage = build_stage(tiny_dvis("online"), masked_parts=["tracker"])
    labels = torch.zeros(1, 3, 40, 60, dtype=torch.long)
    with pytest.raises(ConfigError, match=r"generator: missing; .* give loss_terms a generator"):
        stage_objective(stage, num_points=8)(stage, frames_pair()[0], labels)  # type: ignore[arg-type]


@torch.no_grad()
def test_what_is_read_frame_by_frame_is_what_a_batch_of_frames_gives() -> None:
    model = tiny_dvis("offline", dtype=torch.float64)
    frames = torch.rand(2, 3, 3, 40, 60, dtype=torch.float64)
    read, batch = read_segmenter(model, frames), model.segment(frames.flatten(0, 1))
    for field in dataclasses.fields(TrackerInputs):
        tensor = getattr(read, field.name)
        assert tensor.shape[:2] == (2, 3)
        torch.testing.assert_close(tensor.flatten(0, 1), getattr(batch, field.name), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_tracker_averages_its_logits_over_the_clip() -> None:
    model = tiny_dvis("offline")
    frames = torch.rand(1, 3, 3, 40, 60)
    read, segmented = read_tracker(model, frames), read_segmenter(model, frames)
    assert model.tracker is not None
    tracked = model.tracker(segmented.embeds, segmented.embeds_unnormed)
    torch.testing.assert_close(read.class_logits, tracked.class_logits.mean(dim=1, keepdim=True))
    torch.testing.assert_close(read.memory, segmented.embeds_unnormed)


def test_every_field_belongs_to_one_part() -> None:
    for kind in (TrackerInputs, RefinerInputs):
        owned = [name for fields in kind.PARTS.values() for name in fields]
        assert sorted(owned) == sorted(field.name for field in dataclasses.fields(kind))
