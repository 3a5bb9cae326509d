from __future__ import annotations

import pytest
import torch
from golden_files import Golden, GoldenFolders, describe_state, fill_module, read_entries
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.models.dvis.refiner import Refined, TemporalRefiner

LIMIT = 5e-6
"""Root mean square difference over standard deviation, of a single operation in float32."""


@pytest.fixture
def stored(golden: GoldenFolders) -> Golden:
    return Golden(golden / "ops/refiner.npz")


@pytest.fixture
def refiner(stored: Golden) -> TemporalRefiner:
    meta = stored.meta
    refiner = TemporalRefiner(
        meta["num_classes"],
        width=meta["hidden"],
        hidden=meta["ffn"],
        heads=meta["heads"],
        layers=meta["layers"],
        mask_width=meta["mask_dim"],
    )
    fill_module(refiner, prefix="refiner.")
    return refiner.eval()


def inputs_of(stored: Golden, frames: int = 6) -> tuple[Tensor, Tensor]:
    embeds, memory = (
        stored.tensor(name).permute(0, 2, 3, 1)[:, :frames] for name in ("instance_embeds", "frame_embeds")
    )
    return embeds, memory


def check(stored: Golden, run: str, refined: Refined) -> None:
    count = refined.embeds.shape[1]
    features = stored.tensor("mask_features")[:, :count]
    stored.check(f"{run}.pred_logits", refined.class_logits.unsqueeze(1).expand(-1, count, -1, -1), rtol=LIMIT)
    stored.check(f"{run}.pred_masks", torch.einsum("btqc,btchw->bqthw", refined.mask_embeds, features), rtol=LIMIT)
    if f"{run}.pred_embds" in stored:
        stored.check(f"{run}.pred_embds", refined.embeds.permute(0, 3, 1, 2), rtol=LIMIT)


@pytest.mark.golden
@pytest.mark.parametrize(("run", "frames"), [("eval", 6), ("eval_t1", 1), ("eval_t2", 2)])
def test_videos_are_refined_as_by_the_reference(
    run: str, frames: int, stored: Golden, refiner: TemporalRefiner
) -> None:
    check(stored, run, refiner(*inputs_of(stored, frames)))


@pytest.mark.golden
def test_training_gives_every_layer_of_the_reference(stored: Golden, refiner: TemporalRefiner) -> None:
    layers = refiner.train().forward_layers(*inputs_of(stored))
    for run, refined in zip(("train.aux0", "train.aux1", "train"), layers, strict=True):
        check(stored, run, refined)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("preset", "width"), [("dvis_plus_offline_r50", 512), ("dvis_plus_offline_vitl", 512), ("dvis1_offline_swinl", 256)]
)
def test_names_and_shapes_are_the_checkpoints(preset: str, width: int, golden: GoldenFolders) -> None:
    entries = read_entries(golden / f"keys/{preset}.json", prefix="refiner.")
    expected = {name: {key: entry[key] for key in ("shape", "dtype", "kind")} for name, entry in entries.items()}
    with torch.device("meta"):
        assert describe_state(TemporalRefiner(124, width=width)) == expected


def small(*, layers: int = 2) -> TemporalRefiner:
    refiner = TemporalRefiner(5, width=16, hidden=24, heads=2, layers=layers, mask_width=6)
    fill_module(refiner, prefix="refiner.", seed=3)
    return refiner.eval()


def draw(generator: torch.Generator, *, batch: int = 2, frames: int = 7) -> tuple[Tensor, Tensor]:
    embeds, memory = torch.randn(2, batch, frames, 5, 16, generator=generator)
    return embeds, memory


