"""Videos in memory whose pixels say where they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Filmed:
    """A video in memory."""

    name: str
    frames: Tensor
    labels: Tensor | None


def position_video(length: int = 12, *, name: str = "a", height: int = 40, width: int = 56) -> Filmed:
    """Every pixel says where it is: red its column, green its row, blue its frame; its label its row plus column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frames = torch.stack([torch.stack((columns, rows, torch.full_like(rows, time))) for time in range(length)])
    return Filmed(name, frames.to(torch.uint8), ((rows + columns) % 200).expand(length, -1, -1).to(torch.uint8))
