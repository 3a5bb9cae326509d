from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.ops.linear import SMALLEST_INPUT, linear

ROWS, CHANNELS = 301, 96
assert ROWS * CHANNELS > SMALLEST_INPUT


def operands(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randn(*size, generator=generator, dtype=dtype)  # noqa: E731
    return draw(*shape, CHANNELS), draw(33, CHANNELS), draw(33)


@pytest.mark.parametrize("shape", [(ROWS,), (1, ROWS), (7, 43), (2, 3, 60), (5,), (0, 4)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_equals_the_formula_for_any_leading_axes(shape: tuple[int, ...], has_bias: bool) -> None:
    x, weight, bias = operands(*shape)
    expected = functional.linear(x.double(), weight.double(), bias.double() if has_bias else None)
    got = linear(x, weight, bias if has_bias else None)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-5)


def test_rows_that_lie_apart_and_sliced_weights_are_read_rightly() -> None:
    x, weight, bias = operands(2 * ROWS)
    got = linear(x[::2], weight[5:20], bias[5:20])
    torch.testing.assert_close(got, functional.linear(x[::2], weight[5:20], bias[5:20]), rtol=0, atol=2e-5)


def test_one_thread_gives_the_same() -> None:
    x, weight, bias = operands(ROWS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.testing.assert_close(linear(x, weight, bias), x @ weight.T + bias, rtol=0, atol=2e-5)
    finally:
        torch.set_num_threads(threads)


def test_gradients_flow() -> None:
    x, weight, bias = (tensor.requires_grad_() for tensor in operands(ROWS))
    linear(x, weight, bias).square().sum().backward()
    grads = [tensor.grad.clone() for tensor in (x, weight, bias) if tensor.grad is not None]
    for tensor in (x, weight, bias):
        tensor.grad = None
    functional.linear(x, weight, bias).square().sum().backward()
    for tensor, grad in zip((x, weight, bias), grads, strict=True):
        torch.testing.assert_close(grad, tensor.grad)


def test_double_precision_stays_double() -> None:
    x, weight, bias = operands(ROWS, dtype=torch.float64)
    torch.testing.assert_close(linear(x, weight, bias), functional.linear(x, weight, bias), rtol=0, atol=0)


def test_autocast_decides_the_type() -> None:
    x, weight, bias = operands(ROWS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
