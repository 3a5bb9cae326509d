"""How weights are drawn: spread and range of every kind of layer, as the published training's."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from mvcseg.models.backbones.vit import VisionTransformer
from mvcseg.models.backbones.vit_adapter import ViTAdapter
from mvcseg.models.dvis.refiner import TemporalRefiner
from mvcseg.models.dvis.tracker import ReferringTracker
from mvcseg.models.layers.initial import keep_variance
from mvcseg.models.mask2former import PixelDecoder, QueryDecoder


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def assert_uniform(weight: Tensor, bound: float) -> None:
    """Uniform on [-bound, bound]: extremes close to the bound, and a deviation of bound / sqrt(3)."""
    assert weight.abs().max() <= bound * (1 + 1e-6)
    assert weight.abs().max() > 0.98 * bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def assert_normal(weight: Tensor, deviation: float) -> None:
    assert float(weight.std()) == pytest.approx(deviation, rel=0.05)
    assert weight.abs().max() > 2.5 * deviation
    assert abs(float(weight.mean())) < 5 * deviation / math.sqrt(weight.numel())


def xavier(weight: Tensor) -> float:
    return math.sqrt(6 / (weight.shape[0] + weight[0].numel()))


def kept(weight: Tensor) -> float:
    return math.sqrt(3 / weight[0].numel())


def usual(weight: Tensor) -> float:
    """PyTorch's own start of linear layers and convolutions."""
    return math.sqrt(1 / weight[0].numel())


def test_variance_is_kept_from_input_to_output() -> None:
    layer = nn.Linear(400, 300)
    keep_variance(layer)
    assert float(layer(torch.randn(500, 400)).var()) == pytest.approx(1.0, rel=0.05)
    assert_uniform(layer.weight, kept(layer.weight))
    assert not layer.bias.any()


def test_attention_and_feed_forward_of_every_transformer_start_xavier_uniform() -> None:
    parts: list[nn.Module] = [
        QueryDecoder(5, num_queries=7, has_reid=True, width=64, hidden=96, layers=1),
        ReferringTracker(5, width=64, hidden=96, layers=1, mask_width=32),
        TemporalRefiner(5, width=64, hidden=96, layers=1, mask_width=32),
    ]
    checked = 0
    for part in parts:
        for name, weight in part.named_parameters():
            if name.endswith(("in_proj_weight", "out_proj.weight", "linear1.weight", "linear2.weight")):
                assert_uniform(weight, xavier(weight))
                checked += 1
            elif name.endswith(("in_proj_bias", "out_proj.bias")):
                assert not weight.any()
    assert checked == 6 + 6 + 8


def test_the_encoder_of_the_pixel_decoder_starts_xavier_uniform_with_normal_levels() -> None:
    decoder = PixelDecoder((32, 64, 64, 64), width=64, hidden=96, layers=1)
    layer = decoder.transformer.encoder["layers"][0]
    for linear in (layer.linear1, layer.linear2, layer.self_attn.value_proj, layer.self_attn.output_proj):
        assert_uniform(linear.weight, xavier(linear.weight))
    assert float(decoder.transformer.level_embed.std()) == pytest.approx(1.0, rel=0.2)


def test_convolutions_of_the_pixel_decoder_start_as_published() -> None:
    decoder = PixelDecoder((32, 64, 64, 64), width=64, hidden=96, layers=1)
    for project in decoder.input_proj:
        assert_uniform(project[0].weight, xavier(project[0].weight))
        assert not project[0].bias.any()
    for convolution in (decoder.adapter_1, decoder.layer_1, decoder.mask_features):
        assert_uniform(convolution.weight, kept(convolution.weight))
    assert not decoder.mask_features.bias.any()


def test_queries_start_standard_normal_and_heads_as_pytorch_does() -> None:
    decoder = QueryDecoder(30, num_queries=100, has_reid=True, width=64, hidden=96, layers=1)
    assert_normal(decoder.query_feat.weight, 1.0)
    assert_normal(decoder.query_embed.weight, 1.0)
    assert_uniform(decoder.class_embed.weight, usual(decoder.class_embed.weight))
    for layer in decoder.mask_embed.layers:
        assert_uniform(layer.weight, usual(layer.weight))


def test_the_reid_head_and_the_references_keep_variance() -> None:
    decoder = QueryDecoder(5, num_queries=7, has_reid=True, width=64, hidden=96, layers=1)
    tracker = ReferringTracker(5, width=64, hidden=96, layers=1, mask_width=32)
    assert decoder.reid_embed is not None
    for layer in (*decoder.reid_embed.layers, *tracker.ref_proj.layers):
        assert_uniform(layer.weight, kept(layer.weight))
        assert not layer.bias.any()


def test_the_adapters_convolutions_start_normal_by_their_outputs() -> None:
    adapter = ViTAdapter(VisionTransformer(64, depth=4, heads=2, grid=5), stem_width=32)
    for layer in (adapter.spm.stem[3], adapter.spm.conv2[0], adapter.spm.fc3):
        assert_normal(layer.weight, math.sqrt(2 / (layer.out_channels * layer.kernel_size[0] ** 2)))
    assert_normal(adapter.up.weight, math.sqrt(2 / (64 * 4)))
    ffn = adapter.interactions[0].extractor.ffn
    assert_normal(ffn.fc1.weight, 0.02)
    assert float(ffn.dwconv.dwconv.weight.std()) == pytest.approx(math.sqrt(2 / 9), rel=0.2)
    for layer in (adapter.spm.fc1, adapter.up, ffn.fc1, ffn.fc2, ffn.dwconv.dwconv):
        assert not layer.bias.any()
    assert float(adapter.level_embed.std()) == pytest.approx(1.0, rel=0.2)
