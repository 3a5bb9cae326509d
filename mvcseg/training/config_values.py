"""What each key of a training configuration may hold."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from mvcseg.data.clips import ShortVideos
from mvcseg.data.frame_sampling import Sampling
from mvcseg.errors import ConfigError
from mvcseg.masking import PatchMask
from mvcseg.models.dvis.config import PRESETS, DVISConfig, from_json
from mvcseg.models.dvis.noise import NoiseMode
from mvcseg.training import config_checks as check
from mvcseg.training.schedule import Schedule

Precision = Literal["no", "bf16"]
ObjectiveName = Literal["pixel", "queries"]
LOSS_WEIGHTS = {"class": 2.0, "mask": 5.0, "dice": 5.0}
"""Weights of the set loss's terms (Mask2Former, arXiv 2112.01527, and DVIS++)."""


def checked(key: str, value: Any) -> Any:
    """A key's value, lists as tuples.

    Raises:
        ConfigError: it is not what the key may hold.
    """
    if key in _LEAST:
        check.check_integer(key, value, least=_LEAST[key])
        return value
    if key in _MOST:
        check.check_number(key, value, most=_MOST[key])
        return value
    if key in _CHOICES:
        check.check_choice(key, value, _CHOICES[key])
        return value
    return _OTHERS[key](key, value)


def dvis_config(model: str | Mapping[str, Any], *, num_classes: int | None = None) -> DVISConfig:
    """The configuration that a run's ``model`` means for data of K classes.

    Args:
        model: a name of ``PRESETS``, or a mapping with the fields of ``DVISConfig``; classes are in the data set's
            order unless it says otherwise.
        num_classes: K of the data set; None leaves the number of a preset or mapping as it is.

    Raises:
        ConfigError: no preset has the name, a field is unknown or wrong, or its number of classes is not K.

    Example:
        >>> dvis_config("vspw_online_r50", num_classes=11).num_classes
        11
    """
    if isinstance(model, str):
        preset = PRESETS[model]
        fields: dict[str, Any] = (
            {} if num_classes in (None, preset.num_classes) else {"num_classes": num_classes, "class_order": None}
        )
        return dataclasses.replace(preset, **fields)
    own = {"class_order": None, **model}
    stated = own.get("num_classes", num_classes)
    if num_classes is not None and stated != num_classes:
        raise ConfigError(
            f"model.num_classes: expected {num_classes} as the data set has, got {stated!r}; leave it out"
        )
    order = own["class_order"]
    own["num_classes"] = stated if stated is not None else len(order) if isinstance(order, list | tuple) else 1
    try:
        return from_json(json.dumps(own))
    except ConfigError as error:
        raise ConfigError(f"model: {error}") from error


