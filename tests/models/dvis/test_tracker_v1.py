from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_files import GoldenFolders, describe_state, fill_module, read_entries
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.models.dvis.tracker_v1 import FirstReferringTracker


@pytest.mark.golden
@pytest.mark.parametrize("preset", ["online", "offline"])
def test_names_and_shapes_are_the_checkpoints(preset: str, golden: GoldenFolders) -> None:
    entries = read_entries(golden / f"keys/dvis1_{preset}_swinl.json", prefix="tracker.")
    expected = {name: {key: entry[key] for key in ("shape", "dtype", "kind")} for name, entry in entries.items()}
    with torch.device("meta"):
        assert describe_state(FirstReferringTracker(124)) == expected


def small(*, layers: int = 2) -> FirstReferringTracker:
    tracker = FirstReferringTracker(5, width=16, hidden=24, heads=2, layers=layers, mask_width=6)
    fill_module(tracker, prefix="tracker.", seed=3)
    return tracker.eval()


def draw_clip(generator: torch.Generator, *, batch: int = 2, frames: int = 5) -> Tensor:
    """Queries that drift, in an order that changes from frame to frame."""
    base = torch.randn(batch, 1, 7, 16, generator=generator)
    drift = 0.3 * torch.randn(batch, frames, 7, 16, generator=generator)
    return torch.stack([frame[:, torch.randperm(7, generator=generator)] for frame in (base + drift).unbind(1)], dim=1)


class Loop:
    """The published algorithm for one video, sequence first, through torch's own attention."""

    def __init__(self, tracker: FirstReferringTracker) -> None:
        self.tracker = tracker
        self.outputs: Tensor | None = None
        self.embeds = torch.empty(0)

    def attend(self, layer: nn.Module, query: Tensor, key: Tensor) -> Tensor:
        attention = nn.MultiheadAttention(16, 2).double()
        attention.load_state_dict(layer.state_dict())
        return attention(query[:, None], key[:, None], key[:, None])[0][:, 0]

    def layer(self, j: int, residual: Tensor, query: Tensor, memory: Tensor) -> Tensor:
        cross, own, feed = (
            self.tracker.transformer_cross_attention_layers[j],
            self.tracker.transformer_self_attention_layers[j],
            self.tracker.transformer_ffn_layers[j],
        )
        x = cross.norm(residual + self.attend(cross.multihead_attn, query, memory))
        x = own.norm(x + self.attend(own.self_attn, x, x))
        return feed.norm(x + feed.linear2(feed.linear1(x).relu()))

    def frame(self, frame: Tensor) -> Tensor:
        x = frame
        if self.outputs is None:
            self.embeds = frame
            for j in range(2):
                x = self.layer(j, x, x, frame)
        else:
            cosine = np.array([[float(torch.cosine_similarity(new, old, 0)) for old in self.embeds] for new in frame])
            _, old_of_new = linear_sum_assignment(1 - cosine)
            self.embeds = frame[old_of_new]  # as published: that numbers old queries
            x = frame[old_of_new]
            for j in range(2):
                x = self.layer(j, x, self.outputs, frame)
        self.outputs = x
        return x


def test_tracker_follows_the_published_algorithm(generator: torch.Generator) -> None:
    tracker = small().double()
    clip = draw_clip(generator).double()
    tracked = tracker(clip, clip)
    for b in range(2):
        loop = Loop(tracker)
        for t in range(5):
            normed = tracker.decoder_norm(loop.frame(clip[b, t]))
            torch.testing.assert_close(tracked.embeds[b, t], normed)
            torch.testing.assert_close(tracked.class_logits[b, t], tracker.class_embed(normed))
        torch.testing.assert_close(tracked.state.outputs[b], loop.outputs)
        assert torch.equal(tracked.state.embeds[b], loop.embeds)
    assert any(order.tolist() != order.argsort().tolist() for order in tracked.order.flatten(0, 1))


def test_memory_is_every_frame_tracked_as_a_first_one(generator: torch.Generator) -> None:
    tracker, clip = small().double(), draw_clip(generator).double()
    memory = tracker.refiner_memory(clip, clip)
    for t in range(5):
        alone = tracker(clip[:, t : t + 1], clip[:, t : t + 1])
        torch.testing.assert_close(memory[:, t], alone.embeds[:, 0], rtol=0, atol=1e-12)


@torch.no_grad()
def test_any_split_with_the_state_handed_over_gives_the_bits_of_one_run(generator: torch.Generator) -> None:
    tracker, clip = small(layers=3), draw_clip(generator, frames=6)
    whole = tracker(clip, clip)
    for cuts in ([1, 2, 3, 4, 5], [2], [5], [3, 4]):
        parts, state = [], None
        for start, stop in zip([0, *cuts], [*cuts, 6], strict=True):
            part = clip[:, start:stop]
            parts.append(tracker(part, part, state=state))
            state = parts[-1].state
        for name in ("class_logits", "embeds", "references", "order"):
            joined = torch.cat([getattr(part, name) for part in parts], dim=1)
            assert torch.equal(joined, getattr(whole, name)), name
        memory = torch.cat([tracker.refiner_memory(part, part) for part in clip.split(2, dim=1)], dim=1)
        assert torch.equal(memory, tracker.refiner_memory(clip, clip))


def test_masks_come_from_the_normed_output(generator: torch.Generator) -> None:
    tracker, clip = small(), draw_clip(generator)
    tracked = tracker(clip, clip)
    kernels = tracker.mask_kernels(tracked.embeds)
    assert kernels.bias is None
    torch.testing.assert_close(
        kernels.weight[:, -1], tracker.mask_embed(tracker.decoder_norm(tracked.state.outputs)), rtol=0, atol=1e-5
    )


def test_every_layer_answers_and_gradients_reach_every_parameter(generator: torch.Generator) -> None:
    tracker, clip = small(layers=3).train(), draw_clip(generator).requires_grad_()
    layers = tracker.forward_layers(clip, clip)
    assert len(layers) == 3
    assert torch.equal(layers[-1].class_logits, tracker(clip, clip).class_logits)
    loss = sum((tracker.mask_kernels(t.embeds).weight.square().sum() for t in layers), torch.zeros(()))
    (loss + layers[-1].class_logits.square().sum()).backward()
    assert [name for name, parameter in tracker.named_parameters() if parameter.grad is None] == []
    assert clip.grad is not None


def test_queries_that_do_not_fit_are_refused(generator: torch.Generator) -> None:
    tracker, clip = small(), draw_clip(generator)
    with pytest.raises(ShapeError, match="embeds_unnormed"):
        tracker(clip, clip[:, 1:])
    with pytest.raises(ShapeError, match="at least one frame"):
        tracker(clip[:, :0], clip[:, :0])
    with pytest.raises(DTypeError, match="embeds"):
        tracker(clip.long(), clip)
