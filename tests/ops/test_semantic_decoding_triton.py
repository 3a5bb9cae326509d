"""The kernel in Triton's interpreter, which must be chosen before Triton is imported: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mvcseg.ops import semantic_decoding_triton
from mvcseg.ops.semantic_decoding import score_strips, strip_labels
from mvcseg.ops.semantic_decoding_triton import can_decode, kernel_labels

pytest.importorskip("triton")

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not IS_INTERPRETED, reason="runs in the process of test_in_the_interpreter")
compiled = pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter compiles nothing")

SIZE = (13, 25)


def draw(queries: int, classes: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 * queries + classes)
    masks = (4 * torch.randn(5, 8, queries, generator=generator)).to(dtype)
    return masks, torch.randn(queries, classes + 1, generator=generator).softmax(dim=-1)[:, :-1]


def assert_labels_are_the_strips(masks: Tensor, table: Tensor, output_size: tuple[int, int]) -> Tensor:
    """Equal where the best two scores differ by more than rounding, which is nearly everywhere."""
    labels, is_number = kernel_labels(masks, table, size=SIZE, output_size=output_size)
    expected, _ = strip_labels(masks, table, size=SIZE, output_size=output_size)
    strips = score_strips(masks, table, size=SIZE, output_size=output_size)
    scores = torch.cat([scores for _, scores in strips])
    chosen, best = (scores.gather(-1, index.long()[..., None]) for index in (labels, expected))
    is_equal = labels == expected
    is_close = ((best - chosen) <= 1e-5 * best).squeeze(-1)
    assert labels.dtype == torch.uint8
    assert (is_equal | is_close).all()
    assert is_equal.float().mean() > 0.99
    assert is_number
    return labels


@compiled
def test_in_the_interpreter() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).resolve())],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed" in run.stdout


@interpreted
@pytest.mark.parametrize(("queries", "classes"), [(100, 124), (7, 1), (33, 255), (16, 16)])
@pytest.mark.parametrize("output_size", [SIZE, (9, 34)])
def test_labels_are_those_of_the_strips(queries: int, classes: int, output_size: tuple[int, int]) -> None:
    labels = assert_labels_are_the_strips(*draw(queries, classes), output_size)
    assert len(labels.unique()) >= min(classes, 4)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masks_of_half_precision_are_computed_in_float32(dtype: torch.dtype) -> None:
    assert_labels_are_the_strips(*draw(20, 9, dtype), SIZE)


@interpreted
def test_masks_and_table_need_not_be_contiguous() -> None:
    masks, table = draw(20, 9)
    assert_labels_are_the_strips(masks.permute(2, 0, 1).contiguous().permute(1, 2, 0), table.t().clone().t(), (17, 11))


@interpreted
def test_of_equal_scores_the_lowest_class_wins() -> None:
    masks, table = draw(20, 9)
    table[:, 5] = table[:, 3] = table.amax(dim=1)
    labels, _ = kernel_labels(masks, table, size=SIZE, output_size=SIZE)
    assert torch.equal(labels, torch.full(SIZE, 3, dtype=torch.uint8))


@interpreted
@pytest.mark.parametrize("output_size", [SIZE, (15, 20)])
@pytest.mark.parametrize("place", [(0, 0, 2), (3, 6, 19)])
def test_one_nan_anywhere_is_reported(place: tuple[int, int, int], output_size: tuple[int, int]) -> None:
    masks, table = draw(20, 9)
    assert kernel_labels(masks, table, size=SIZE, output_size=output_size)[1]
    masks[place] = torch.nan
    assert not kernel_labels(masks, table, size=SIZE, output_size=output_size)[1]


@interpreted
def test_nan_in_one_class_is_reported() -> None:
    masks, table = draw(20, 9)
    table[19, 8] = torch.nan
    assert not kernel_labels(masks, table, size=SIZE, output_size=SIZE)[1]


@interpreted
def test_nan_in_the_padding_is_not_seen() -> None:
    masks, table = draw(20, 9)
    masks[4], masks[:, 7] = torch.nan, torch.nan
    assert kernel_labels(masks, table, size=SIZE, output_size=SIZE)[1]


@compiled
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("is_resized", [False, True])
@pytest.mark.parametrize("classes", [1, 124, 255])
def test_the_kernel_compiles_within_a_gpus_limits(capability: int, is_resized: bool, classes: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mvcseg.ops._triton.semantic_decoding import decode

    numbers, options = semantic_decoding_triton._compiled_for(100, classes, is_resized=is_resized)
    types = dict.fromkeys(["masks", "table", "row_share", "column_share"], "*fp32")
    types |= dict.fromkeys(["row_low", "row_high", "column_low", "column_high"], "*i64")
    types |= {"labels": "*u8", "is_number": "*i1"} | dict.fromkeys(["height", "width", "rows", "columns"], "i32")
    source = ASTSource(
        decode,
        {name: types.get(name, "constexpr") for name in decode.arg_names},
        constexprs={(decode.arg_names.index(name),): value for name, value in numbers.items()},
    )
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert kernel.metadata.shared <= 48 * 1024
    assert ".tf32" not in kernel.asm["ptx"]


@compiled
def test_waits_for_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # tensors without data: whatever reads a value fails
    launches = []

    class Kernel:
        def __getitem__(self, grid: tuple[int, int]) -> Kernel:
            return self

        def __call__(self, *tensors: object, **numbers: object) -> None:
            launches.append(numbers)

    from mvcseg.ops._triton import semantic_decoding as kernels

    monkeypatch.setattr(kernels, "decode", Kernel())
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for such tensors
    masks, table = (tensor.to("meta") for tensor in draw(20, 9))
    for output_size in (SIZE, (30, 40)):
        for decode in (kernel_labels, strip_labels):
            labels, is_number = decode(masks, table, size=SIZE, output_size=output_size)
            assert labels.shape == output_size
            assert labels.device.type == is_number.device.type == "meta"
    assert [numbers["RESIZED"] for numbers in launches] == [False, True]


def test_what_the_kernel_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    masks, _ = draw(20, 9)
    assert not can_decode(masks, output_size=SIZE)  # on the CPU
    monkeypatch.setattr(semantic_decoding_triton, "triton_is_usable", lambda _: True)
    assert can_decode(masks, output_size=SIZE)
    assert can_decode(masks.bfloat16(), output_size=SIZE)
    assert not can_decode(masks.double(), output_size=SIZE)
    assert not can_decode(masks, output_size=(1 << 16, 1 << 15))


@compiled
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("output_size", [SIZE, (17, 51)])
def test_labels_on_a_gpu_are_those_of_the_strips(output_size: tuple[int, int]) -> None:
    masks, table = (tensor.cuda() for tensor in draw(100, 124))
    if not can_decode(masks, output_size=output_size):
        pytest.skip("Triton does not run here")
    assert_labels_are_the_strips(masks, table, output_size)
