from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.models.mask2former.pixel_decoder import PixelFeatures
from mvcseg.models.mask2former.position import sine_position
from mvcseg.models.mask2former.query_decoder import FrameQueries, QueryDecoder

QUERIES, CLASSES, WIDTH = 7, 5, 16


def decoder(*, has_reid: bool = True) -> QueryDecoder:
    torch.manual_seed(0)
    module = QueryDecoder(
        CLASSES, num_queries=QUERIES, has_reid=has_reid, width=WIDTH, heads=4, hidden=24, layers=4
    ).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module.eval()


def features(*, n: int = 2) -> PixelFeatures:
    generator = torch.Generator().manual_seed(1)
    mask_features, *scales = (
        torch.randn(n, WIDTH, 64 // stride, 96 // stride, generator=generator, dtype=torch.float64)
        for stride in (4, 32, 16, 8)
    )
    return PixelFeatures(mask_features, tuple(scales))


def fields(queries: FrameQueries) -> list[Tensor]:
    return [queries.class_logits, queries.mask_embeds, queries.embeds, queries.embeds_unnormed]


def visible_pixels(module: QueryDecoder, pixels: PixelFeatures) -> list[Tensor]:
    """What every cross-attention layer was shown."""
    seen: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["visible"]), with_kwargs=True)
        for layer in module.transformer_cross_attention_layers
    ]
    module(pixels)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("has_reid", [True, False])
def test_shapes_follow_from_queries_classes_and_the_reid_head(has_reid: bool) -> None:
    queries = decoder(has_reid=has_reid)(features())
    width = 2 * WIDTH if has_reid else WIDTH
    assert [tuple(x.shape) for x in fields(queries)] == [
        (2, QUERIES, CLASSES + 1),
        (2, QUERIES, WIDTH),
        (2, QUERIES, width),
        (2, QUERIES, width),
    ]
    assert queries.masks().shape == (2, QUERIES, 16, 24)


def test_masks_are_inner_products_with_the_mask_features() -> None:
    queries = decoder()(features())
    expected = (queries.mask_embeds[1, 3, :, None, None] * queries.mask_features[1]).sum(dim=0)
    torch.testing.assert_close(queries.masks()[1, 3], expected)


def test_embeddings_are_normed_and_plain_queries_then_the_reid_embedding() -> None:
    module = decoder()
    queries = module(features())
    plain, identity = queries.embeds_unnormed.split(WIDTH, dim=-1)
    normed = module.decoder_norm(plain)
    torch.testing.assert_close(queries.embeds, torch.cat([normed, identity], dim=-1))
    torch.testing.assert_close(identity, module.reid_embed(normed))
    torch.testing.assert_close(queries.class_logits, module.class_embed(normed))
    torch.testing.assert_close(queries.mask_embeds, module.mask_embed(normed))


def test_each_layer_sees_its_scale_inside_the_mask_before_it() -> None:
    module, pixels = decoder(), features()
    seen = visible_pixels(module, pixels)
    before = module.layer_predictions(pixels)
    assert len(before) == 5
    assert len(seen) == 4
    for i, visible in enumerate(seen):
        size = pixels.scales[i % 3].shape[-2:]
        masks = functional.interpolate(before[i].masks(), size=size, mode="bilinear", align_corners=False)
        expected = masks.sigmoid().flatten(2) >= 0.5
        expected |= ~expected.any(dim=-1, keepdim=True)
        assert torch.equal(visible, expected)
        assert not visible.all()


def test_a_query_whose_mask_is_empty_sees_everything() -> None:
    module, pixels = decoder(), features()
    with torch.no_grad():
        module.mask_embed.layers[2].weight.zero_()
        module.mask_embed.layers[2].bias.fill_(-1)
        pixels = PixelFeatures(pixels.mask_features.abs(), pixels.scales)
    assert all(visible.all() for visible in visible_pixels(module, pixels))
    assert all(x.isfinite().all() for x in fields(module(pixels)))


def test_layer_predictions_end_with_what_forward_gives_and_start_from_the_learned_queries() -> None:
    module, pixels = decoder(), features()
    first, *_, last = module.layer_predictions(pixels)
    assert all(torch.equal(a, b) for a, b in zip(fields(last), fields(module(pixels)), strict=True))
    start = module.class_embed(module.decoder_norm(module.query_feat.weight))
    torch.testing.assert_close(first.class_logits, start.expand(2, -1, -1))


def test_every_layer_is_supervised() -> None:
    module, pixels = decoder(), features()
    predictions = module.layer_predictions(pixels)
    loss = sum(p.class_logits.square().sum() + p.masks().square().sum() + p.embeds.sum() for p in predictions)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_inference_equals_what_carries_a_gradient() -> None:
    module, pixels = decoder(), features()
    expected = [x.detach() for x in fields(module(pixels))]
    with torch.no_grad():
        torch.testing.assert_close(fields(module(pixels)), expected, rtol=0, atol=1e-12)


def test_frames_do_not_see_each_other() -> None:
    module, pixels = decoder(), features()
    together = fields(module(pixels))
    for i in range(2):
        one = slice(i, i + 1)
        alone = module(PixelFeatures(pixels.mask_features[one], tuple(scale[one] for scale in pixels.scales)))
        torch.testing.assert_close([x[one] for x in together], fields(alone))


def test_queries_permuted_with_their_embeddings_come_out_permuted() -> None:
    module, pixels = decoder(), features()
    expected = fields(module(pixels))
    order = torch.randperm(QUERIES, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        module.query_feat.weight.copy_(module.query_feat.weight[order])
        module.query_embed.weight.copy_(module.query_embed.weight[order])
    torch.testing.assert_close(fields(module(pixels)), [x[:, order] for x in expected])


def torch_attention(layer: nn.Module) -> nn.MultiheadAttention:
    reference = nn.MultiheadAttention(WIDTH, layer.heads, batch_first=True).double()
    reference.load_state_dict(layer.state_dict())
    return reference


def test_equals_the_decoder_spelt_out_with_full_size_masks() -> None:
    module, pixels = decoder(), features()
    place = module.query_embed.weight
    x = module.query_feat.weight.expand(2, -1, -1)
    for i in range(4):
        scale = pixels.scales[i % 3]
        height, width = scale.shape[-2:]
        masks = torch.einsum("nqc,nchw->nqhw", module.mask_embed(module.decoder_norm(x)), pixels.mask_features)
        masks = functional.interpolate(masks, size=(height, width), mode="bilinear", align_corners=False)
        blocked = (masks.sigmoid() < 0.5).flatten(2)
        blocked[blocked.all(dim=-1)] = False
        value = scale.flatten(2).transpose(1, 2) + module.level_embed.weight[i % 3]
        key = value + sine_position(height, width, channels=WIDTH, dtype=torch.float64).flatten(0, 1)
        cross = module.transformer_cross_attention_layers[i]
        attend = torch_attention(cross.multihead_attn)
        x = cross.norm(x + attend(x + place, key, value, attn_mask=blocked.repeat_interleave(4, dim=0))[0])
        among = module.transformer_self_attention_layers[i]
        x = among.norm(x + torch_attention(among.self_attn)(x + place, x + place, x)[0])
        feed_forward = module.transformer_ffn_layers[i]
        x = feed_forward.norm(x + feed_forward.linear2(feed_forward.linear1(x).relu()))
    torch.testing.assert_close(module(pixels).embeds_unnormed[..., :WIDTH], x)
