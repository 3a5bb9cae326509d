from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from golden_files import Golden, GoldenFolders
from torch import Tensor

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.ops import deform_attn
from mvcseg.ops.deform_attn import deformable_attention, gather, lay_out, may_gather, pieces

SHAPES = [(5, 3), (1, 7), (4, 1)]


def draw(
    *,
    n: int = 2,
    queries: int = 11,
    heads: int = 3,
    points: int = 2,
    depth: int = 5,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations from well outside to well inside, weights."""
    generator = torch.Generator().manual_seed(1)
    rows = sum(height * width for height, width in SHAPES)
    value = torch.randn(n, rows, heads, depth, generator=generator, dtype=dtype)
    locations = 3 * torch.rand(n, queries, heads, len(SHAPES), points, 2, generator=generator, dtype=dtype) - 1
    weights = torch.rand(n, queries, heads, len(SHAPES), points, generator=generator, dtype=dtype)
    return value, locations, weights


def loops(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """The definition, pixel by pixel."""
    n, queries, heads, _, points, _ = locations.shape
    out = value.new_zeros(n, queries, heads, value.shape[-1])
    starts = [0, *itertools.accumulate(height * width for height, width in SHAPES)]
    for level, (height, width) in enumerate(SHAPES):
        for i, q, m, p in itertools.product(range(n), range(queries), range(heads), range(points)):
            x, y = locations[i, q, m, level, p].tolist()
            x, y = x * width - 0.5, y * height - 0.5
            for column, row in itertools.product(range(width), range(height)):
                share = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
                out[i, q, m] += weights[i, q, m, level, p] * share * value[i, starts[level] + row * width + column, m]
    return out.flatten(2)


def as_tables(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    return deformable_attention(value, locations, weights, spatial_shapes=SHAPES)


def as_formula(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """``grid_sample`` serves whatever needs a gradient."""
    with torch.enable_grad():
        return deformable_attention(value.clone().requires_grad_(), locations, weights, spatial_shapes=SHAPES).detach()


@pytest.mark.parametrize("path", [as_formula, as_tables])
def test_equals_the_definition(path: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    arguments = draw()
    torch.testing.assert_close(path(*arguments), loops(*arguments), rtol=0, atol=1e-12)


def test_a_pixel_centre_gives_the_pixel_and_a_border_half_of_it() -> None:
    value = torch.arange(1.0, 7.0).view(1, 6, 1, 1)
    points = torch.tensor([[0.5 / 3, 0.25], [2.5 / 3, 0.75], [0.0, 0.25], [0.5, 0.5], [1.3, 0.5]])
    got = deformable_attention(value, points.view(1, 5, 1, 1, 1, 2), torch.ones(1, 5, 1, 1, 1), spatial_shapes=[(2, 3)])
    torch.testing.assert_close(got.flatten(), torch.tensor([1.0, 6.0, 0.5, 3.5, 0.0]))


def test_sums_of_table_rows_equal_the_formula_in_single_precision_too() -> None:
    arguments = draw(dtype=torch.float32, queries=300)
    torch.testing.assert_close(
        deformable_attention(*arguments, spatial_shapes=SHAPES), as_formula(*arguments), rtol=0, atol=5e-6
    )


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = draw()
    whole = deformable_attention(*arguments, spatial_shapes=SHAPES)
    monkeypatch.setattr(deform_attn, "LONGEST_PIECE", 4)
    assert torch.equal(deformable_attention(*arguments, spatial_shapes=SHAPES), whole)


@pytest.mark.parametrize("queries", [1, 4095, 4096, 4097, 8505, 30001])
def test_pieces_cover_every_query_once_in_nearly_equal_parts(queries: int) -> None:
    parts = [range(queries)[part] for part in pieces(queries)]
    assert list(itertools.chain(*parts)) == list(range(queries))
    assert len(parts) == math.ceil(queries / deform_attn.LONGEST_PIECE)
    assert max(map(len, parts)) <= deform_attn.LONGEST_PIECE


def test_frames_do_not_see_each_other() -> None:
    value, locations, weights = draw()
    together = deformable_attention(value, locations, weights, spatial_shapes=SHAPES)
    for i in range(2):
        one = slice(i, i + 1)
        alone = deformable_attention(value[one], locations[one], weights[one], spatial_shapes=SHAPES)
        assert torch.equal(together[one], alone)


def test_map_borders_do_not_leak_into_each_other() -> None:
    value, locations, weights = draw()
    value = torch.ones_like(value)
    outside = torch.tensor([-0.3, 0.5, 1.3])
    for x, y in itertools.product(outside, outside):
        if (x, y) != (0.5, 0.5):  # at least half a pixel beyond a border, on some side
            far = torch.stack([x, y]).double() * 4 - 1.5
            got = deformable_attention(value, far.expand_as(locations), weights, spatial_shapes=SHAPES)
            assert not got.any()


def test_weights_and_values_enter_linearly() -> None:
    value, locations, weights = draw()
    attend = lambda v, w: deformable_attention(v, locations, w, spatial_shapes=SHAPES)  # noqa: E731
    torch.testing.assert_close(attend(3 * value, weights), 3 * attend(value, weights))
    torch.testing.assert_close(
        attend(value, weights) + attend(value, weights.flip(1)), attend(value, weights + weights.flip(1))
    )


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan, 1e30, -1e30, 3e9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_locations_beyond_all_bounds_harm_only_their_own_query(bad: float, dtype: torch.dtype) -> None:
    value, locations, weights = draw(dtype=dtype)
    expected = deformable_attention(value, locations, weights, spatial_shapes=SHAPES)
    locations[0, 3, 1, :, :, 0] = bad
    locations[1, 5, 2, 0] = bad
    got = deformable_attention(value, locations, weights, spatial_shapes=SHAPES).unflatten(2, (3, -1))
    if math.isnan(bad):
        assert got[0, 3, 1].isnan().all()
    else:
        assert not got[0, 3, 1].any()
    got[0, 3, 1], got[1, 5, 2] = 0, 0
    expected = expected.unflatten(2, (3, -1))
    expected[0, 3, 1], expected[1, 5, 2] = 0, 0
    assert torch.equal(got, expected)


@pytest.mark.golden
def test_is_the_reference_operation(golden: GoldenFolders) -> None:
    stored = Golden(golden / "ops/ms_deform_attn.npz")
    shapes = [(height, width) for height, width in stored.tensor("spatial_shapes").tolist()]
    names = ("value", "sampling_locations", "attention_weights")
    for dtype, name, limit in ((torch.float32, "core_out", 2e-6), (torch.float64, "core_out_f64", 1e-12)):
        value, locations, weights = (stored.tensor(key).to(dtype) for key in names)
        stored.check(name, deformable_attention(value, locations, weights, spatial_shapes=shapes), rtol=limit)
        value.requires_grad_()
        stored.check(name, deformable_attention(value, locations, weights, spatial_shapes=shapes), rtol=limit)


def test_gradients_are_right() -> None:
    arguments = tuple(tensor.requires_grad_() for tensor in draw(n=1, queries=2, heads=2, points=1, depth=2))
    attend = lambda *tensors: deformable_attention(*tensors, spatial_shapes=SHAPES)  # noqa: E731
    assert torch.autograd.gradcheck(attend, arguments)


def test_half_precision_values_are_sampled_at_full_precision_locations() -> None:
    value, locations, weights = draw(dtype=torch.float32)
    got = deformable_attention(value.bfloat16(), locations, weights, spatial_shapes=SHAPES)
    assert got.dtype == torch.bfloat16
    exact = deformable_attention(value.bfloat16().float(), locations, weights, spatial_shapes=SHAPES)
    assert torch.equal(got, exact.bfloat16())


def test_tables_are_for_plain_cpu_inference_in_types_that_count_their_rows() -> None:
    x = torch.zeros(2, 3)
    assert may_gather(x, heads=8, spatial_shapes=SHAPES)
    assert not may_gather(x.bfloat16(), heads=8, spatial_shapes=SHAPES)
    assert not may_gather(x, x.double(), heads=8, spatial_shapes=SHAPES)
    assert not may_gather(x[:0], heads=8, spatial_shapes=SHAPES)
    assert not may_gather(x.requires_grad_(), heads=8, spatial_shapes=SHAPES)
    assert not may_gather(torch.zeros(1), heads=8, spatial_shapes=[(2048, 2048)])
    assert may_gather(torch.zeros(1).double(), heads=8, spatial_shapes=[(2048, 2048)])


def test_a_table_holds_every_pixel_once_and_zeros_around_each_map() -> None:
    rows = sum(height * width for height, width in SHAPES)
    value = torch.arange(1.0, rows * 2 + 1).view(rows, 2, 1)
    table = lay_out(value, spatial_shapes=SHAPES, points=1)
    stored = table.rows.view(-1)
    assert sorted(stored[stored > 0].tolist()) == value.flatten().tolist()
    corner = gather(table, torch.zeros(1, 2, 6), torch.eye(6)[:1])  # head 0, first map, first pixel
    assert corner.tolist() == [[1.0, 0.0]]
    for shift in ([-1.0, 0.0], [0.0, -1.0], [7.0, 0.0], [0.0, 5.0]):
        beyond = torch.tensor(shift).view(1, 2, 1).expand(-1, -1, 6)
        assert not gather(table, beyond, torch.ones(1, 6)).any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda v, x, w: (v, x, w[:1]), ShapeError, "weights: .* with n=2 from value"),
        (lambda v, x, w: (v[:, 1:], x, w), ShapeError, "value: expected s=26 .*, got 25"),
        (lambda v, x, w: (v, x[:, :, :, 1:], w[:, :, :, 1:]), ShapeError, "locations: expected 3 levels .*, got 2"),
        (lambda v, x, w: (v, x[..., :1], w), ShapeError, "locations: expected"),
        (lambda v, x, w: (v[0], x, w), ShapeError, "value: expected"),
        (lambda v, x, w: (v.numpy(), x, w), DTypeError, "value: expected a torch.Tensor"),
    ],
)
def test_sizes_that_do_not_agree_are_refused(
    change: Callable[..., tuple], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        deformable_attention(*change(*draw()), spatial_shapes=SHAPES)


@pytest.mark.cuda
def test_cuda_gives_what_the_cpu_gives() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    arguments = draw()
    got = deformable_attention(*(tensor.cuda() for tensor in arguments), spatial_shapes=SHAPES)
    torch.testing.assert_close(got.cpu(), deformable_attention(*arguments, spatial_shapes=SHAPES), rtol=0, atol=1e-12)