def _model(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        try:
            value = json.loads(json.dumps(dict(value)))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{key}: expected what JSON can hold, got {value!r}") from error
        dvis_config(value)
    else:
        check.check_choice(key, value, ("compact", "own", *PRESETS))
    return value


def _checkpoint(key: str, value: Any) -> str:
    check.check_text(key, value, what="the path of a checkpoint or null")
    return str(value)


def _loss_weights(key: str, value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: expected an object with class, mask and dice, got {value!r}")
    check.check_keys(value, valid=LOSS_WEIGHTS, prefix=f"{key}.")
    for name, weight in value.items():
        check.check_number(f"{key}.{name}", weight)
    return {**LOSS_WEIGHTS, **value}


def _parts(key: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ConfigError(f"{key}: expected names of parts or null, got {value!r}")
    return tuple(value)


def _extra_data(key: str, value: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{key}: expected a list of data sets, got {value!r}")
    return tuple(_extra(f"{key}[{index}]", entry) for index, entry in enumerate(value))


def _extra(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f'{key}: expected an object with "root", "split" and "classes", got {value!r}')
    check.check_keys(value, valid=("root", "split", "classes"), prefix=f"{key}.")
    entry = {"root": value.get("root"), "split": value.get("split", "train"), "classes": value.get("classes")}
    if entry["root"] is not None:
        check.check_text(f"{key}.root", entry["root"], what="the folder of a data set, or null for the run's own")
    check.check_text(f"{key}.split", entry["split"], what="the name of a split")
    names = entry["classes"]
    if names is not None:
        if not isinstance(names, Mapping) or not all(
            isinstance(name, str) and isinstance(target, str | None) for name, target in names.items()
        ):
            raise ConfigError(f"{key}.classes: expected an object from its class names to ours or null, got {names!r}")
        entry["classes"] = dict(names)
    return entry


def _optional(check_value: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda key, value: None if value is None else check_value(key, value)


def _integer(key: str, value: Any) -> int:
    check.check_integer(key, value, least=1)
    return int(value)


def _number(key: str, value: Any) -> float:
    check.check_number(key, value)
    return float(value)


def _limit(key: str, value: Any) -> float:
    check.check_number(key, value)
    if not value:
        raise ConfigError(f"{key}: expected a norm above 0, or null for no limit, got {value!r}")
    return float(value)


def _share(key: str, value: Any) -> float:
    check.check_number(key, value, most=1.0)
    return float(value)


def _switch(key: str, value: Any) -> bool:
    check.check_switch(key, value)
    return bool(value)


def _split(key: str, value: Any) -> str:
    check.check_text(key, value, what="the name of a split")
    return str(value)


def _steps(key: str, value: Any) -> tuple[int, ...]:
    return check.integers(key, value) if value else ()


def _two_rising(key: str, value: Any) -> tuple[int, ...]:
    pair = check.integers(key, value, length=2, least=32)
    check.rising(key, pair)
    return pair


def _scales(key: str, value: Any) -> tuple[float, ...]:
    pair = check.numbers(key, value, length=2)
    check.rising(key, pair)
    return pair


def _crop_size(key: str, value: Any) -> tuple[int, ...]:
    return check.integers(key, value, length=2, least=32)


def _mask(key: str, value: Any) -> PatchMask | None:
    if value is not None and not isinstance(value, PatchMask):
        raise ConfigError(f"{key}: expected a PatchMask or null, got {value!r}")
    return value


_LEAST = {
    **dict.fromkeys(("steps", "width", "depth", "heads", "num_points", "clip_length", "window"), 1),
    **dict.fromkeys(("batch_size", "gradient_accumulation", "checkpoint_every", "eval_clip_length"), 1),
    **dict.fromkeys(("warm_up", "seed", "eval_every", "picture_every", "num_workers"), 0),
}
_MOST = {
    **dict.fromkeys(("learning_rate", "backbone_rate", "weight_decay", "mask_weight"), float("inf")),
    "no_object_weight": float("inf"),
    **dict.fromkeys(("colour", "noise_probability", "reverse", "drop_factor"), 1.0),
}
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "objective": (None, *get_args(ObjectiveName)),
    "noise": (None, *get_args(NoiseMode)),
    "sampling": get_args(Sampling),
    "short_videos": (None, *get_args(ShortVideos)),
    "schedule": get_args(Schedule),
    "precision": get_args(Precision),
}
_OTHERS: dict[str, Callable[[str, Any], Any]] = {
    "model": _model,
    "start_from": _optional(_checkpoint),
    "loss_weights": _loss_weights,
    "masked_parts": _parts,
    "strides": check.integers,
    "short_sides": _optional(check.integers),
    "long_side": _optional(_integer),
    "scales": _scales,
    "crop_size": _optional(_crop_size),
    "crop_range": _optional(_two_rising),
    "extra_data": _extra_data,
    "drops": _steps,
    "clip_gradient": _optional(_limit),
    "contrast_weight": _optional(_number),
    "guide_until": _optional(_share),
    "mask": _mask,
    "eval_split": _split,
    **dict.fromkeys(("new_classes", "flip", "tensorboard"), _switch),
}
