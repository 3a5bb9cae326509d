"""The published VSPW training of every preset, as keys of ``TrainConfig``.

Batch sizes are those of one process; on P processes divide by P. Two things differ from the published runs: mixed
precision is bfloat16 instead of float16 with a scaled loss, and their warm-up, ten steps at the full rate, is none.
The MVC report (arXiv 2406.04979) gives neither cell size nor ratio of its masks, so ``mask`` is null: set it to train
with MVC.

Sources: public configurations of DVIS++ (https://github.com/zhang-tao-whu/DVIS_Plus) and, for first-version models,
of DVIS (https://github.com/zhang-tao-whu/DVIS).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ALL: Mapping[str, Any] = {
    "steps": 20000,
    "batch_size": 8,
    "num_points": 12544,
    "loss_weights": {"class": 2.0, "mask": 5.0, "dice": 5.0},
    "no_object_weight": 0.1,
    "contrast_weight": 0.0,
    "guide_until": 0.0,
    "noise": "none",
    "short_sides": list(range(480, 801, 32)),
    "long_side": 1333,
    "crop_size": None,
    "flip": True,
    "colour": 0.0,
    "learning_rate": 1e-4,
    "backbone_rate": 0.1,
    "weight_decay": 0.05,
    "schedule": "steps",
    "drops": [14000],
    "drop_factor": 0.1,
    "clip_gradient": 0.01,
    "precision": "bf16",
    "mask": None,
}
_MINVIS = {**_ALL, "clip_length": 1, "sampling": "consecutive"}
_CTVIS = {
    **_ALL,
    "clip_length": 4,
    "sampling": "window",
    "window": 8,
    "batch_size": 16,
    "drops": [14000, 18000],
    "contrast_weight": 2.0,
}
_FIRST_ONLINE = {**_ALL, "clip_length": 5, "sampling": "consecutive", "guide_until": 0.5}
_FIRST_OFFLINE = {
    **_ALL,
    "clip_length": 21,
    "sampling": "consecutive",
    "reverse": 0.5,
    "short_videos": "repeat",  # 11 videos of VSPW's train.txt have fewer frames
    "guide_until": 0.5,
}
_ONLINE = {**_FIRST_ONLINE, "contrast_weight": 2.0, "noise": "wa", "noise_probability": 0.5}
_OFFLINE = {**_FIRST_OFFLINE, "contrast_weight": 2.0, "crop_range": [600, 720]}

PUBLISHED: dict[str, Mapping[str, Any]] = {
    **{
        f"vspw_{stage}_{net}": {**numbers, "model": f"vspw_{stage}_{net}"}
        for stage, numbers in (("minvis", _MINVIS), ("ctvis", _CTVIS), ("online", _ONLINE), ("offline", _OFFLINE))
        for net in ("r50", "vitl")
    },
    **{
        f"vspw_dvis1_{stage}_swinl": {**numbers, "model": f"vspw_dvis1_{stage}_swinl"}
        for stage, numbers in (
            ("minvis", _MINVIS),
            ("online", _FIRST_ONLINE),
            ("offline", {**_FIRST_OFFLINE, "crop_size": [608, 608]}),
        )
    },
}
"""Run numbers of each of ``models.dvis.PRESETS``."""
