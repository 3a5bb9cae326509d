from __future__ import annotations

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from tiny_transformers import tiny_net
from torch import Tensor

from mvcseg.adapters import anneal_attention_masks, from_transformers, predict_queries
from mvcseg.adapters.eomt import embed
from mvcseg.errors import ConfigError, DTypeError

EOMTS = ["eomt", "eomt_dinov3"]


def clip(*sizes: int, seed: int = 0) -> Tensor:
    return torch.rand(*sizes, generator=torch.Generator().manual_seed(seed))


def masked_net(kind: str, probabilities: list[float]) -> torch.nn.Module:
    net = tiny_net(kind)
    net.attn_mask_probs.copy_(torch.tensor(probabilities))
    return net


def test_learned_positions_are_resized_as_timm_does() -> None:
    net, images = tiny_net("eomt"), clip(2, 3, 40, 24)
    at_zero = embed(net, torch.zeros(1, 3, 40, 24))[0, 3:] - net.embeddings.patch_embeddings.projection.bias
    table = net.embeddings.position_embeddings.weight.unsqueeze(0)
    expected = resample_abs_pos_embed(table, new_size=[5, 3], old_size=[4, 4], num_prefix_tokens=0)
    assert torch.allclose(at_zero, expected[0], atol=1e-5)
    assert embed(net, images).shape == (2, 3 + 15, 32)


@pytest.mark.parametrize("kind", EOMTS)
@torch.no_grad()
def test_tokens_are_those_of_the_net_at_its_own_size(kind: str) -> None:
    net, images = tiny_net(kind), clip(2, 3, 32, 32)
    assert torch.equal(embed(net, images), net.embeddings(images))


@pytest.mark.parametrize("kind", EOMTS)
@pytest.mark.parametrize("probabilities", [[1, 1], [0, 1], [0, 0]])
@torch.no_grad()
def test_attention_masks_are_those_of_the_net(kind: str, probabilities: list[float]) -> None:
    net, frames = masked_net(kind, probabilities), clip(1, 2, 3, 32, 32)
    segmenter = from_transformers(net)
    output = net(pixel_values=segmenter.normalise(frames)[0])
    last = segmenter.predict_queries(frames).layers[-1]
    assert torch.allclose(last.class_logits[0], output.class_queries_logits, atol=1e-5)
    assert torch.allclose(last.masks.logits[0], output.masks_queries_logits, atol=1e-4)


@pytest.mark.parametrize("kind", EOMTS)
@torch.no_grad()
def test_masks_change_what_queries_see(kind: str) -> None:
    frames = clip(1, 2, 3, 32, 32)
    masked, free = (from_transformers(masked_net(kind, each))(frames) for each in ([1.0, 1.0], [0.0, 0.0]))
    assert not torch.allclose(masked, free, atol=1e-3)


@pytest.mark.parametrize("kind", EOMTS)
def test_layers_are_what_the_net_predicts_ahead_of_each_block(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, frames = tiny_net(kind).train(), clip(1, 2, 3, 32, 32)
    net.config.pos_embed_rescale = None  # a random stretch of rotary positions in train mode
    seen: list[tuple[Tensor, Tensor]] = []
    predict = net.predict
    monkeypatch.setattr(net, "predict", lambda tokens: seen.append(predict(tokens)) or seen[-1])
    segmenter = from_transformers(net)
    with torch.no_grad():
        net(pixel_values=segmenter.normalise(frames)[0])
        layers = segmenter.predict_queries(frames).layers
    assert len(layers) == len(seen) == 3
    for layer, (masks, classes) in zip(layers, seen, strict=True):
        assert torch.allclose(layer.masks.logits[0], masks, atol=1e-4)
        assert torch.allclose(layer.class_logits[0], classes, atol=1e-5)


@torch.no_grad()
def test_a_share_of_masks_is_the_same_at_every_call_in_eval_mode() -> None:
    segmenter, frames = from_transformers(masked_net("eomt", [0.5, 0.5])), clip(1, 2, 3, 32, 40)
    first = segmenter(frames)
    assert torch.equal(segmenter(frames), first)
    ends = [from_transformers(masked_net("eomt", [each, each]))(frames) for each in (0.0, 1.0)]
    assert all(not torch.allclose(first, end, atol=1e-4) for end in ends)


def test_draws_of_a_clip_come_from_its_own_generator() -> None:
    segmenter, frames = from_transformers(masked_net("eomt", [0.5, 0.5])).train(), clip(2, 3, 3, 32, 40)

    def masks(clips: Tensor, *seeds: int) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return predict_queries(segmenter, clips, generators).layers[-1].masks.logits

    together = masks(frames, 1, 2)
    assert torch.allclose(masks(frames[1:], 2)[0], together[1], atol=1e-5)
    assert not torch.allclose(masks(frames[1:], 3)[0], together[1], atol=1e-4)


def test_without_generators_torch_draws() -> None:
    segmenter, frames = from_transformers(masked_net("eomt", [0.5, 0.5])).train(), clip(1, 2, 3, 32, 40)
    answers = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        answers.append(segmenter(frames))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_masks_fade_block_after_block() -> None:
    segmenter = from_transformers(tiny_net("eomt"))  # of two blocks: thirds of the run
    seen = {}
    for sixth in range(7):
        anneal_attention_masks(segmenter, progress=sixth / 6)
        seen[sixth] = segmenter.net.attn_mask_probs.tolist()
    half = 0.5**0.9
    expected = [[1, 1], [1, 1], [1, 1], [half, 1], [0, 1], [0, half], [0, 0]]
    assert [seen[sixth] for sixth in range(7)] == [pytest.approx(pair, abs=1e-6) for pair in expected]


def test_masks_fade_in_a_run_and_in_an_eomt_only() -> None:
    with pytest.raises(ConfigError, match="progress"):
        anneal_attention_masks(from_transformers(tiny_net("eomt")), progress=1.5)
    for kind in ("videomt", "mask2former"):
        with pytest.raises(DTypeError, match="expected an EoMT, got"):
            anneal_attention_masks(from_transformers(tiny_net(kind)), progress=0.5)
    with pytest.raises(DTypeError, match="expected a model with queries"):
        anneal_attention_masks(torch.nn.Identity(), progress=0.5)
