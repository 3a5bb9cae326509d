from __future__ import annotations

import dataclasses

import pytest
import torch
from golden_files import Golden, GoldenFolders, describe_state, fill_module, read_entries
from torch import Tensor

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.models.dvis import tracker as tracker_module
from mvcseg.models.dvis.noise import QueryNoise
from mvcseg.models.dvis.tracker import ReferringTracker, Tracked
from mvcseg.ops.matching import match_frames, take_order

LIMIT = 5e-6
"""Root mean square difference over standard deviation, of a single operation in float32."""


@pytest.fixture
def stored(golden: GoldenFolders) -> Golden:
    return Golden(golden / "ops/tracker.npz")


@pytest.fixture
def tracker(stored: Golden) -> ReferringTracker:
    meta = stored.meta
    tracker = ReferringTracker(
        meta["num_classes"],
        width=meta["hidden"],
        hidden=meta["ffn"],
        heads=meta["heads"],
        layers=meta["layers"],
        mask_width=meta["mask_dim"],
    )
    fill_module(tracker, prefix="tracker.")
    return tracker.eval()


def clip_of(stored: Golden) -> tuple[Tensor, Tensor]:
    return tuple(stored.tensor(name).permute(0, 2, 3, 1) for name in ("frame_embeds", "frame_embeds_no_norm"))  # type: ignore[return-value]


def check(stored: Golden, run: str, tracker: ReferringTracker, tracked: Tracked, features: Tensor) -> None:
    stored.check(f"{run}.pred_logits", tracked.class_logits, rtol=LIMIT)
    stored.check(f"{run}.pred_masks", masks_of(tracker, tracked, features), rtol=LIMIT)
    if f"{run}.pred_embds" in stored:
        stored.check(f"{run}.pred_embds", tracked.embeds.permute(0, 3, 1, 2), rtol=LIMIT)
        stored.check(f"{run}.pred_references", tracked.references.permute(0, 3, 1, 2), rtol=LIMIT)


def masks_of(tracker: ReferringTracker, tracked: Tracked, features: Tensor) -> Tensor:
    kernels = tracker.mask_kernels(tracked.embeds)
    assert kernels.bias is not None
    masks = torch.einsum("btqc,btchw->bqthw", kernels.weight, features)
    return masks + kernels.bias.transpose(1, 2)[..., None, None]


@pytest.mark.golden
def test_a_clip_is_tracked_as_by_the_reference(stored: Golden, tracker: ReferringTracker) -> None:
    embeds, unnormed = clip_of(stored)
    features = stored.tensor("mask_features")
    tracked = tracker(embeds, unnormed)
    assert tracked.order[0].tolist() == stored.arrays["match_indices"].tolist()
    check(stored, "full", tracker, tracked, features)
    check(stored, "nonorm", tracker, tracker(embeds, embeds), features)


@pytest.mark.golden
def test_a_clip_is_resumed_as_by_the_reference(stored: Golden, tracker: ReferringTracker) -> None:
    embeds, unnormed = clip_of(stored)
    features = stored.tensor("mask_features")
    first = tracker(embeds[:, :2], unnormed[:, :2])
    check(stored, "part1", tracker, first, features[:, :2])
    check(stored, "part2", tracker, tracker(embeds[:, 2:], unnormed[:, 2:], state=first.state), features[:, 2:])


@pytest.mark.golden
def test_training_gives_every_layer_of_the_reference(stored: Golden, tracker: ReferringTracker) -> None:
    embeds, unnormed = clip_of(stored)
    layers = tracker.train().forward_layers(embeds, unnormed)
    for run, tracked in zip(("train.aux0", "train.aux1", "train"), layers, strict=True):
        check(stored, run, tracker, tracked, stored.tensor("mask_features"))


@pytest.mark.golden
@pytest.mark.parametrize("preset", ["online_r50", "offline_r50", "online_vitl"])
def test_names_and_shapes_are_the_checkpoints(preset: str, golden: GoldenFolders) -> None:
    entries = read_entries(golden / f"keys/dvis_plus_{preset}.json", prefix="tracker.")
    expected = {name: {key: entry[key] for key in ("shape", "dtype", "kind")} for name, entry in entries.items()}
    with torch.device("meta"):
        assert describe_state(ReferringTracker(124)) == expected


def small(*, seed: int = 3, layers: int = 2) -> ReferringTracker:
    tracker = ReferringTracker(5, width=16, hidden=24, heads=2, layers=layers, mask_width=6)
    fill_module(tracker, prefix="tracker.", seed=seed)
    return tracker.eval()


def draw_clip(generator: torch.Generator, *, batch: int = 2, frames: int = 5) -> tuple[Tensor, Tensor]:
    """Queries that drift, in an order that changes from frame to frame."""
    base = torch.randn(batch, 1, 7, 16, generator=generator) + 0.05 * torch.randn(
        batch, frames, 7, 16, generator=generator
    )
    clip = torch.stack([frame[:, torch.randperm(7, generator=generator)] for frame in base.unbind(1)], dim=1)
    return clip, 1.3 * clip + 0.1 * torch.randn(clip.shape, generator=generator)


