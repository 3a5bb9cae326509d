from __future__ import annotations

import pytest
import torch

from mvcseg.ops.workspace import Workspace


def test_a_step_spoils_neither_what_it_reads_nor_what_it_writes() -> None:
    memory = Workspace(torch.zeros(1))
    read = memory.next((2, 3)).fill_(1)
    written = memory.next((3, 2)).fill_(2)
    memory.spare((6,)).fill_(3)
    assert bool((read == 1).all())
    assert bool((written == 2).all())
    assert memory.next((6,)).tolist() == [3] * 6  # what was spare is next


def test_blocks_are_used_again() -> None:
    memory = Workspace(torch.zeros(1))
    places = [memory.next((10,)).data_ptr() for _ in range(3)]
    assert len(set(places)) == 3
    assert [memory.next(shape).data_ptr() for shape in [(2, 5), (3,), (1, 1, 1)]] == places
    assert memory.next((20,)).shape == (20,)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_values_are_held_contiguous_and_in_full_precision(dtype: torch.dtype, kept: torch.dtype) -> None:
    x = torch.arange(6).view(2, 3).to(dtype)
    memory = Workspace(x)
    assert (memory.hold(x) is x) is (dtype == kept)
    held = memory.hold(x.t())
    assert held.is_contiguous()
    assert held.dtype == kept
    assert torch.equal(held, x.t().to(kept))
