"""Names of a model's tensors in the published files and here, and what a file must hold for a configuration.

They agree but for the ResNet, whose names are those of timm and torchvision. ``criterion.empty_weight``, the class
weights of the training loss, is in every published file and in no model here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor, nn

from mvcseg.models.backbones import resnet
from mvcseg.models.dvis.config import DVISConfig
from mvcseg.models.dvis.parts import outline_parts

_BACKBONE = "backbone."
EMPTY_WEIGHT = "criterion.empty_weight"
NO_OBJECT_WEIGHT = 0.1
"""Weight of the no-object class in the published training loss."""

Entries = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype by name."""


def to_official(name: str, *, backbone: nn.Module) -> str:
    """The published file's name of a tensor of a model with this backbone."""
    if isinstance(backbone, resnet.ResNet) and name.startswith(_BACKBONE):
        return _BACKBONE + resnet.to_official(name.removeprefix(_BACKBONE))
    return name


def from_official(name: str, *, backbone: nn.Module) -> str:
    """The inverse of ``to_official``."""
    if isinstance(backbone, resnet.ResNet) and name.startswith(_BACKBONE):
        return _BACKBONE + resnet.from_official(name.removeprefix(_BACKBONE))
    return name


def normalised(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors under today's names, those of the training loss left out.

    ``static_query`` is what ``query_feat`` was called before.
    """
    return {
        name.replace(".static_query.", ".query_feat."): tensor
        for name, tensor in tensors.items()
        if not name.startswith("criterion.")
    }


@lru_cache(maxsize=16)
def expected_entries(config: DVISConfig) -> Entries:
    """Shape and dtype of every tensor that a file of this configuration holds, by the file's names."""
    parts = outline_parts(config)
    return {
        to_official(f"{part}.{name}", backbone=parts["backbone"]): (tuple(tensor.shape), tensor.dtype)
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def entries_of(state: Mapping[str, Tensor]) -> Entries:
    """Shape and dtype of tensors, by name."""
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}


def count_parameters(config: DVISConfig) -> int:
    """How many numbers a model of this configuration learns, those of frozen parts included."""
    parts = outline_parts(config)
    return sum(parameter.numel() for part in parts.values() for parameter in part.parameters())
