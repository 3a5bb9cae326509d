"""Values of maps at points and the choice of points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.ops.points import draw_from, sample_points, uncertain_points

MAPS = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))
POINTS = torch.rand(2, 40, 2, generator=torch.Generator().manual_seed(2)) * 1.4 - 0.2


def draw(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_pixel_centres_have_the_pixels_values() -> None:
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    centres = torch.stack([(columns + 0.5) / 7, (rows + 0.5) / 5], dim=-1).flatten(0, 1)
    values = sample_points(MAPS, centres.expand(2, -1, 2))
    assert torch.allclose(values.view(2, 3, 5, 7), MAPS, atol=1e-6)


def test_zeros_outside_take_part_within_half_a_pixel_of_the_border() -> None:
    ones = torch.ones(1, 1, 4, 4)
    points = torch.tensor([[[0.0, 0.5], [0.0, 0.0], [-0.125, 0.5], [0.125, 0.125]]])
    assert sample_points(ones, points).tolist() == [[[0.5, 0.25, 0.0, 1.0]]]


def test_samples_are_scipys_linear_interpolation() -> None:
    values = sample_points(MAPS.double(), POINTS.double())
    for n, c in np.ndindex(2, 3):
        x, y = POINTS[n].double().T.numpy()
        expected = ndimage.map_coordinates(
            MAPS[n, c].double().numpy(), [y * 5 - 0.5, x * 7 - 0.5], order=1, mode="grid-constant"
        )
        assert np.allclose(values[n, c].numpy(), expected, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    points = POINTS[:, :6].double()
    assert torch.autograd.gradcheck(lambda maps: sample_points(maps, points), MAPS.double().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_are_sampled_in_float32(dtype: torch.dtype) -> None:
    values = sample_points(MAPS.to(dtype), POINTS)
    assert values.dtype == torch.float32
    assert torch.equal(values, sample_points(MAPS.to(dtype).float(), POINTS))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sample_points(MAPS, POINTS), sample_points(MAPS, POINTS.clone()))
        assert sample_points(MAPS, POINTS).dtype == torch.float32


@pytest.mark.parametrize(("n", "c", "p"), [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_nothing_to_sample_gives_nothing_with_a_graph(n: int, c: int, p: int) -> None:
    maps = torch.randn(n, c, 5, 7, requires_grad=True)
    values = sample_points(maps, torch.rand(n, p, 2))
    assert values.shape == (n, c, p)
    values.sum().backward()
    assert maps.grad is not None


def test_the_points_kept_are_the_candidates_nearest_to_zero() -> None:
    masks = MAPS[:, 0]
    points = uncertain_points(masks, num_points=8, oversample=3.0, importance=0.75, draw=draw)
    candidates = draw((2, 24, 2))
    for n in range(2):
        sizes = sample_points(masks[n][None, None], candidates[n][None])[0, 0].abs()
        expected = candidates[n][sizes.argsort()[:6]]
        assert sorted(points[n, :6].tolist()) == sorted(expected.tolist())
    assert torch.equal(points[:, 6:], draw((2, 2, 2)))


def test_numbers_are_drawn_as_candidates_then_as_free_points() -> None:
    shapes: list[tuple[int, ...]] = []

    def noting(shape: tuple[int, ...]) -> Tensor:
        shapes.append(shape)
        return draw(shape)

    uncertain_points(MAPS[:, 0], num_points=64, oversample=3.0, importance=0.75, draw=noting)
    assert shapes == [(2, 192, 2), (2, 16, 2)]


@pytest.mark.parametrize(("importance", "is_biased"), [(0.0, False), (0.75, True)])
def test_a_mean_over_free_points_is_unbiased_and_over_uncertain_ones_is_not(
    importance: float, is_biased: bool, generator: torch.Generator
) -> None:
    mask = torch.linspace(-1.0, 5.0, 48).view(1, 6, 8)
    # the mean of a bilinear map over the unit square, zeros beyond the border included, on a fine grid
    fine = (torch.arange(400) + 0.5) / 400
    grid = torch.stack(torch.meshgrid(fine, fine, indexing="xy"), dim=-1).view(1, -1, 2)
    expected = sample_points(mask.unsqueeze(1), grid).mean()
    every = draw_from(generator, device=mask.device)
    points = uncertain_points(mask.expand(400, 6, 8), num_points=32, oversample=3.0, importance=importance, draw=every)
    free, chosen = points[:, int(32 * importance) :], points[:, : int(32 * importance)]
    for part, differs in ((free, False), (chosen, is_biased)):
        if part.shape[1]:
            values = sample_points(mask.expand(400, 6, 8).unsqueeze(1), part)[:, 0]
            deviations = (values.mean() - expected).abs() / (values.std() / values.numel() ** 0.5)
            assert (deviations > 20) if differs else (deviations < 4)


def test_no_value_is_read_on_the_host() -> None:
    maps, points = MAPS.to("meta"), POINTS.to("meta")  # reading a value of a meta tensor is an error
    assert sample_points(maps, points).shape == (2, 3, 40)

    def nothing(shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, device="meta")

    chosen = uncertain_points(maps[:, 0], num_points=8, oversample=3.0, importance=0.75, draw=nothing)
    assert chosen.shape == (2, 8, 2)


def test_draws_follow_from_the_generator_alone() -> None:
    first, second = (draw_from(torch.Generator().manual_seed(7), device=torch.device("cpu")) for _ in range(2))
    assert torch.equal(first((3, 2)), second((3, 2)))
    assert not torch.equal(first((3, 2)), draw_from(None, device=torch.device("cpu"))((3, 2)))
    assert first((2,)).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sample_points(MAPS[0], POINTS), ShapeError, "maps: expected"),
        (lambda: sample_points(MAPS, POINTS[:1]), ShapeError, "points: expected"),
        (lambda: sample_points(MAPS.long(), POINTS), DTypeError, "maps: expected a floating"),
        (lambda: sample_points(MAPS, POINTS.long()), DTypeError, "points: expected a floating"),
        (lambda: choose(maps=MAPS), ShapeError, "maps: expected"),
        (lambda: choose(num_points=0), ConfigError, "num_points: expected at least 1, got 0"),
        (lambda: choose(oversample=0.5), ConfigError, "oversample: expected"),
        (lambda: choose(oversample=float("nan")), ConfigError, "oversample: expected"),
        (lambda: choose(importance=1.5), ConfigError, "importance: expected a share"),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def choose(
    *, maps: Tensor = MAPS[:, 0], num_points: int = 4, oversample: float = 3.0, importance: float = 0.75
) -> Tensor:
    return uncertain_points(maps, num_points=num_points, oversample=oversample, importance=importance, draw=draw)
