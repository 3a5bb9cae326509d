"""From a configuration to a model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvcseg.models.dvis.config import DVISConfig, find_config
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.parts import build_parts, outline_parts


def build_dvis(preset_or_config: str | DVISConfig) -> DVIS:
    """A model with weights drawn afresh, in eval mode, its convolutions in channels-last layout.

    Args:
        preset_or_config: a name of ``PRESETS``, or a configuration.

    Raises:
        ConfigError: the name is unknown, or the sizes fit no model.
    """
    config = find_config(preset_or_config)
    return _assemble(config, build_parts(config))


def build_empty(config: DVISConfig) -> DVIS:
    """``build_dvis`` without drawing weights: what the memory held before, to be overwritten by a checkpoint."""
    parts = outline_parts(config)
    for part in parts.values():
        part.to(memory_format=torch.channels_last)  # here: a layout changed later takes memory twice
        part._apply(_allocated)  # type: ignore[no-untyped-call]
    return _assemble(config, parts)


def _allocated(outline: Tensor) -> Tensor:
    """Memory for a tensor of the meta device; ``Module.to_empty`` imports SymPy there, 40 MiB."""
    return torch.empty_strided(outline.size(), outline.stride(), dtype=outline.dtype, device="cpu")


def _assemble(config: DVISConfig, parts: dict[str, nn.Module]) -> DVIS:
    model = DVIS(**parts, class_order=config.class_order)  # type: ignore[arg-type]
    return model.to(memory_format=torch.channels_last).eval()
