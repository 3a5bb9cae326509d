"""The numbers of one training run, as a frozen record that is a JSON file outside the program."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvcseg.data.clips import ShortVideos
from mvcseg.data.frame_sampling import Sampling
from mvcseg.errors import ConfigError
from mvcseg.masking import PatchMask
from mvcseg.models.dvis.config import PRESETS
from mvcseg.models.dvis.noise import NoiseMode
from mvcseg.training import config_checks as check
from mvcseg.training.config_values import LOSS_WEIGHTS, ObjectiveName, Precision, checked
from mvcseg.training.schedule import Schedule


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run computes; with the data, all of it.

    The mask's numbers are open in the report (MIC used cells of 32 or 64 pixels and ratios of 0.5 to 0.7), so
    there is no default mask: None is plain training.

    Args:
        steps: optimizer steps.
        model: "compact"; a name of ``models.dvis.PRESETS`` (whose published numbers ``from_dict`` and ``read_config``
            take for what is left out, this constructor does not); a mapping with the fields of ``DVISConfig``, where
            ``num_classes`` may be left out (those of the data set); or "own", a segmenter given to ``train``.
        start_from: checkpoint whose weights the model begins with, such as that of the stage before.
        new_classes: draw the class heads anew instead of taking them from ``start_from``.
        objective: "pixel" (cross-entropy) or "queries" (set loss); None is what the model is made for.
        width: channels of ``CompactSegmenter`` at half size; a multiple of 8.
        depth: its residual blocks per scale.
        heads: its attention heads.
        num_points: points at which the set loss compares masks.
        loss_weights: of its terms "class", "mask" and "dice"; what is left out has its default.
        no_object_weight: of queries that meet no target, in the class term.
        contrast_weight: of the contrastive loss of a DVIS++ stage; 0 is none, None is 2 where the stage has one.
        guide_until: share of the run in which a tracker or refiner takes over the assignment of the part before it;
            None is one half.
        noise: what a tracker is trained to put right, see ``models.dvis.noise``; None is "wa", and "none" for the
            tracker of first-version DVIS.
        noise_probability: share of frames with noise.
        masked_parts: parts of a DVIS++ stage that see the masked clip in the masked pass; None is all of them.
        clip_length: frames of a training clip.
        sampling: "stride" (evenly spaced), "window" (around a reference frame) or "consecutive".
        strides: of "stride": distances between the frames of a clip, one drawn for each clip.
        window: of "window": largest distance from the reference frame.
        reverse: share of clips whose frames come in reversed order.
        short_videos: "repeat" the last frame of videos shorter than a clip, or "refuse" them; None repeats with
            "stride" and refuses otherwise.
        short_sides: lengths of the shorter side in pixels that frames are resized to, one drawn for each clip; None
            zooms by ``scales``.
        long_side: with ``short_sides``, what the longer side does not exceed; None is no cap.
        scales: least and largest zoom before cropping.
        crop_size: (height, width) of a training clip in pixels; None does not crop.
        crop_range: least and largest side of a crop, each side drawn apart; needs ``crop_size=None``.
        flip: mirror half of the clips.
        colour: largest relative change of brightness, contrast and saturation; 0 is none.
        extra_data: further data sets to train on, each ``{"root", "split", "classes"}``; None as "root" is that of the
            run; "classes" maps its class names to those of the run, None where they are the same.
        batch_size: clips at once on each process.
        gradient_accumulation: batches an optimizer step, so a step sees ``batch_size * gradient_accumulation *
            processes`` clips.
        learning_rate: of AdamW, after warm-up.
        backbone_rate: what it is multiplied with for a DVIS++ backbone.
        weight_decay: of AdamW, on weights of two or more axes only.
        warm_up: steps over which the learning rate rises linearly from 0.
        schedule: what follows: "poly" ``(1 - progress) ** 0.9``, "cosine", "constant" or "steps".
        drops: of "steps": numbers of steps after which the rate is multiplied with ``drop_factor``.
        drop_factor: of "steps".
        clip_gradient: largest norm of the gradient of all parameters; None leaves it alone.
        mask: the mask of MVC (``{"patch_size", "ratio", "grid", "tube"}`` in JSON); None trains plainly.
        mask_weight: lambda of Eq. 4.
        seed: of weights, clips and masks.
        precision: "no" is float32, "bf16" autocasts to it.
        checkpoint_every: steps between checkpoints; one is written at the end too.
        eval_every: steps between evaluations on the ``eval_split``, and one at the end; 0 never evaluates.
        eval_split: split to evaluate on.
        eval_clip_length: frames at once while evaluating.
        picture_every: steps between pictures of what the model says of a clip; 0 draws none.
        tensorboard: whether to write TensorBoard's files too.
        num_workers: processes that read clips on each training process; 0 reads in it.

    Raises:
        ConfigError: a value is outside what is said above; the message names its key.

    Example:
        >>> TrainConfig(steps=100, mask=PatchMask(patch_size=32, ratio=0.5)).crop_size
        (320, 480)
    """

    steps: int
    model: str | Mapping[str, Any] = "compact"
    start_from: str | None = None
    new_classes: bool = False
    objective: ObjectiveName | None = None
    width: int = 16
    depth: int = 2
    heads: int = 4
    num_points: int = 12544
    loss_weights: Mapping[str, float] = field(default_factory=lambda: dict(LOSS_WEIGHTS))
    no_object_weight: float = 0.1
    contrast_weight: float | None = None
    guide_until: float | None = None
    noise: NoiseMode | None = None
    noise_probability: float = 0.5
    masked_parts: tuple[str, ...] | None = None
    clip_length: int = 4
    sampling: Sampling = "stride"
    strides: tuple[int, ...] = (1, 2, 3)
    window: int = 8
    reverse: float = 0.0
    short_videos: ShortVideos | None = None
    short_sides: tuple[int, ...] | None = None
    long_side: int | None = None
    scales: tuple[float, float] = (0.75, 1.5)
    crop_size: tuple[int, int] | None = (320, 480)
    crop_range: tuple[int, int] | None = None
    flip: bool = True
    colour: float = 0.0
    extra_data: tuple[Mapping[str, Any], ...] = ()
    batch_size: int = 4
    gradient_accumulation: int = 1
    learning_rate: float = 1e-3
    backbone_rate: float = 1.0
    weight_decay: float = 0.01
    warm_up: int = 0
    schedule: Schedule = "poly"
    drops: tuple[int, ...] = ()
    drop_factor: float = 0.1
    clip_gradient: float | None = 1.0
    mask: PatchMask | None = None
    mask_weight: float = 1.0
    seed: int = 0
    precision: Precision = "no"
    checkpoint_every: int = 500
    eval_every: int = 0
    eval_split: str = "val"
    eval_clip_length: int = 8
    picture_every: int = 0
    tensorboard: bool = False
    num_workers: int = 0

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            object.__setattr__(self, entry.name, checked(entry.name, getattr(self, entry.name)))
        if self.warm_up > self.steps:
            raise ConfigError(f"warm_up: expected at most steps = {self.steps}, got {self.warm_up}")
        if self.crop_range is not None and self.crop_size is not None:
            raise ConfigError("crop_range: expected crop_size null with it, since one of the two sizes a crop")
        if self.drops and self.schedule != "steps":
            raise ConfigError(f'drops: expected schedule "steps" with it, got {self.schedule!r}')
        if self.schedule == "steps" and not self.drops:
            raise ConfigError('drops: missing; schedule "steps" needs the steps at which the learning rate falls')
        if self.model == "own" and self.start_from is not None:
            raise ConfigError("start_from: expected null for a segmenter of your own; give it with its weights")

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON holds them."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """A configuration from what JSON holds; missing keys take their defaults.

        Where ``model`` is the name of a published model, the defaults are those of its published training
        (``mvcseg.training.published``).

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
        check.check_keys(values, valid=[entry.name for entry in dataclasses.fields(cls)])
        values = {**_published(values), **_replaced(values), **values}
        if "steps" not in values:
            raise ConfigError("steps: missing; say how many optimizer steps to train")
        return cls(**{**values, "mask": _mask(values.get("mask"))})


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


def _published(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the published training of a preset sets, the defaults of a file that names it."""
    name = values.get("model")
    if not isinstance(name, str) or name not in PRESETS:
        return {}
    from mvcseg.training.published import PUBLISHED

    return PUBLISHED.get(name, {})


def _replaced(values: Mapping[str, Any]) -> dict[str, Any]:
    """Published numbers that give way because the file says the same thing by another key."""
    gone: dict[str, Any] = {}
    if values.get("crop_size") is not None:
        gone["crop_range"] = None
    if values.get("crop_range") is not None:
        gone["crop_size"] = None
    if "scales" in values:
        gone |= {"short_sides": None, "long_side": None}
    if values.get("schedule", "steps") != "steps":
        gone["drops"] = ()
    return gone if _published(values) else {}


def _mask(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    check.check_keys(value, valid=[entry.name for entry in dataclasses.fields(PatchMask)], prefix="mask.")
    missing = [key for key in ("patch_size", "ratio") if key not in value]
    if missing:
        raise ConfigError(f"mask.{missing[0]}: missing; a mask needs patch_size (pixels) and ratio (share hidden)")
    check.check_number("mask.ratio", value["ratio"])
    check.check_switch("mask.tube", value.get("tube", False))
    return PatchMask(**value)
