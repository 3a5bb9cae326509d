"""The numbers of one training run, as a frozen record that is a JSON file outside the program."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mvcseg.errors import ConfigError
from mvcseg.masking import PatchMask

Schedule = Literal["poly", "cosine", "constant"]
Precision = Literal["no", "bf16"]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run computes; with the data, all of it.

    The mask's numbers are open in the report (MIC used cells of 32 or 64 pixels and ratios of 0.5 to 0.7), so
    there is no default mask: None is plain training.

    Args:
        steps: optimizer steps.
        width: channels of ``CompactSegmenter`` at half size; a multiple of 8.
        depth: its residual blocks per scale.
        heads: its attention heads.
        clip_length: frames of a training clip.
        strides: distances between the frames of a clip, one drawn for each clip.
        crop_size: (height, width) of a training clip in pixels.
        scales: least and largest zoom before cropping.
        flip: mirror half of the clips.
        colour: largest relative change of brightness, contrast and saturation; 0 is none.
        batch_size: clips at once on each process.
        gradient_accumulation: batches an optimizer step, so a step sees ``batch_size * gradient_accumulation *
            processes`` clips.
        learning_rate: of AdamW, after warm-up.
        weight_decay: of AdamW, on weights of two or more axes only.
        warm_up: steps over which the learning rate rises linearly from 0.
        schedule: what follows: "poly" ``(1 - progress) ** 0.9``, "cosine", or "constant".
        clip_gradient: largest norm of the gradient; None leaves it alone.
        mask: the mask of MVC (``{"patch_size", "ratio", "grid", "tube"}`` in JSON); None trains plainly.
        mask_weight: lambda of Eq. 4.
        seed: of weights, clips and masks.
        precision: "no" is float32, "bf16" autocasts to it.
        checkpoint_every: steps between checkpoints; one is written at the end too.
        eval_every: steps between evaluations on the ``eval_split``, and one at the end; 0 never evaluates.
        eval_split: split to evaluate on.
        eval_clip_length: frames at once while evaluating.
        num_workers: processes that read clips on each training process; 0 reads in it.

    Raises:
        ConfigError: a value is outside what is said above; the message names its key.

    Example:
        >>> TrainConfig(steps=100, mask=PatchMask(patch_size=32, ratio=0.5)).crop_size
        (320, 480)
    """

    steps: int
    width: int = 16
    depth: int = 2
    heads: int = 4
    clip_length: int = 4
    strides: tuple[int, ...] = (1, 2, 3)
    crop_size: tuple[int, int] = (320, 480)
    scales: tuple[float, float] = (0.75, 1.5)
    flip: bool = True
    colour: float = 0.0
    batch_size: int = 4
    gradient_accumulation: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: int = 0
    schedule: Schedule = "poly"
    clip_gradient: float | None = 1.0
    mask: PatchMask | None = None
    mask_weight: float = 1.0
    seed: int = 0
    precision: Precision = "no"
    checkpoint_every: int = 500
    eval_every: int = 0
    eval_split: str = "val"
    eval_clip_length: int = 8
    num_workers: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "width", "depth", "heads", "clip_length", "batch_size", "gradient_accumulation"):
            _check_integer(name, getattr(self, name), least=1)
        for name in ("checkpoint_every", "eval_clip_length"):
            _check_integer(name, getattr(self, name), least=1)
        for name in ("warm_up", "seed", "eval_every", "num_workers"):
            _check_integer(name, getattr(self, name), least=0)
        for name in ("learning_rate", "weight_decay", "mask_weight", "colour"):
            _check_number(name, getattr(self, name))
        if self.clip_gradient is not None:
            _check_number("clip_gradient", self.clip_gradient)
        _check_choice("schedule", self.schedule, get_args(Schedule))
        _check_choice("precision", self.precision, get_args(Precision))
        for name in ("strides", "crop_size", "scales"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or (name != "strides" and len(value) != 2) or not value:
                raise ConfigError(
                    f"{name}: expected {'numbers' if name == 'strides' else 'two numbers'}, got {value!r}"
                )
            for entry in value:
                _check_number(name, entry) if name == "scales" else _check_integer(name, entry, least=1)
            object.__setattr__(self, name, tuple(value))
        if not isinstance(self.flip, bool):
            raise ConfigError(f"flip: expected true or false, got {self.flip!r}")
        if self.mask is not None and not isinstance(self.mask, PatchMask):
            raise ConfigError(f"mask: expected a PatchMask or null, got {self.mask!r}")
        if not isinstance(self.eval_split, str) or not self.eval_split:
            raise ConfigError(f"eval_split: expected the name of a split, got {self.eval_split!r}")
        if self.warm_up > self.steps:
            raise ConfigError(f"warm_up: expected at most steps = {self.steps}, got {self.warm_up}")

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON holds them."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """A configuration from what JSON holds; missing keys take their defaults.

        Raises:
            ConfigError: a key is unknown (the nearest valid one is named), ``steps`` is missing, or a value is
                outside what its key allows.

        Example:
            >>> TrainConfig.from_dict({"steps": 10, "learning_rat": 0.1})
            Traceback (most recent call last):
            ...
            mvcseg.errors.ConfigError: learning_rat: no such key; did you mean learning_rate?
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"config: expected a JSON object, got {type(values).__name__}")
        _check_keys(values, valid=[field.name for field in dataclasses.fields(cls)])
        if "steps" not in values:
            raise ConfigError("steps: missing; say how many optimizer steps to train")
        mask = values.get("mask")
        if isinstance(mask, Mapping):
            _check_keys(mask, valid=[field.name for field in dataclasses.fields(PatchMask)], prefix="mask.")
            missing = [key for key in ("patch_size", "ratio") if key not in mask]
            if missing:
                raise ConfigError(
                    f"mask.{missing[0]}: missing; a mask needs patch_size (pixels) and ratio (share hidden)"
                )
            _check_number("mask.ratio", mask["ratio"])
            if not isinstance(mask.get("tube", False), bool):
                raise ConfigError(f"mask.tube: expected true or false, got {mask['tube']!r}")
            mask = PatchMask(**mask)
        return cls(**{**values, "mask": mask})


def read_config(path: str | os.PathLike[str]) -> TrainConfig:
    """The configuration of a JSON file.

    Raises:
        ConfigError: the file cannot be read, is no JSON, or holds an unknown key or a value outside its range; the
            message names file and key.
    """
    try:
        return TrainConfig.from_dict(json.loads(Path(path).read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: expected JSON, got {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def differing_keys(config: TrainConfig, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, each with the value here and there."""
    here, there = config.to_dict(), other.to_dict()
    return {key: (here[key], there[key]) for key in here if here[key] != there[key]}


def _check_keys(values: Mapping[str, Any], *, valid: list[str], prefix: str = "") -> None:
    for key in values:
        if key not in valid:
            close = difflib.get_close_matches(str(key), valid, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{prefix}{key}: no such key; did you mean {prefix}{close}?")


def _check_integer(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}: expected an integer of at least {least}, got {value!r}")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"{name}: expected a finite number of at least 0, got {value!r}")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