def test_tracker_follows_its_definition_written_as_a_loop(generator: torch.Generator) -> None:
    tracker = small().double()
    embeds, unnormed = (clip[0].double() for clip in draw_clip(generator, batch=1))

    def attend(layer: torch.nn.Module, query: Tensor, memory: Tensor) -> Tensor:
        attention = torch.nn.MultiheadAttention(16, 2).double()
        attention.load_state_dict(layer.state_dict())
        return attention(query, memory, memory)[0]

    previous_output, previous_embeds = None, embeds[0]
    for t in range(len(embeds)):
        nearest = torch.cdist(previous_embeds, embeds[t]).argmin(1)  # the drift is small: the nearest is the same
        previous_embeds = embeds[t][nearest]
        x = unnormed[t][nearest]
        reference = tracker.ref_proj(unnormed[t] if previous_output is None else previous_output)
        for j in range(2):
            query = tracker.ref_proj(x) if previous_output is None and j else reference
            cross, own, feed = (
                tracker.transformer_cross_attention_layers[j],
                tracker.transformer_self_attention_layers[j],
                tracker.transformer_ffn_layers[j],
            )
            x = cross.norm(x + attend(cross.multihead_attn, query, unnormed[t]))
            x = own.norm(x + attend(own.self_attn, x, x))
            x = feed.norm(x + feed.linear2(feed.linear1(x).relu()))
        previous_output = x
        tracked = tracker(embeds[None, : t + 1], unnormed[None, : t + 1])
        torch.testing.assert_close(tracked.embeds[0, t], x)
        torch.testing.assert_close(tracked.references[0, t], reference)
        torch.testing.assert_close(
            tracked.class_logits[0, t], tracker.class_embed(torch.cat([reference, tracker.decoder_norm(x)], 1))
        )
        assert torch.equal(tracked.order[0, t], nearest)


