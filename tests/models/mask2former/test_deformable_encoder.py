from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mvcseg.models.mask2former import deformable_encoder
from mvcseg.models.mask2former.deformable_encoder import DeformableEncoder, pixel_centres
from mvcseg.models.mask2former.position import sine_position

SHAPES = [(1, 2), (2, 3), (4, 5)]


def encoder() -> DeformableEncoder:
    torch.manual_seed(0)
    module = DeformableEncoder(32, levels=3, heads=4, points=2, hidden=48, layers=2).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def tokens() -> Tensor:
    return torch.randn(2, 28, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_inference_in_pieces_equals_what_carries_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = encoder(), tokens()
    expected = module(x, spatial_shapes=SHAPES)
    assert expected.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(module(x, spatial_shapes=SHAPES), expected.detach(), rtol=0, atol=1e-12)
        monkeypatch.setattr(deformable_encoder, "LONGEST_PIECE", 5)
        torch.testing.assert_close(module(x, spatial_shapes=SHAPES), expected.detach(), rtol=0, atol=1e-12)


def test_a_layer_is_attention_and_feed_forward_each_added_and_normed() -> None:
    module, x = encoder(), tokens()
    places = [sine_position(*shape, channels=32, dtype=torch.float64).flatten(0, 1) for shape in SHAPES]
    position = torch.cat([place + embed for place, embed in zip(places, module.level_embed, strict=True)])
    points = torch.cat([pixel_centres(*shape, dtype=torch.float64) for shape in SHAPES])[None]
    expected = x
    for layer in module.encoder["layers"].children():
        attended = layer.self_attn(expected + position, expected, reference_points=points, spatial_shapes=SHAPES)
        expected = layer.norm1(expected + attended)
        expected = layer.norm2(expected + layer.linear2(layer.linear1(expected).relu()))
    torch.testing.assert_close(module(x, spatial_shapes=SHAPES), expected)


def test_input_is_left_as_it_is() -> None:
    module, x = encoder(), tokens()
    before = x.clone()
    with torch.no_grad():
        module(x, spatial_shapes=SHAPES)
    assert torch.equal(x, before)


def test_pixel_centres_run_row_by_row() -> None:
    expected = [[0.25, 0.125], [0.75, 0.125], [0.25, 0.375], [0.75, 0.375]]
    assert pixel_centres(4, 2, dtype=torch.float32)[:4].tolist() == expected


def test_half_precision_keeps_sample_points_exact() -> None:
    module, seen = encoder().bfloat16(), []
    module.encoder["layers"][0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["reference_points"]), with_kwargs=True
    )
    assert module(tokens().bfloat16(), spatial_shapes=SHAPES).dtype == torch.bfloat16
    expected = torch.cat([pixel_centres(*shape, dtype=torch.float32) for shape in SHAPES])[None]
    assert torch.equal(seen[0], expected)
