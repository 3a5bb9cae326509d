"""Keys of a configuration that its other keys leave without effect, told before the run.

They are told and not refused: one file may serve a plain run and one with a mask, or several models.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator

from mvcseg.training.config import TrainConfig
from mvcseg.training.config_values import dvis_config
from mvcseg.training.published import PUBLISHED

OF_COMPACT = ("width", "depth", "heads")
OF_SET_LOSS = ("num_points", "loss_weights", "no_object_weight")
OF_STAGES = ("contrast_weight", "guide_until", "noise", "noise_probability", "masked_parts", "backbone_rate")
OF_TRACKERS = ("guide_until", "noise", "noise_probability", "masked_parts")


def idle_keys(config: TrainConfig) -> list[str]:
    """Keys that are set to something else than their default, or than the preset's number, and mean nothing.

    Example:
        >>> idle_keys(TrainConfig(steps=10, noise="wa", window=3, mask_weight=0.5))
        ['noise', 'window', 'mask_weight']
    """
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    defaults["loss_weights"] = TrainConfig(steps=1).loss_weights
    usual = {**defaults, **(PUBLISHED.get(config.model, {}) if isinstance(config.model, str) else {})}
    values = {key: getattr(config, key) for key in defaults}
    return [key for key in dict.fromkeys(_without_effect(config)) if values[key] not in (defaults[key], usual[key])]


def note_idle_keys(config: TrainConfig) -> None:
    """Name them on standard error, and drops of the learning rate that come too late to happen."""
    idle = idle_keys(config)
    if idle:
        print(f"note: without effect in this run: {', '.join(idle)}", file=sys.stderr)
    late = [drop for drop in config.drops if drop >= config.steps]
    if late:
        told = ", ".join(map(str, late))
        print(f"note: drops: {told} lie beyond the last of {config.steps} steps and never happen", file=sys.stderr)


def _without_effect(config: TrainConfig) -> Iterator[str]:
    if config.model == "compact":
        yield from (*OF_SET_LOSS, *OF_STAGES)
    elif config.model == "own":
        yield from (*OF_COMPACT, *OF_STAGES)
        if config.objective == "pixel":
            yield from OF_SET_LOSS
    else:
        yield from OF_COMPACT
        parts = dvis_config(config.model)
        if not parts.has_tracker:
            yield from OF_TRACKERS
        elif parts.has_refiner:
            yield from ("noise", "noise_probability")
    if config.sampling != "stride":
        yield "strides"
    if config.sampling != "window":
        yield "window"
    yield from ("long_side",) if config.short_sides is None else ("scales",)
    if config.mask is None:
        yield from ("mask_weight", "masked_parts")
    if config.start_from is None:
        yield "new_classes"
    if config.schedule != "steps":
        yield "drop_factor"
