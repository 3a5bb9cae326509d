"""Votes: `mvcseg.ops.vote.majority` against `torch.mode` and `scipy.stats.mode`.

Where the mode is not unique the peers take the smallest label and we the first map's (Eq. 8 read literally): those
pixels must hold that, the others must be equal.
"""

from __future__ import annotations

from collections.abc import Iterator

import scipy.stats
import torch
from peers_inputs import VIDEO, Size, pan, regions
from peers_row import Row
from torch import Tensor

from mvcseg.ops.vote import majority

CLASSES = 124


def rows(*, device: str = "cpu", size: Size = VIDEO, views: int = 8) -> Iterator[Row]:
    for name, maps in stacks(size, views).items():
        for dtype in (torch.uint8, torch.int64):
            stack = maps.to(device, dtype)
            kind = str(dtype).removeprefix("torch.")
            about = f"vote of {views} maps, {name}, {kind}"
            yield Row(
                f"vote/{name}/{kind}/torch",
                about,
                "torch.mode",
                ours=lambda stack=stack: majority(stack, num_classes=CLASSES),
                theirs=lambda stack=stack: torch.mode(stack, dim=0).values,
                difference=lambda ours, theirs, stack=stack: misplaced(ours, theirs, stack),
                tolerance=0,
                measure="pixels off where the mode is unique, or not the first map's where it is not",
                target=6.0 if dtype == torch.uint8 else None,
            )
        if name == "moved borders":
            stack = maps
            yield Row(
                f"vote/{name}/uint8/scipy",
                f"vote of {views} maps, {name}, uint8",
                "scipy.stats.mode",
                ours=lambda stack=stack: majority(stack, num_classes=CLASSES),
                theirs=lambda stack=stack: torch.from_numpy(scipy.stats.mode(stack.numpy(), axis=0).mode),
                difference=lambda ours, theirs, stack=stack: misplaced(ours, theirs, stack),
                tolerance=0,
                measure="pixels off where the mode is unique, or not the first map's where it is not",
                turns=5,
                devices=("cpu",),
            )


def stacks(size: Size, views: int) -> dict[str, Tensor]:
    """Random labels; maps that agree but for noise; maps of views, that differ along borders: ``(V, H, W)`` uint8."""
    gen = torch.Generator().manual_seed(0)
    noise = torch.randint(0, CLASSES, (views, *size), generator=gen, dtype=torch.uint8)
    shapes = regions((size[0] + views, size[1] + 3), num_classes=CLASSES, seed=1)
    views_of = torch.stack([shapes[v : v + size[0], v % 3 : v % 3 + size[1]] for v in range(views)])
    still = pan(shapes, frames=1, size=size)
    return {
        "random": noise,
        "5% noise": torch.where(torch.rand(noise.shape, generator=gen) < 0.05, noise, still),
        "moved borders": views_of,
    }


def misplaced(ours: Tensor, theirs: Tensor, stack: Tensor) -> float:
    """Pixels whose label is neither the unique mode nor, where several labels lead, the first map's."""
    counts = torch.stack([(stack == one).sum(dim=0) for one in stack])
    leads = counts == counts.amax(dim=0)
    is_unique = torch.where(leads, stack, 0).amax(dim=0) == torch.where(leads, stack, 255).amin(dim=0)
    return float((ours != theirs)[is_unique].sum() + (ours != stack[0])[~is_unique].sum())
