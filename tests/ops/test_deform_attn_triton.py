"""The kernels of deformable attention: interpreted, compiled for GPUs without one, and on one where it is at hand."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mvcseg.models.layers.deformable import _extents
from mvcseg.ops.deform_attn import deformable_attention
from mvcseg.ops.deform_attn_formula import by_formula
from mvcseg.ops.deform_attn_triton import may_launch
from mvcseg.ops.triton_support import disabled

HERE = Path(__file__).parent
POINTERS = {
    "value": "*{kept}",
    "locations": "*fp32",
    "weights": "*fp32",
    "out": "*{kept}",
    "grad_out": "*{kept}",
    "grad_value": "*fp32",
    "grad_locations": "*fp32",
    "grad_weights": "*fp32",
}


@pytest.mark.timeout(1800)  # about 20 s of work, many times that where the cores are shared
def test_the_kernels_pass_their_tests_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "interpreted_deform_attn.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " passed" in ended.stdout


@pytest.mark.parametrize("kept", ["fp32", "bf16"])
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", ["gather", "scatter"])
def test_the_kernels_compile_to_machine_code(name: str, capability: int, kept: str) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the interpreter was asked for, which compiles nothing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Triton's own, about its coming releases
        code = machine_code(name, capability=capability, kept=kept)
    assert code["cubin"].startswith(b"\x7fELF")
    ptx = code["ptx"]
    assert f".target sm_{capability}" in ptx
    assert "ld.local" not in ptx
    assert ("red.global" in ptx or "atom.global" in ptx) == (name == "scatter")


def machine_code(name: str, *, capability: int, kept: str) -> dict:
    """What Triton makes of a kernel at the pixel decoder's sizes."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mvcseg.ops._triton import deform_attn as kernels

    kernel = getattr(kernels, name)
    constants = {"HEADS": 8, "LEVELS": 3, "POINTS": 4, "DEPTH": 32, "BLOCK_Q": 16, "BLOCK_D": 32}
    constants |= {"EXACT": tl.float32, "INDEX": tl.int32}
    types = {each: POINTERS[each].format(kept=kept) if each in POINTERS else "i32" for each in kernel.arg_names}
    if "constexprs" in inspect.signature(ASTSource).parameters:
        signature = {each: "constexpr" if each in constants else kind for each, kind in types.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    else:  # before Triton 3.3
        signature = {each: kind for each, kind in types.items() if each not in constants}
        source = ASTSource(fn=kernel, signature=signature, constants=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4}).asm


def draw(shapes: list[tuple[int, int]], *, queries: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    rows, levels = sum(height * width for height, width in shapes), len(shapes)
    value = torch.randn(2, rows, 8, 32, generator=generator).to(dtype)
    locations = 1.4 * torch.rand(2, queries, 8, levels, 4, 2, generator=generator) - 0.2
    weights = torch.rand(2, queries, 8, levels, 4, generator=generator)
    return [tensor.to(device).requires_grad_() for tensor in (value, locations, weights)]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_other_devices_keep_plain_pytorch(device: str) -> None:
    assert not may_launch(*draw([(2, 3)], queries=2, dtype=torch.float32, device=device), levels=1)


def test_extents_made_on_the_device_are_those_made_on_the_host() -> None:
    shapes = [(2, 3), (4, 5)]
    on_device = _extents(shapes, like=torch.zeros((), device="meta"))
    on_host = _extents(shapes, like=torch.zeros(()))
    assert (on_device.shape, on_device.dtype) == (on_host.shape, on_host.dtype)
    assert on_host.tolist() == [[3, 2], [5, 4]]


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 2e-5), (torch.bfloat16, 5e-3)])
@pytest.mark.parametrize("shapes", [[(15, 27), (30, 54), (60, 108)], [(1, 7)]])
def test_a_gpu_gives_the_formulas_numbers(shapes: list[tuple[int, int]], dtype: torch.dtype, limit: float) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    tensors = draw(shapes, queries=301, dtype=dtype, device="cuda")
    assert may_launch(*tensors, levels=len(shapes))
    with disabled():
        assert not may_launch(*tensors, levels=len(shapes))
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    got, expected = deformable_attention(*tensors, spatial_shapes=shapes), by_formula(*exact, shapes)
    slope = torch.randn_like(got)
    gradients = torch.autograd.grad(got, tensors, slope)
    expected_gradients = torch.autograd.grad(expected, exact, slope.double())
    for ours, theirs in zip([got, *gradients], [expected, *expected_gradients], strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=limit, atol=limit * theirs.abs().max().item())
    with torch.no_grad():
        again = deformable_attention(*tensors, spatial_shapes=shapes)
    assert torch.equal(again, got)
