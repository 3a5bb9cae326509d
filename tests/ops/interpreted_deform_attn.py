"""The kernels of deformable attention in Triton's interpreter; ``test_deform_attn_triton`` runs this file.

The interpreter is chosen before Triton is imported, hence the process of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from mvcseg.errors import ShapeError
from mvcseg.models.layers.deformable import DeformableAttention
from mvcseg.ops import deform_attn_triton
from mvcseg.ops.deform_attn import deformable_attention
from mvcseg.ops.deform_attn_formula import by_formula
from mvcseg.ops.deform_attn_triton import launch

Shapes = list[tuple[int, int]]
THREE: Shapes = [(5, 3), (1, 7), (4, 1)]
TINY: Shapes = [(2, 3), (1, 2)]


def draw(
    shapes: Shapes = THREE,
    *,
    n: int = 1,
    queries: int = 3,
    heads: int = 2,
    points: int = 2,
    depth: int = 5,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """Values, locations from well outside to well inside, weights; all want a gradient."""
    generator = torch.Generator().manual_seed(1)
    rows, levels = sum(height * width for height, width in shapes), len(shapes)
    value = torch.randn(n, rows, heads, depth, generator=generator, dtype=torch.float64)
    locations = 3 * torch.rand(n, queries, heads, levels, points, 2, generator=generator, dtype=torch.float64) - 1
    weights = torch.rand(n, queries, heads, levels, points, generator=generator, dtype=torch.float64)
    return [tensor.to(dtype).requires_grad_() for tensor in (value, locations, weights)]


def leaves(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def check_against_formula(tensors: list[Tensor], shapes: Shapes, *, limit: float) -> None:
    """Output and the three gradients, held against the formula in float64."""
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    expected, got = by_formula(*exact, shapes), launch(*tensors, spatial_shapes=shapes)
    assert got.dtype == tensors[0].dtype
    assert got.is_contiguous()
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    slope = slope.to(got.dtype).double()
    expected_gradients = torch.autograd.grad(expected, exact, slope)
    gradients = torch.autograd.grad(got, tensors, slope.to(got.dtype))
    for ours, theirs, like in zip([got, *gradients], [expected, *expected_gradients], [got, *tensors], strict=True):
        assert (ours.dtype, ours.shape) == (like.dtype, like.shape)
        assert theirs.abs().max() > 0.1
        torch.testing.assert_close(ours.double(), theirs, rtol=limit, atol=limit * theirs.abs().max().item())


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The CPU as a device that runs Triton; names of the kernels launched, as they come."""
    names = []
    run = deform_attn_triton._run

    def recorded(kernel: str, *args: object) -> None:
        names.append(kernel)
        run(kernel, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(deform_attn_triton, "_run", recorded)
    monkeypatch.setattr(deform_attn_triton, "triton_is_usable", lambda device: True)
    return names


@pytest.mark.parametrize(
    ("shapes", "sizes"),
    [
        (THREE, {"n": 2, "heads": 1, "depth": 5}),
        ([(3, 4), (2, 2), (1, 5), (6, 1)], {"queries": 2, "heads": 1, "points": 1, "depth": 3}),  # the most maps
        ([(4, 6)], {"queries": 17, "heads": 2, "points": 4, "depth": 32}),  # two programs a head; ViT-Adapter
        ([(2, 3), (4, 6), (8, 12)], {"queries": 2, "heads": 8, "points": 4, "depth": 32}),  # the pixel decoder
        ([(1, 1)], {"queries": 4, "heads": 2, "points": 1, "depth": 1}),
    ],
)
def test_equals_the_formula_in_float32(shapes: Shapes, sizes: dict[str, int]) -> None:
    check_against_formula(draw(shapes, **sizes), shapes, limit=2e-5)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 4e-3), (torch.float16, 5e-4), (torch.float64, 1e-12)])
def test_equals_the_formula_up_to_the_type_of_the_results(dtype: torch.dtype, limit: float) -> None:
    check_against_formula(draw(dtype=dtype), THREE, limit=limit)


@pytest.mark.parametrize(  # not bfloat16 with float64, which the interpreter itself converts wrongly
    "types", [(torch.bfloat16, torch.float32, torch.float16), (torch.float32, torch.float64, torch.float16)]
)
def test_types_may_differ(types: tuple[torch.dtype, ...]) -> None:
    tensors = leaves([tensor.to(dtype) for tensor, dtype in zip(draw(), types, strict=True)])
    check_against_formula(tensors, THREE, limit=4e-3)


def test_offsets_of_64_bits_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deform_attn_triton, "INT32_NUMBERS", 0)
    check_against_formula(draw(), THREE, limit=2e-5)