def test_refiner_follows_its_definition_written_as_loops(generator: torch.Generator) -> None:
    refiner = small().double()
    embeds, memory = (x[0].double() for x in draw(generator))
    count, queries, _ = embeds.shape

    def attend(layer: nn.Module, query: Tensor, key: Tensor) -> Tensor:
        attention = nn.MultiheadAttention(16, 2).double()
        attention.load_state_dict(layer.state_dict())
        return attention(query, key, key)[0]

    def convolve(layer: nn.Module, x: Tensor) -> Tensor:
        reach = layer.weight.shape[2] // 2
        rows = []
        for t in range(count):
            near = [x[min(max(t + k, 0), count - 1)] for k in range(-reach, reach + 1)]
            rows.append(sum((layer.weight[:, :, k] @ near[k] for k in range(len(near))), layer.bias))
        return torch.stack(rows)

    x = embeds.clone()
    for j in range(2):
        for q in range(queries):
            time, convolution = (
                refiner.transformer_time_self_attention_layers[j],
                refiner.conv_short_aggregate_layers[j],
            )
            row = time.norm(x[:, q] + attend(time.self_attn, x[:, q], x[:, q]))
            near = convolve(convolution[2], convolve(convolution[0], row).relu())
            x[:, q] = refiner.conv_norms[j](row + near)
        for t in range(count):
            own, cross, feed = (
                refiner.transformer_obj_self_attention_layers[j],
                refiner.transformer_cross_attention_layers[j],
                refiner.transformer_ffn_layers[j],
            )
            frame = own.norm(x[t] + attend(own.self_attn, x[t], x[t]))
            frame = cross.norm(frame + attend(cross.multihead_attn, frame, memory[t]))
            x[t] = feed.norm(frame + feed.linear2(feed.linear1(frame).relu()))
    normed = refiner.decoder_norm(x)
    refined = refiner(embeds[None], memory[None])
    torch.testing.assert_close(refined.embeds[0], normed)
    torch.testing.assert_close(refined.mask_embeds[0], refiner.mask_embed(normed))
    for q in range(queries):
        weights = functional.softmax(refiner.activation_proj(normed[:, q])[:, 0], dim=0)
        torch.testing.assert_close(refined.class_logits[0, q], refiner.class_embed(weights @ normed[:, q]))


def test_videos_of_a_batch_do_not_see_each_other(generator: torch.Generator) -> None:
    refiner = small().double()
    embeds, memory = (x.double() for x in draw(generator, batch=3))
    both = refiner(embeds, memory)
    for b in range(3):
        alone = refiner(embeds[b : b + 1], memory[b : b + 1])
        torch.testing.assert_close(alone.class_logits[0], both.class_logits[b], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.mask_embeds[0], both.mask_embeds[b], rtol=0, atol=1e-12)


def test_order_of_memory_does_not_matter_and_order_of_queries_is_kept(generator: torch.Generator) -> None:
    refiner = small().double()
    embeds, memory = (x.double() for x in draw(generator))
    plain = refiner(embeds, memory)
    shuffled = torch.randperm(5, generator=generator)
    torch.testing.assert_close(refiner(embeds, memory[:, :, shuffled]).mask_embeds, plain.mask_embeds)
    torch.testing.assert_close(refiner(embeds[:, :, shuffled], memory).class_logits, plain.class_logits[:, shuffled])


def test_a_video_backwards_gives_the_same_with_kernels_backwards(generator: torch.Generator) -> None:
    refiner = small().double()
    embeds, memory = (x.double() for x in draw(generator))
    plain = refiner(embeds, memory)
    with torch.no_grad():
        for convolutions in refiner.conv_short_aggregate_layers:
            for layer in (convolutions[0], convolutions[2]):
                layer.weight.copy_(layer.weight.flip(2))
    backwards = refiner(embeds.flip(1), memory.flip(1))
    torch.testing.assert_close(backwards.class_logits, plain.class_logits)
    torch.testing.assert_close(backwards.mask_embeds.flip(1), plain.mask_embeds)


def test_the_last_of_all_layers_is_the_answer(generator: torch.Generator) -> None:
    refiner, inputs = small(layers=3).train(), draw(generator)
    layers, last = refiner.forward_layers(*inputs), refiner(*inputs)
    assert len(layers) == 3
    assert torch.equal(layers[-1].class_logits, last.class_logits)
    assert torch.equal(layers[-1].mask_embeds, last.mask_embeds)
    assert not torch.equal(layers[0].class_logits, last.class_logits)


def test_gradients_reach_every_parameter_and_both_inputs(generator: torch.Generator) -> None:
    refiner = small().train()
    embeds, memory = (x.requires_grad_() for x in draw(generator))
    refined = refiner(embeds, memory)
    (refined.class_logits.square().sum() + refined.mask_embeds.square().sum()).backward()
    assert [name for name, parameter in refiner.named_parameters() if parameter.grad is None] == []
    assert embeds.grad is not None
    assert memory.grad is not None


def test_queries_that_do_not_fit_are_refused(generator: torch.Generator) -> None:
    refiner = small()
    embeds, memory = draw(generator)
    with pytest.raises(ShapeError, match="memory"):
        refiner(embeds, memory[:, 1:])
    with pytest.raises(ShapeError, match="at least one frame"):
        refiner(embeds[:, :0], memory[:, :0])
    with pytest.raises(DTypeError, match="memory"):
        refiner(embeds, memory.long())
