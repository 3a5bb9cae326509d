"""Deformable attention by kernels in Triton: the samples' sum without the samples in memory, and its gradients.

The quantity, its arguments and its conventions are those of ``mvcseg.ops.deform_attn``, which chooses between this and
the formula in plain PyTorch; sums are kept in float32 at least, whatever the arguments' types. The kernels are
operators of PyTorch's (``torch.ops.mvcseg``), so that autograd and ``torch.compile`` know them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mvcseg.errors import ShapeError
from mvcseg.ops.deform_attn_formula import by_formula
from mvcseg.ops.triton_support import triton_is_usable

MOST_LEVELS = 4
"""Most maps that the kernels can sample from."""
WARPS = 4
"""Groups of 32 threads in a program."""
BYTES_OF_A_THREAD = 16
"""What a thread reads at once; a program's tile is as large as its threads read so."""
INT32_NUMBERS = 2**31
"""A frame's values are addressed in int32 below this many."""


def may_launch(value: Tensor, locations: Tensor, weights: Tensor, *, levels: int) -> bool:
    """Whether the kernels may serve these tensors: of floats, on one GPU that runs Triton, with few enough maps.

    Not so where a graph is exported or traced, a tensor subclass watches, ``torch.func`` transforms or a derivative is
    carried forwards, or PyTorch was asked for deterministic algorithms and a gradient will flow: it adds up in any
    order.
    """
    tensors = (value, locations, weights)
    return (
        levels <= MOST_LEVELS
        and all(tensor.device == value.device and tensor.is_floating_point() for tensor in tensors)
        and all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
        and not _is_recorded()
        and not (torch.are_deterministic_algorithms_enabled() and _needs_gradient(tensors))
        and (torch.compiler.is_compiling() or not _is_transformed(tensors))
        and triton_is_usable(value.device)
    )


def launch(value: Tensor, locations: Tensor, weights: Tensor, *, spatial_shapes: Sequence[tuple[int, int]]) -> Tensor:
    """``deformable_attention`` of at most ``MOST_LEVELS`` maps by the kernels, with gradients for all three tensors.

    The gradient of ``value`` is added up in no fixed order, so that its last bits differ from run to run. Where the
    gradients are to have gradients (``create_graph``), they come from the formula instead.

    Args:
        value: ``(N, S, M, D)``, of any float type, as the others; what is not contiguous is copied.
        locations: ``(N, Lq, M, L, P, 2)``; infinite ones are outside the maps, NaN gives NaN.
        weights: ``(N, Lq, M, L, P)``.
        spatial_shapes: ``(height, width)`` of each map.

    Returns:
        ``(N, Lq, M * D)`` in the type of ``value``.
    """
    sides = [side for shape in spatial_shapes for side in shape]
    out: Tensor = torch.ops.mvcseg.deformable_attention(value, locations, weights, sides)
    return out


@torch.library.custom_op(
    "mvcseg::deformable_attention",
    mutates_args=(),
    schema="(Tensor value, Tensor locations, Tensor weights, int[] sides) -> Tensor",
)
def _gathered(value: Tensor, locations: Tensor, weights: Tensor, sides: list[int]) -> Tensor:
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    out: Tensor = _fake_gathered(value, locations, weights, sides)
    _run("gather", value, locations, weights, [out], sides)
    return out


@_gathered.register_fake
def _fake_gathered(value: Tensor, locations: Tensor, weights: Tensor, sides: list[int]) -> Tensor:
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


@torch.library.custom_op(
    "mvcseg::deformable_attention_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor value, Tensor locations, Tensor weights, int[] sides) -> (Tensor, Tensor, Tensor)",
)
def _gradients(
    grad: Tensor, value: Tensor, locations: Tensor, weights: Tensor, sides: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    grad, value, locations, weights = (tensor.contiguous() for tensor in (grad, value, locations, weights))
    sums = torch.zeros_like(value, dtype=_sum_type(value, locations, weights))
    of_locations, of_weights = torch.empty_like(locations), torch.empty_like(weights)
    _run("scatter", value, locations, weights, [grad, sums, of_locations, of_weights], sides)
    return sums.to(value.dtype), of_locations, of_weights


@_gradients.register_fake
def _fake_gradients(
    grad: Tensor, value: Tensor, locations: Tensor, weights: Tensor, sides: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    return value.new_empty(value.shape), locations.new_empty(locations.shape), weights.new_empty(weights.shape)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.sides = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():  # the gradients' own gradients are wanted
        return *_formula_gradients(grad, ctx.saved_tensors, ctx.sides), None
    return *torch.ops.mvcseg.deformable_attention_backward(grad, *ctx.saved_tensors, ctx.sides), None


def _formula_gradients(grad: Tensor, tensors: Sequence[Tensor], sides: list[int]) -> list[Tensor | None]:
    value, locations, weights = tensors
    out = by_formula(value, locations, weights, list(zip(sides[0::2], sides[1::2], strict=True)))
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    gradients = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return [next(gradients) if tensor.requires_grad else None for tensor in tensors]


_gathered.register_autograd(_backward, setup_context=_keep_inputs)


def _run(
    kernel: str, value: Tensor, locations: Tensor, weights: Tensor, others: list[Tensor], sides: list[int]
) -> None:
    """Launch one of the two kernels, in as many programs as it takes for all queries, heads and frames."""
    n, pixels, heads, depth = value.shape
    _, queries, _, levels, points, _ = locations.shape
    rows = sum(height * width for height, width in zip(sides[0::2], sides[1::2], strict=True))
    if rows != pixels or 2 * levels != len(sides) or levels > MOST_LEVELS:
        raise ShapeError(f"sides: expected {levels} maps of {pixels} pixels in all, {MOST_LEVELS} at most, got {sides}")
    if n * queries * heads * depth == 0:
        for tensor in others:
            tensor.zero_()
        return
    import triton.language as tl

    from mvcseg.ops._triton import deform_attn as kernels

    exact = _sum_type(value, locations, weights)
    bytes_of_a_number = (value.dtype if kernel == "gather" else exact).itemsize  # the sums are the larger tile
    block_d = 1 << (depth - 1).bit_length()
    block_q = max(1, 32 * WARPS * BYTES_OF_A_THREAD // bytes_of_a_number // block_d)
    function = getattr(kernels, kernel)
    with _on(value.device):
        function[(-(-queries // block_q) * heads * n,)](
            value,
            locations,
            weights,
            *others,
            queries,
            pixels,
            *sides,
            *[1] * (2 * MOST_LEVELS - len(sides)),
            HEADS=heads,
            LEVELS=levels,
            POINTS=points,
            DEPTH=depth,
            EXACT=tl.float64 if exact == torch.float64 else tl.float32,
            INDEX=tl.int32 if pixels * heads * depth < INT32_NUMBERS else tl.int64,
            BLOCK_Q=block_q,
            BLOCK_D=block_d,
            num_warps=WARPS,
        )


def _sum_type(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current GPU, wherever the tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _is_recorded() -> bool:
    """Whether an exported or traced graph, which other runtimes read, is being made."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return True
    is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # torch 2.6 cannot tell
    return bool(is_exporting())


def _needs_gradient(tensors: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _is_transformed(tensors: Sequence[Tensor]) -> bool:
    """Whether ``torch.func`` or forward-mode differentiation looks on, which the operators do not know."""
    return torch._C._are_functorch_transforms_active() or any(
        forward_ad.unpack_dual(tensor).tangent is not None  # type: ignore[no-untyped-call]
        for tensor in tensors
    )
