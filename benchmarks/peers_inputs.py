"""Inputs of the comparison, drawn by seed: photographs that pan, label maps of smooth regions, wrong blobs in them."""

from __future__ import annotations

import numpy as np
import torch
from skimage.data import astronaut
from torch import Tensor
from torch.nn import functional

Size = tuple[int, int]
VIDEO: Size = (480, 853)


def photograph(size: Size) -> Tensor:
    """scikit-image's astronaut (it comes with the package) at a size, uint8 ``(3, H, W)``."""
    picture = torch.from_numpy(astronaut()).permute(2, 0, 1)[None].float()
    resized = functional.interpolate(picture, size=size, mode="bicubic", align_corners=False)
    return resized[0].round().clamp(0, 255).to(torch.uint8)


SMOOTH, BUSY = (4, 7), (12, 20)
"""Rows and columns of the noise that regions are drawn from. With 124 classes at 480p the smooth ones are some 120
regions, and 1.8% of the pixels are unlike their left neighbour (CamVid's street scenes at this width: 1.3%); the busy
ones are 1,100 and 5.4%."""


def regions(size: Size, *, num_classes: int, seed: int, grid: Size = SMOOTH) -> Tensor:
    """A label map of regions with smooth borders, uint8 ``(H, W)``."""
    gen = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, num_classes, *grid, generator=gen)
    parts = [functional.interpolate(part, size=size, mode="bicubic") for part in coarse.split(8, dim=1)]
    return torch.cat(parts, dim=1)[0].argmax(dim=0).to(torch.uint8)


def with_blobs(labels: Tensor, *, number: int, side: int, num_classes: int, seed: int) -> Tensor:
    """The same label maps ``(T, H, W)`` with so many squares of a wrong class in each."""
    rng = np.random.default_rng(seed)
    labels = labels.clone()
    height, width = labels.shape[-2:]
    for item in labels:
        for _ in range(number):
            top, left = rng.integers(0, height - side), rng.integers(0, width - side)
            item[top : top + side, left : left + side] = int(rng.integers(0, num_classes))
    return labels


def pan(picture: Tensor, *, frames: int, size: Size, step: tuple[int, int] = (1, 3)) -> Tensor:
    """Windows ``(T, ..., H, W)`` that move over a picture by so many rows and columns a frame."""
    height, width = size
    return torch.stack(
        [
            picture[..., t * step[0] : t * step[0] + height, t * step[1] : t * step[1] + width].contiguous()
            for t in range(frames)
        ]
    )


def moving_scene(frames: int, *, size: Size, num_classes: int) -> tuple[Tensor, dict[str, Tensor]]:
    """A camera that pans over a photograph, and two label videos that follow it, one with more flicker."""
    canvas = (size[0] + frames, size[1] + 3 * frames)
    video = pan(photograph(canvas), frames=frames, size=size)
    labels = pan(regions(canvas, num_classes=num_classes, seed=4), frames=frames, size=size)
    side = max(2, size[0] // 40)
    return video, {
        name: with_blobs(labels, number=number, side=side, num_classes=num_classes, seed=number)
        for name, number in (("steady", 10), ("flicker", 40))
    }


def smooth_masks(number: int, *, size: Size, seed: int) -> Tensor:
    """Mask logits of some extent, not of noise, ``(1, Q, H, W)``."""
    gen = torch.Generator().manual_seed(seed)
    coarse = 4 * torch.randn(1, number, 15, 27, generator=gen)
    return functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