def test_tensors_need_not_be_contiguous() -> None:
    value, locations, weights = (tensor.detach() for tensor in draw(n=2))
    strided = [
        value.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0),
        locations.flip(-1).transpose(0, 1).contiguous().transpose(0, 1).flip(-1).expand_as(locations),
        torch.stack([weights, -weights], dim=-1)[..., 0],
    ]
    assert not any(tensor.is_contiguous() for tensor in strided[::2])
    expected = launch(value, locations, weights, spatial_shapes=THREE)
    assert torch.equal(launch(*strided, spatial_shapes=THREE), expected)
    got = launch(*(tensor.requires_grad_() for tensor in strided), spatial_shapes=THREE)
    gradients = torch.autograd.grad(got.transpose(0, 2).square().sum(), strided)
    plain = leaves([value, locations, weights])
    expected_gradients = torch.autograd.grad(launch(*plain, spatial_shapes=THREE).square().sum(), plain)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("sizes", [{"n": 0}, {"queries": 0}])
def test_nothing_in_gives_nothing_out_and_zeros_back(sizes: dict[str, int]) -> None:
    tensors = draw(**sizes)
    out = launch(*tensors, spatial_shapes=THREE)
    assert out.shape == (sizes.get("n", 1), sizes.get("queries", 3), 10)
    gradients = torch.autograd.grad(out.sum(), tensors)
    assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("bad", [math.inf, math.nan, -1e30, 3e9])
def test_locations_beyond_all_bounds_harm_only_their_own_query(bad: float) -> None:
    value, locations, weights = (tensor.detach() for tensor in draw())
    clean = leaves([value, locations, weights])
    locations[0, 1, 1, :, :, 0] = bad
    harmed = leaves([value, locations, weights])
    expected = launch(*clean, spatial_shapes=THREE).unflatten(2, (2, -1))
    got = launch(*harmed, spatial_shapes=THREE).unflatten(2, (2, -1))
    assert got[0, 1, 1].isnan().all() if math.isnan(bad) else not got[0, 1, 1].any()
    others = torch.ones(1, 3, 2, 1, dtype=torch.bool)
    others[0, 1, 1] = False
    assert torch.equal(got.where(others, 0), expected.where(others, 0))
    gradients = torch.autograd.grad(got.sum(), harmed)
    expected_gradients = torch.autograd.grad(expected.where(others, 0).sum(), clean)
    torch.testing.assert_close(gradients[0], expected_gradients[0])  # no value was read, none is blamed
    for ours, theirs in zip(gradients[1:], expected_gradients[1:], strict=True):
        mask = others.view(1, 3, 2, *[1] * (ours.ndim - 3))
        torch.testing.assert_close(ours.where(mask, 0), theirs)
        assert math.isnan(bad) or not ours.where(~mask, 0).any()


def test_nothing_outside_a_map_is_read() -> None:
    heads, depth, rows = 2, 3, sum(height * width for height, width in THREE)
    buffer = torch.full((3, rows, heads, depth), math.nan)
    buffer[1] = 1
    _, locations, weights = draw(heads=heads, depth=depth, queries=40)
    locations = (locations * 2 - 0.5).detach()
    assert launch(buffer[1:2], locations, weights, spatial_shapes=THREE).isfinite().all()
    for level, start in enumerate((0, 15, 22)):  # nor another map
        alone = torch.full((1, rows, heads, depth), math.nan)
        alone[:, start : start + math.prod(THREE[level])] = 1
        got = launch(alone, locations[:, :2], weights[:, :2].where(torch.tensor(0.0) > 1, 0), spatial_shapes=THREE)
        assert got.isnan().any()  # a weight of zero does not hide what is read
        only = locations[:, :2].clone()
        only[:, :, :, [other for other in range(3) if other != level]] = 9
        assert launch(alone, only, weights[:, :2], spatial_shapes=THREE).isfinite().all()


def test_gradients_are_right() -> None:
    tensors = draw(TINY, queries=1, points=1, depth=2, dtype=torch.float64)
    attend = lambda *each: launch(*each, spatial_shapes=TINY)  # noqa: E731
    assert torch.autograd.gradcheck(attend, tensors, fast_mode=True)


def test_gradients_have_gradients() -> None:
    ours = draw(TINY, points=1, dtype=torch.float64)
    theirs = leaves(ours)
    seconds = []
    for tensors, out in ((ours, launch(*ours, spatial_shapes=TINY)), (theirs, by_formula(*theirs, TINY))):
        firsts = torch.autograd.grad(out.square().sum(), tensors, create_graph=True)
        seconds.append([*firsts, *torch.autograd.grad(sum(first.square().sum() for first in firsts), tensors)])
    for ours_second, theirs_second in zip(*seconds, strict=True):
        torch.testing.assert_close(ours_second, theirs_second)


def test_a_gradient_may_be_wanted_of_one_tensor_only(launched: list[str]) -> None:
    value, locations, weights = draw()
    out = launch(value.detach(), locations, weights.detach(), spatial_shapes=THREE)
    assert torch.autograd.grad(out.sum(), locations, create_graph=True)[0].requires_grad
    (got,) = torch.autograd.grad(out.sum(), locations)
    tensors = draw()
    (expected,) = torch.autograd.grad(by_formula(*tensors, THREE).sum(), tensors[1])
    torch.testing.assert_close(got, expected)
    assert launched == ["gather", "scatter"]


