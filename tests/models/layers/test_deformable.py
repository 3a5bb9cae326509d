from __future__ import annotations

import math

import pytest
import torch
from golden_files import Golden, GoldenFolders, fill_module
from torch import Tensor, nn

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.models.layers.deformable import DeformableAttention, pixel_anchors
from mvcseg.ops import deform_attn

SHAPES = [(2, 3), (4, 5)]
ROWS = 26


def attention(dtype: torch.dtype = torch.float64) -> DeformableAttention:
    torch.manual_seed(0)
    module = DeformableAttention(24, levels=2, heads=3, points=2).to(dtype)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def inputs(queries: int = 9, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Query, value, reference points."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda *size: torch.randn(*size, generator=generator, dtype=dtype)  # noqa: E731
    return draw(2, queries, 24), draw(2, ROWS, 24), torch.rand(2, queries, 2, 2, generator=generator, dtype=dtype)


@pytest.mark.golden
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_the_reference_module(golden: GoldenFolders, grad: bool, dtype: torch.dtype) -> None:
    stored = Golden(golden / "ops/ms_deform_attn.npz")
    shapes = [(height, width) for height, width in stored.tensor("spatial_shapes").tolist()]
    query, value, points, shared = (stored.tensor(name).to(dtype) for name in ("q", "x", "rp", "rp_shared"))
    last = shapes[-1][0] * shapes[-1][1]
    three = fill_module(DeformableAttention(64, levels=3, heads=8, points=4).to(dtype), prefix="msda3.")
    one = fill_module(DeformableAttention(64, levels=1, heads=16, points=4).to(dtype), prefix="msda1.")
    with torch.set_grad_enabled(grad):  # the formula, or sums of table rows
        for name, got in {
            "module3_out": three(query, value, reference_points=points, spatial_shapes=shapes),
            "module3_shared_ref_out": three(query, value, reference_points=shared, spatial_shapes=shapes),
            "module1_out": one(query, value[:, -last:], reference_points=shared[:, :, 0], spatial_shapes=shapes[-1:]),
        }.items():
            stored.check(name, got, rtol=2e-6)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("frames", [1, 2])
def test_inference_equals_what_carries_a_gradient(levels: int, frames: int) -> None:
    module, (query, value, points) = attention(), inputs()
    points = points[:frames, :, :levels]
    expected = module(query, value, reference_points=points, spatial_shapes=SHAPES)
    assert expected.requires_grad
    with torch.no_grad():
        got = module(query, value, reference_points=points, spatial_shapes=SHAPES)
    torch.testing.assert_close(got, expected.detach(), rtol=0, atol=1e-12)


def test_one_reference_point_a_query_serves_all_maps() -> None:
    module, (query, value, points) = attention(), inputs()
    shared = points[:, :, 0]
    torch.testing.assert_close(
        module(query, value, reference_points=shared, spatial_shapes=SHAPES),
        module(query, value, reference_points=torch.stack([shared, shared], dim=2), spatial_shapes=SHAPES),
    )


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    module, (query, value, points) = attention(), inputs()
    with torch.no_grad():
        whole = module(query, value, reference_points=points, spatial_shapes=SHAPES)
        monkeypatch.setattr(deform_attn, "LONGEST_PIECE", 2)
        pieces = module(query, value, reference_points=points, spatial_shapes=SHAPES)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-13)


def test_frames_do_not_see_each_other() -> None:
    module, (query, value, points) = attention(), inputs()
    with torch.no_grad():
        together = module(query, value, reference_points=points, spatial_shapes=SHAPES)
        for i in range(2):
            one = slice(i, i + 1)
            alone = module(query[one], value[one], reference_points=points[one], spatial_shapes=SHAPES)
            assert torch.equal(together[one], alone)


def test_a_shift_of_logits_changes_nothing_however_large() -> None:
    module, (query, value, points) = attention(), inputs()
    with torch.no_grad():
        expected = module(query, value, reference_points=points, spatial_shapes=SHAPES)
        module.attention_weights.bias += torch.tensor([900.0, -900.0, 0.0]).repeat_interleave(4)
        got = module(query, value, reference_points=points, spatial_shapes=SHAPES)
    torch.testing.assert_close(got, expected)


def test_gradients_are_right() -> None:
    module, (query, value, points) = attention(), inputs(queries=2)
    tensors = tuple(tensor.requires_grad_() for tensor in (query, value, points))
    attend = lambda q, v, p: module(q, v, reference_points=p, spatial_shapes=SHAPES)  # noqa: E731
    assert torch.autograd.gradcheck(attend, tensors)
    attend(*tensors).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_a_new_module_looks_around_its_point_with_equal_weights() -> None:
    module = DeformableAttention(32, levels=1, heads=4, points=2)
    offsets = module.sampling_offsets.bias.view(4, 2, 2)
    expected = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]]).float()
    torch.testing.assert_close(offsets[:, 0], expected)
    torch.testing.assert_close(offsets[:, 1], 2 * expected)
    assert not any(p.any() for p in (module.sampling_offsets.weight, *module.attention_weights.parameters()))


def test_pixel_anchors_count_from_the_first_pixels_centre() -> None:
    got = pixel_anchors(torch.tensor([0.5, 0.25]).view(1, 1, 1, 2), spatial_shapes=[(2, 3), (4, 1)])
    assert got.tolist() == [[[1.0, 0.0, 0.0, 0.5]]]  # x in both maps, then y


def test_works_under_autocast() -> None:
    module, (query, value, points) = attention(torch.float32), inputs(dtype=torch.float32)
    expected = module(query, value, reference_points=points, spatial_shapes=SHAPES)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        got = module(query, value, reference_points=points, spatial_shapes=SHAPES)
    assert got.dtype == torch.bfloat16
    assert (got - expected).square().mean().sqrt() < 0.05 * expected.std()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 20, "levels": 1, "heads": 3, "points": 4}, "heads: expected a divisor of width=20, got 3"),
        ({"width": 20, "levels": 0, "heads": 4, "points": 4}, "levels: expected an integer of at least 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DeformableAttention(arguments.pop("width"), **arguments)


@pytest.mark.parametrize("grad", [True, False])
def test_sizes_that_do_not_agree_are_refused(grad: bool) -> None:
    module, (query, value, points) = attention(), inputs()
    with torch.set_grad_enabled(grad):
        with pytest.raises(ShapeError, match=r"reference_points: expected \(1 or 2, 9, 2\) or"):
            module(query, value, reference_points=points[:, 1:], spatial_shapes=SHAPES)
        with pytest.raises(ShapeError, match="spatial_shapes: expected 2 maps, got 1"):
            module(query, value, reference_points=points, spatial_shapes=SHAPES[1:])
        with pytest.raises(ShapeError, match="value: expected s=26"):
            module(query, value[:, 1:], reference_points=points, spatial_shapes=SHAPES)
        with pytest.raises(ShapeError, match=r"value: .* with n=2 from query"):
            module(query, value[1:], reference_points=points, spatial_shapes=SHAPES)


def test_a_nan_query_harms_no_other() -> None:
    module, (query, value, points) = attention(), inputs()
    with torch.no_grad():
        expected = module(query, value, reference_points=points, spatial_shapes=SHAPES)
        query[1, 4] = math.nan
        got = module(query, value, reference_points=points, spatial_shapes=SHAPES)
    assert got[1, 4].isnan().all()
    got[1, 4], expected[1, 4] = 0, 0
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)
