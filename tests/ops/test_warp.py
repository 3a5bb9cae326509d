"""Warping by flow: shifts, grid_sample and NumPy loops as references, the outside rule, errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.ops.warp import _warp_at_once, inside_mask, warp, warp_labels

LABEL_TYPES = [torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64]


def uniform_flow(dx: float, dy: float, *, n: int = 2, height: int = 5, width: int = 7) -> Tensor:
    return torch.tensor([float(dx), float(dy)]).view(1, 2, 1, 1).expand(n, 2, height, width).contiguous()


def nearest_loop(labels: Tensor, flow: Tensor) -> Tensor:
    """The definition of `warp_labels`, pixel by pixel, away from halves and the tolerance."""
    n, height, width = labels.shape
    out = torch.full_like(labels, 255)
    for item in range(n):
        for row in range(height):
            for column in range(width):
                x, y = column + float(flow[item, 0, row, column]), row + float(flow[item, 1, row, column])
                if 0 <= x <= width - 1 and 0 <= y <= height - 1:
                    out[item, row, column] = labels[item, round(y), round(x)]
    return out


def test_zero_flow_returns_image_and_labels(device: torch.device) -> None:
    image = torch.randn(2, 3, 5, 7, device=device)
    labels = torch.randint(0, 9, (2, 5, 7), device=device)
    flow = uniform_flow(0, 0).to(device)
    assert torch.equal(warp(image, flow), image)
    assert torch.equal(warp_labels(labels, flow), labels)
    assert bool(inside_mask(flow).all())


@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (0, 1), (-2, 0), (0, -3), (2, -1), (-6, 4)])
def test_whole_pixel_flow_is_an_exact_shift(device: torch.device, dx: int, dy: int) -> None:
    image = torch.randn(2, 3, 5, 7, device=device)
    labels = torch.randint(0, 9, (2, 5, 7), device=device)
    moved = torch.zeros_like(image)
    moved_labels = torch.full_like(labels, 255)
    for row in range(5):
        for column in range(7):
            if 0 <= row + dy < 5 and 0 <= column + dx < 7:
                moved[:, :, row, column] = image[:, :, row + dy, column + dx]
                moved_labels[:, row, column] = labels[:, row + dy, column + dx]
    flow = uniform_flow(dx, dy).to(device)
    assert torch.equal(warp(image, flow), moved)
    assert torch.equal(warp_labels(labels, flow), moved_labels)
    assert torch.equal(inside_mask(flow), moved_labels != 255)


def test_labels_move_against_the_motion_only_with_the_backward_flow() -> None:
    """A square that moves right by two: the flow from the second frame to the first is (-2, 0)."""
    before = torch.zeros(1, 6, 12, dtype=torch.uint8)
    before[0, 2:4, 4:6] = 1
    after = torch.zeros_like(before)
    after[0, 2:4, 6:8] = 1
    backward, forward = (uniform_flow(dx, 0, n=1, height=6, width=12) for dx in (-2.0, 2.0))
    assert torch.equal(warp_labels(before, backward)[..., 2:], after[..., 2:])
    assert not torch.equal(warp_labels(before, forward)[..., :-2], after[..., :-2])


def test_half_a_pixel_is_the_mean_of_neighbours() -> None:
    image = torch.tensor([[[[0.0, 1.0, 4.0], [10.0, 11.0, 14.0]]]])
    flow = uniform_flow(0.5, 0.5, n=1, height=2, width=3)
    assert warp(image, flow).tolist() == [[[[5.5, 7.5, 0.0], [0.0, 0.0, 0.0]]]]


def test_warp_equals_grid_sample_inside(device: torch.device, generator: torch.Generator) -> None:
    image = torch.rand(2, 3, 9, 13, generator=generator).to(device, torch.float64)
    flow = (4 * torch.randn(2, 2, 9, 13, generator=generator)).to(device, torch.float64)
    grid_y, grid_x = torch.meshgrid(torch.arange(9.0), torch.arange(13.0), indexing="ij")
    x, y = grid_x.to(device) + flow[:, 0], grid_y.to(device) + flow[:, 1]
    grid = torch.stack([2 * x / 12 - 1, 2 * y / 8 - 1], dim=-1)
    expected = functional.grid_sample(image, grid, mode="bilinear", align_corners=True)
    inside = inside_mask(flow)
    assert 0.2 < inside.float().mean() < 0.9
    got = warp(image, flow)
    torch.testing.assert_close(got * inside[:, None], expected * inside[:, None], rtol=0, atol=1e-12)
    assert not got.masked_select(~inside[:, None]).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**20), st.sampled_from(LABEL_TYPES))
def test_warp_labels_equals_the_loop_and_is_255_outside(height: int, width: int, seed: int, dtype: torch.dtype) -> None:
    gen = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 200, (2, height, width), generator=gen).to(dtype)
    flow = 3 * torch.randn(2, 2, height, width, generator=gen)
    got = warp_labels(labels, flow)
    assert got.dtype == dtype
    assert torch.equal(got, nearest_loop(labels, flow))
    assert torch.equal(got != 255, inside_mask(flow))
    if dtype in (torch.uint8, torch.int16, torch.int64):
        assert torch.equal(_warp_at_once(labels[:, None], flow)[:, 0], got)  # the accelerators' form


def test_several_maps_share_a_flow(device: torch.device, generator: torch.Generator) -> None:
    labels = torch.randint(0, 9, (2, 3, 6, 8), generator=generator, dtype=torch.uint8).to(device)
    flow = torch.randn(2, 2, 6, 8, generator=generator).to(device)
    apart = torch.stack([warp_labels(labels[:, index], flow) for index in range(3)], dim=1)
    assert torch.equal(warp_labels(labels, flow), apart)


def test_layout_of_the_arguments_does_not_matter(generator: torch.Generator) -> None:
    labels = torch.randint(0, 9, (2, 6, 8), generator=generator)
    flow = torch.randn(2, 2, 6, 8, generator=generator)
    turned = warp_labels(labels.mT.contiguous().mT, flow.mT.contiguous().mT)
    assert torch.equal(turned, warp_labels(labels, flow))


def test_nan_infinite_and_huge_flow_lies_outside(device: torch.device) -> None:
    flow = torch.zeros(1, 2, 2, 4, device=device)
    flow[0, 0, 0] = torch.tensor([math.nan, math.inf, -math.inf, 0.0])
    flow[0, 1, 1] = torch.tensor([0.0, 1e30, -1e30, math.nan])
    labels = torch.ones(1, 2, 4, dtype=torch.uint8, device=device)
    expected = torch.tensor([[[False, False, False, True], [True, False, False, False]]], device=device)
    assert torch.equal(inside_mask(flow), expected)
    assert torch.equal(warp_labels(labels, flow) == 1, expected)
    assert torch.equal(warp(labels[:, None].float(), flow)[:, 0] == 1, expected)


def test_border_is_inside_within_the_tolerance() -> None:
    for dx, inside in ((-0.0005, True), (-0.01, False)):
        assert bool(inside_mask(uniform_flow(dx, 0))[0, 0, 0]) is inside
        assert bool(inside_mask(uniform_flow(-dx, 0))[0, 0, -1]) is inside
        assert bool(inside_mask(uniform_flow(0, dx))[0, 0, 0]) is inside
        assert bool(inside_mask(uniform_flow(0, -dx))[0, -1, 0]) is inside


def test_half_precision_flow_keeps_whole_pixels_apart() -> None:
    labels = (torch.arange(4000) % 251).view(1, 1, -1)
    flow = torch.zeros(1, 2, 1, 4000, dtype=torch.float16)
    flow[:, 0] = -1
    assert torch.equal(warp_labels(labels, flow)[..., 1:], labels[..., :-1])


def test_warp_is_differentiable_in_image_and_flow() -> None:
    image = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    flow = (torch.rand(1, 2, 4, 5, dtype=torch.float64) * 1.8 - 0.9).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, flow))


def test_errors_name_the_argument() -> None:
    flow = uniform_flow(0, 0)
    with pytest.raises(ShapeError, match=r"flow: expected .* with w=8 from image, got"):
        warp(torch.zeros(2, 3, 5, 8), flow)
    with pytest.raises(ShapeError, match="flow: expected"):
        inside_mask(torch.zeros(2, 3, 5, 7))
    with pytest.raises(ShapeError, match=r"flow: expected .* with n=3 from labels"):
        warp_labels(torch.zeros(3, 5, 7, dtype=torch.uint8), flow)
    with pytest.raises(DTypeError, match="labels: expected a dtype that holds 255"):
        warp_labels(torch.zeros(2, 5, 7, dtype=torch.int8), flow)
    with pytest.raises(DTypeError, match="labels: expected an integer"):
        warp_labels(torch.zeros(2, 5, 7), flow)
    with pytest.raises(DTypeError, match="flow: expected a floating-point"):
        inside_mask(flow.long())
    with pytest.raises(DTypeError, match="image: expected a floating-point"):
        warp(torch.zeros(2, 3, 5, 7, dtype=torch.uint8), flow)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint32, torch.int64, torch.uint64])
def test_the_accelerators_form_warps_every_integer_dtype_alike(dtype: torch.dtype, generator: torch.Generator) -> None:
    labels = torch.randint(0, 256, (2, 3, 6, 9), generator=generator).to(dtype)
    flow = 4 * torch.randn(2, 2, 6, 9, generator=generator)
    moved = _warp_at_once(labels, flow)
    assert moved.dtype == dtype
    assert moved.tolist() == warp_labels(labels, flow).tolist()
    assert (moved.long() == 255).any()