def test_a_first_frame_with_ties_is_reordered_but_looked_up_as_it_is(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = torch.tensor([1, 0, 2, 3, 4, 5, 6])  # which only rounding can bring about, between equal queries
    monkeypatch.setattr(tracker_module, "match_frames", lambda *_, **__: swapped.expand(1, 1, 7))
    tracker, (embeds, unnormed) = small(layers=1).double(), (clip.double() for clip in draw_clip(generator, batch=1))
    tracked = tracker(embeds[:, :1], unnormed[:, :1])
    memory = unnormed[:, 0]
    torch.testing.assert_close(tracked.references[:, 0], tracker.ref_proj(memory))
    x = tracker.transformer_cross_attention_layers[0](memory[:, swapped], tracker.ref_proj(memory), memory, memory)
    x = tracker.transformer_ffn_layers[0](tracker.transformer_self_attention_layers[0](x))
    torch.testing.assert_close(tracked.embeds[:, 0], x)
    assert torch.equal(tracked.state.embeds, embeds[:, 0, swapped])


@torch.no_grad()
def test_any_split_with_the_state_handed_over_gives_the_bits_of_one_run(generator: torch.Generator) -> None:
    tracker = small(layers=3)
    embeds, unnormed = draw_clip(generator, frames=6)
    whole = tracker(embeds, unnormed)
    for cuts in ([1, 2, 3, 4, 5], [2], [5], [3, 4]):
        parts, state = [], None
        for start, stop in zip([0, *cuts], [*cuts, 6], strict=True):
            parts.append(tracker(embeds[:, start:stop], unnormed[:, start:stop], state=state))
            state = parts[-1].state
        for name in ("class_logits", "embeds", "references", "order"):
            joined = torch.cat([getattr(part, name) for part in parts], dim=1)
            assert torch.equal(joined, getattr(whole, name)), name
        assert torch.equal(state.outputs, whole.state.outputs)
        assert torch.equal(state.embeds, whole.state.embeds)


def test_videos_of_a_batch_do_not_see_each_other(generator: torch.Generator) -> None:
    tracker = small().double()
    embeds, unnormed = (clip.double() for clip in draw_clip(generator, batch=3))
    both = tracker(embeds, unnormed)
    for b in range(3):
        alone = tracker(embeds[b : b + 1], unnormed[b : b + 1])
        torch.testing.assert_close(alone.class_logits[0], both.class_logits[b], rtol=0, atol=1e-12)
        assert torch.equal(alone.order[0], both.order[b])


def test_the_segmenters_order_of_later_frames_does_not_matter(generator: torch.Generator) -> None:
    tracker = small().double()
    embeds, unnormed = (clip.double() for clip in draw_clip(generator))
    shuffled = torch.randperm(7, generator=generator)
    moved_embeds, moved_unnormed = embeds.clone(), unnormed.clone()
    moved_embeds[:, 2:], moved_unnormed[:, 2:] = embeds[:, 2:, shuffled], unnormed[:, 2:, shuffled]
    torch.testing.assert_close(
        tracker(moved_embeds, moved_unnormed).class_logits, tracker(embeds, unnormed).class_logits
    )


def test_the_last_of_all_layers_is_the_answer(generator: torch.Generator) -> None:
    tracker = small(layers=3).train()
    clip = draw_clip(generator)
    layers, last = tracker.forward_layers(*clip), tracker(*clip)
    assert len(layers) == 3
    for name in ("class_logits", "embeds", "references", "order"):
        assert torch.equal(getattr(layers[-1], name), getattr(last, name))
    assert not torch.equal(layers[0].embeds, last.embeds)


def test_folded_kernels_give_the_masks_of_projected_features(generator: torch.Generator) -> None:
    tracker = small().double()
    embeds = torch.randn(2, 7, 16, generator=generator, dtype=torch.float64)
    features = torch.randn(2, 6, 4, 5, generator=generator, dtype=torch.float64)
    expected = torch.einsum(
        "bqc,bchw->bqhw", tracker.mask_embed(tracker.decoder_norm(embeds)), tracker.mask_feature_proj(features)
    )
    kernels = tracker.mask_kernels(embeds)
    assert kernels.bias is not None
    masks = torch.einsum("bqc,bchw->bqhw", kernels.weight, features) + kernels.bias[..., None, None]
    torch.testing.assert_close(masks, expected)


def test_gradients_reach_every_parameter_and_both_inputs(generator: torch.Generator) -> None:
    tracker = small().train()
    embeds, unnormed = draw_clip(generator)
    unnormed.requires_grad_()
    tracked = tracker(embeds, unnormed)
    kernels = tracker.mask_kernels(tracked.embeds)
    assert kernels.bias is not None
    (tracked.class_logits.square().sum() + kernels.weight.square().sum() + kernels.bias.square().sum()).backward()
    assert [name for name, parameter in tracker.named_parameters() if parameter.grad is None] == []
    assert unnormed.grad is not None
    assert (unnormed.grad.abs().sum(dim=(2, 3)) > 0).all()  # through every frame


def test_noise_spoils_later_frames_in_training_only(generator: torch.Generator) -> None:
    tracker, clip = small().train(), draw_clip(generator)
    always = QueryNoise("rs", probability=1.0)

    def run(noise: QueryNoise | None, seed: int = 0) -> Tracked:
        return tracker.forward_layers(*clip, noise=noise, generator=torch.Generator().manual_seed(seed))[-1]

    clean, spoilt = run(None), run(always)
    assert torch.equal(spoilt.class_logits[:, 0], clean.class_logits[:, 0])
    assert (spoilt.class_logits[:, 1:] != clean.class_logits[:, 1:]).flatten(2).any(2).all()
    assert torch.equal(run(always).embeds, spoilt.embeds)
    assert not torch.equal(run(always, seed=1).embeds, spoilt.embeds)
    later = tracker.forward_layers(*clip, state=clean.state, noise=always, generator=generator)[-1]
    assert not torch.equal(later.order[:, 0], tracker(*clip, state=clean.state).order[:, 0])
    tracker.eval()
    assert torch.equal(run(always).class_logits, clean.class_logits)


def test_the_frame_after_noise_is_matched_with_what_noise_reports(generator: torch.Generator) -> None:
    tracker, (embeds, unnormed) = small().train(), draw_clip(generator, batch=1, frames=3)
    source = torch.Generator().manual_seed(20)  # spoils the second frame, not the third
    tracked = tracker.forward_layers(embeds, unnormed, noise=QueryNoise("wa"), generator=source)[-1]
    reported = tracked.order[0, 1]
    assert len(set(reported.tolist())) < 6  # some queries are reported twice
    followed = match_frames(embeds[:, 2:], previous=embeds[:, 1, reported])
    assert torch.equal(tracked.order[:, 2:], followed)
    assert torch.equal(tracked.state.embeds, take_order(embeds[:, 2], followed[:, 0]))


def test_queries_that_do_not_fit_are_refused(generator: torch.Generator) -> None:
    tracker = small()
    embeds, unnormed = draw_clip(generator)
    with pytest.raises(ShapeError, match="embeds_unnormed"):
        tracker(embeds, unnormed[:, 1:])
    with pytest.raises(ShapeError, match="at least one frame"):
        tracker(embeds[:, :0], unnormed[:, :0])
    state = tracker(embeds, unnormed).state
    with pytest.raises(ShapeError, match=r"state\.outputs"):
        tracker(embeds, unnormed, state=dataclasses.replace(state, outputs=state.outputs[:1]))
    with pytest.raises(DTypeError, match="embeds"):
        tracker(embeds.long(), unnormed)
