from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mvcseg.ops.shortcut import may_shortcut


def test_plain_tensors_and_parameters_on_the_cpu_may() -> None:
    assert may_shortcut(torch.zeros(2), torch.zeros(3))
    with torch.no_grad():
        assert may_shortcut(nn.Parameter(torch.zeros(2)))
    with torch.inference_mode():
        assert may_shortcut(nn.Parameter(torch.zeros(2)))


def test_what_needs_a_gradient_may_not() -> None:
    assert not may_shortcut(torch.zeros(2), nn.Parameter(torch.zeros(2)))


def test_other_devices_may_not() -> None:
    assert not may_shortcut(torch.zeros(2), torch.zeros(2, device="meta"))


def test_autocast_may_not() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not may_shortcut(torch.zeros(2))
        with torch.autocast("cpu", enabled=False):
            assert may_shortcut(torch.zeros(2))


def test_a_subclass_that_watches_may_not() -> None:
    class Watched(Tensor):
        pass

    assert not may_shortcut(torch.zeros(2).as_subclass(Watched))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
def test_traces_and_compiled_graphs_may_not() -> None:
    def double_if_eager(x: Tensor) -> Tensor:
        return 2 * x if may_shortcut(x) else 1 * x

    assert double_if_eager(torch.ones(1)) == 2
    assert torch.jit.trace(double_if_eager, torch.ones(1), check_trace=False)(torch.ones(1)) == 1
    assert torch.compile(double_if_eager, backend="eager", fullgraph=True)(torch.ones(1)) == 1
