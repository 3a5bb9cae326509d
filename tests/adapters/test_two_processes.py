"""Query models in two processes: gradients are those of one process with the same clips."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from tiny_transformers import tiny_net
from torch import Tensor, distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from mvcseg.adapters import from_transformers, set_objective


def gradients(kind: str, *, rank: int, count: int, store: str | None = None) -> dict[str, Tensor]:
    """Of the set loss of two clips, or of this process's share of them."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    frames, labels = torch.rand(2, 2, 3, 32, 40, generator=generator), torch.zeros(2, 2, 32, 40, dtype=torch.long)
    labels[0, :, 10:], labels[1, :, :, 20:] = 1, 2
    segmenter = from_transformers(tiny_net(kind)).train()
    objective = set_objective(segmenter, num_points=32)
    objective = objective.for_step(size=objective.size(labels) / count, progress=0.0)
    mine = slice(rank * 2 // count, (rank + 1) * 2 // count)
    own = [torch.Generator().manual_seed(seed) for seed in (1, 2)][mine]
    entered = segmenter if store is None else DistributedDataParallel(segmenter)
    objective.with_generators(own)(entered, frames[mine], labels[mine]).backward()
    return {name: one.grad for name, one in segmenter.named_parameters() if one.grad is not None}


def work(rank: int, kind: str, folder: str) -> None:
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    mine = gradients(kind, rank=rank, count=2, store=store)
    torch.save(mine, Path(folder, f"{rank}.pt"))
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["videomt"])
def test_gradients_of_two_processes_are_those_of_one(kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, args=(kind, folder), nprocs=2)
        shared = [torch.load(Path(folder, f"{rank}.pt"), weights_only=True) for rank in (0, 1)]
    alone = gradients(kind, rank=0, count=1)
    assert shared[0].keys() == shared[1].keys() == alone.keys()
    for name, gradient in alone.items():
        scale = gradient.abs().max() + 1e-4
        for one in shared:
            assert ((one[name] - gradient).abs().max() / scale) < 1e-3, name
