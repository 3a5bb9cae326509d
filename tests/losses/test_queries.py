"""Masks kept whole and masks kept as a product say the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from mvcseg.losses.queries import DenseMasks, FactoredMasks

B, T, Q, D, H, W = 2, 3, 6, 4, 5, 7


def parts(*, has_bias: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, T, Q, D), (B, T, D, H, W), *([(B, T, Q)] if has_bias else [])]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def dense(kernels: Tensor, features: Tensor, bias: Tensor | None = None) -> DenseMasks:
    logits = torch.einsum("btqd,btdhw->btqhw", kernels, features)
    return DenseMasks(logits if bias is None else logits + bias[..., None, None])


def border_points() -> Tensor:
    """Points all over the map, at its corners and edges, outside, and where two stacked frames meet."""
    anywhere = torch.rand(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 1.2 - 0.1
    seams = torch.tensor([[x, y] for x in (0.0, 0.3, 1.0) for y in (0.0, 1 / 3, 1 / 3 + 1e-3, 2 / 3, 0.99, 1.0)])
    return torch.cat([anywhere, seams.double()])


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("frame", [None, 0, 2])
def test_factored_and_dense_masks_agree_at_points_with_their_gradients(frame: int | None, has_bias: bool) -> None:
    leaves, points = parts(has_bias=has_bias), border_points()
    factored, whole = FactoredMasks(*leaves).at(1, frame, points), dense(*leaves).at(1, frame, points)
    assert factored.shape == (Q, len(points))
    assert torch.allclose(factored, whole, atol=1e-12)
    pull = torch.randn(factored.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for got, expected in zip(
        torch.autograd.grad(factored, leaves, pull), torch.autograd.grad(whole, leaves, pull), strict=True
    ):
        assert torch.allclose(got, expected, atol=1e-11)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("frame", [None, 0, 2])
@pytest.mark.parametrize("queries", [[4, 1, 4], []])
def test_factored_and_dense_masks_agree_where_chosen(frame: int | None, has_bias: bool, queries: list[int]) -> None:
    leaves, index = parts(has_bias=has_bias), torch.tensor(queries, dtype=torch.int64)
    factored, whole = (masks.chosen(1, frame, index) for masks in (FactoredMasks(*leaves), dense(*leaves)))
    assert factored.shape == (len(queries), H if frame is not None else T * H, W)
    assert torch.allclose(factored, whole, atol=1e-12)
    for got, expected in zip(
        torch.autograd.grad(factored.square().sum(), leaves),
        torch.autograd.grad(whole.square().sum(), leaves),
        strict=True,
    ):
        assert torch.allclose(got, expected, atol=1e-11)


@pytest.mark.parametrize("has_bias", [False, True])
def test_masks_of_every_frames_own_queries_are_those_frame_by_frame(has_bias: bool) -> None:
    leaves = parts(has_bias=has_bias)
    queries = [torch.tensor([4, 1]), torch.empty(0, dtype=torch.int64), torch.tensor([2, 0, 5])]
    for masks in (FactoredMasks(*leaves), dense(*leaves)):
        got = masks.chosen_of_frames(1, queries)
        expected = torch.cat([masks.chosen(1, frame, own) for frame, own in enumerate(queries)])
        assert torch.allclose(got, expected, atol=1e-12)
        for of_got, of_expected in zip(
            torch.autograd.grad(got.square().sum(), leaves, retain_graph=True),
            torch.autograd.grad(expected.square().sum(), leaves),
            strict=True,
        ):
            assert torch.allclose(of_got, of_expected, atol=1e-11)


def test_a_tall_mask_is_the_frames_below_each_other() -> None:
    leaves = parts()
    masks, points = dense(*leaves), border_points()
    tall = torch.cat(list(masks.logits[1]), dim=1)
    assert torch.equal(masks.chosen(1, None, torch.arange(Q)), tall)
    grid = (2 * points - 1)[None, None]
    expected = functional.grid_sample(tall[None], grid, align_corners=False)[0, :, 0]
    assert torch.allclose(masks.at(1, None, points), expected, atol=1e-12)


def test_both_kinds_state_their_sizes() -> None:
    leaves = parts()
    assert FactoredMasks(*leaves).shape == dense(*leaves).shape == (B, T, Q, H, W)


class Largest(TorchDispatchMode):
    """Notes the most elements that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("frame", [None, 1])
def test_factored_masks_never_make_the_masks_of_all_queries(frame: int | None) -> None:
    kernels, features = torch.randn(1, 2, 500, 4), torch.randn(1, 2, 4, 30, 40)
    frames = 1 if frame is not None else 2
    with Largest() as largest:
        masks = FactoredMasks(kernels, features)
        masks.at(0, frame, torch.rand(50, 2))
        masks.chosen(0, frame, torch.tensor([3, 77]))
    assert 0 < largest.elements <= max(500 * 60, features.numel()) < 500 * 30 * 40 * frames / 10


def test_values_at_points_are_float32_under_autocast() -> None:
    kernels, features = torch.randn(1, 2, 6, 4), torch.randn(1, 2, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for masks in (FactoredMasks(kernels, features), DenseMasks(torch.randn(1, 2, 6, 8, 8).bfloat16())):
            assert masks.at(0, None, torch.rand(5, 2)).dtype == torch.float32
            assert masks.at(0, 1, torch.rand(5, 2)).dtype == torch.float32


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("frame", [None, 1])
def test_many_points_and_few_points_of_factored_masks_agree(frame: int | None, has_bias: bool) -> None:
    kernels, features = torch.randn(1, 2, 3, 4).double(), torch.randn(1, 2, 4, 5, 7).double()
    masks = FactoredMasks(kernels, features, torch.randn(1, 2, 3).double() if has_bias else None)
    points = torch.rand(400, 2).double()
    at_once = masks.at(0, frame, points)  # the product first
    one_by_one = torch.cat([masks.at(0, frame, point[None]) for point in points], dim=1)  # the samples first
    torch.testing.assert_close(at_once, one_by_one)