def test_the_operators_keep_pytorchs_rules() -> None:
    tensors = draw(TINY, points=1)
    sides = [side for shape in TINY for side in shape]
    torch.library.opcheck(torch.ops.mvcseg.deformable_attention.default, (*tensors, sides))
    grad = torch.ones(1, 3, 10)
    plain = [tensor.detach() for tensor in tensors]
    torch.library.opcheck(torch.ops.mvcseg.deformable_attention_backward.default, (grad, *plain, sides))


def test_the_kernels_are_chosen_with_and_without_a_gradient(launched: list[str]) -> None:
    tensors = draw(dtype=torch.bfloat16)  # a type that no other shortcut on the CPU takes
    with torch.no_grad():
        deformable_attention(*tensors, spatial_shapes=THREE)
    deformable_attention(*tensors, spatial_shapes=THREE).sum().backward()
    assert launched == ["gather", "gather", "scatter"]


class Watched(Tensor):
    pass


def with_forward_derivative(attend: Callable[..., Tensor], *tensors: Tensor) -> object:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(tensors[0], torch.ones_like(tensors[0]))
        tangent = forward_ad.unpack_dual(attend(dual, *tensors[1:])).tangent
        assert tangent is not None
    return tangent


def with_deterministic_algorithms(attend: Callable[..., Tensor], *tensors: Tensor) -> object:
    torch.use_deterministic_algorithms(True)
    try:
        return attend(*tensors)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
@pytest.mark.parametrize(
    "use",
    [
        with_forward_derivative,
        with_deterministic_algorithms,
        lambda attend, *tensors: torch.func.grad(lambda value: attend(value, *tensors[1:]).sum())(tensors[0]),
        lambda attend, *tensors: torch.jit.trace(attend, tuple(each.detach() for each in tensors), check_trace=False),
        lambda attend, *tensors: attend(tensors[0].as_subclass(Watched), *tensors[1:]),
        lambda attend, *tensors: torch.export.export(AsModule(attend), tuple(each.detach() for each in tensors)),
    ],
    ids=["forward derivative", "deterministic", "torch.func", "trace", "subclass", "export"],
)
def test_the_formula_serves_what_the_kernels_cannot(launched: list[str], use: Callable[..., object]) -> None:
    tensors = draw()
    use(lambda *each: deformable_attention(*each, spatial_shapes=THREE), *tensors)
    assert launched == []


def test_an_exported_graph_holds_plain_operators(launched: list[str]) -> None:
    module = AsModule(lambda *each: deformable_attention(*each, spatial_shapes=THREE))
    program = torch.export.export(module, tuple(tensor.detach() for tensor in draw()))
    names = [str(node.target) for node in program.graph.nodes]
    assert any("grid_sampler" in name for name in names)
    assert not any("mvcseg" in name for name in names)


class AsModule(torch.nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return self.function(value, locations, weights)


def test_deterministic_algorithms_take_the_kernel_where_no_gradient_flows(launched: list[str]) -> None:
    tensors = draw(dtype=torch.bfloat16)
    with torch.no_grad():
        with_deterministic_algorithms(lambda *each: deformable_attention(*each, spatial_shapes=THREE), *tensors)
    assert launched == ["gather"]


def test_more_maps_than_the_kernels_take_go_to_the_formula(launched: list[str]) -> None:
    shapes = [(1, 2)] * 5
    deformable_attention(*draw(shapes), spatial_shapes=shapes)
    assert launched == []


@pytest.mark.parametrize("shapes", [[*THREE, (1, 1)], THREE[1:], [(1, 2)] * 5])
def test_maps_that_do_not_fit_are_refused_before_anything_is_read(shapes: Shapes) -> None:
    tensors = draw(shapes if len(shapes) > 4 else THREE)
    with pytest.raises(ShapeError, match="sides: expected"):
        launch(*tensors, spatial_shapes=shapes)


def test_a_compiled_graph_holds_the_operator_and_its_gradient(launched: list[str]) -> None:
    function = lambda *each: 2 * deformable_attention(*each, spatial_shapes=THREE)  # noqa: E731
    tensors, others = draw(), draw()
    got = torch.compile(function, backend="aot_eager", fullgraph=True)(*tensors)
    gradients = torch.autograd.grad(got.sum(), tensors)
    assert launched == ["gather", "scatter"]
    expected = 2 * by_formula(*others, THREE)
    torch.testing.assert_close(got, expected)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected.sum(), others), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_layer_trains_under_autocast(launched: list[str]) -> None:
    torch.manual_seed(0)
    module = DeformableAttention(16, levels=2, heads=2, points=2)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    query, value = torch.randn(2, 1, 8, 16)
    points = torch.rand(1, 8, 2)
    attend = lambda: module(query, value, reference_points=points, spatial_shapes=TINY)  # noqa: E731
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = attend()
    assert got.dtype == torch.bfloat16
    got.float().square().sum().backward()
    assert launched == ["gather", "scatter"]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())
    torch.use_deterministic_algorithms(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = attend()
    torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)
    assert launched == ["gather", "scatter"]
