"""Run configurations: JSON in and out, every wrong key and value named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mvcseg.errors import ConfigError
from mvcseg.masking import PatchMask
from mvcseg.models.dvis.config import BACKBONES, PRESETS
from mvcseg.training.config import TrainConfig, differing_keys, read_config
from mvcseg.training.config_values import dvis_config
from mvcseg.training.published import PUBLISHED

FULL = TrainConfig(steps=7, strides=(1, 4), mask=PatchMask(patch_size=16, ratio=0.5, grid="stretch", tube=True))
STAGE = TrainConfig(
    steps=7,
    model={"backbone": "ResNet-18", "num_queries": 8, "has_reid": True},
    start_from="coco.pkl",
    new_classes=True,
    loss_weights={"mask": 3},
    contrast_weight=0,
    guide_until=0.25,
    noise="rs",
    masked_parts=("tracker",),
    sampling="window",
    short_sides=(64, 96),
    long_side=200,
    crop_size=None,
    crop_range=(48, 64),
    extra_data=({"root": "other", "split": "val", "classes": {"sea": "water", "fog": None}},),
    schedule="steps",
    drops=(3, 5),
)


@pytest.mark.parametrize("config", [TrainConfig(steps=1), FULL, STAGE])
def test_json_keeps_every_value(config: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(config.to_dict()))
    assert read_config(path) == config


def test_missing_keys_take_their_defaults() -> None:
    assert TrainConfig.from_dict({"steps": 3, "mask": {"patch_size": 8, "ratio": 0.3}}) == TrainConfig(
        steps=3, mask=PatchMask(patch_size=8, ratio=0.3)
    )


def test_differing_keys_are_named_with_both_values() -> None:
    other = TrainConfig(steps=7, strides=(1, 4), seed=2)
    assert differing_keys(FULL, other) == {"mask": (FULL.to_dict()["mask"], None), "seed": (0, 2)}
    assert differing_keys(FULL, FULL) == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1}, "learning_rat: no such key; did you mean learning_rate?"),
        ({"mask": {"patchsize": 8, "ratio": 1}}, "mask.patchsize: no such key; did you mean mask.patch_size?"),
        ({"mask": {"ratio": 0.5}}, "mask.patch_size: missing"),
        ({"mask": {"patch_size": 0, "ratio": 0.5}}, "patch_size"),
        ({"mask": {"patch_size": 8, "ratio": "x"}}, "mask.ratio: expected a finite number"),
        ({"mask": {"patch_size": 8, "ratio": 0.5, "grid": "cut"}}, "grid"),
        ({"mask": {"patch_size": 8, "ratio": 0.5, "tube": 1}}, "mask.tube: expected true or false"),
        ({"mask": 5}, "mask: expected a PatchMask or null"),
        ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"steps": True}, "steps: expected an integer"),
        ({"steps": 2.5}, "steps: expected an integer"),
        ({"warm_up": 11}, "warm_up: expected at most steps = 10"),
        ({"learning_rate": -1}, "learning_rate: expected a finite number of at least 0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a finite number"),
        ({"clip_gradient": "x"}, "clip_gradient: expected a finite number"),
        ({"schedule": "step"}, "schedule: expected one of poly, cosine, constant, steps"),
        ({"precision": "fp16"}, "precision: expected one of no, bf16"),
        ({"precision": ["no"]}, "precision: expected one of"),
        ({"crop_size": [32]}, "crop_size: expected two numbers"),
        ({"crop_size": 32}, "crop_size: expected two numbers"),
        ({"strides": []}, "strides: expected numbers"),
        ({"strides": [0]}, "strides: expected an integer of at least 1"),
        ({"scales": [1, "x"]}, "scales: expected a finite number"),
        ({"flip": 1}, "flip: expected true or false"),
        ({"eval_split": ""}, "eval_split: expected the name"),
        ({"model": "vspw_online_r5"}, "model: expected one of compact, own, vspw_minvis_r50"),
        ({"model": 3}, "model: expected one of compact, own"),
        ({"model": {"backbone": "ResNet-19"}}, "model: backbone: 'ResNet-19' is unknown; did you mean"),
        ({"model": {"backbone": "ResNet-18", "num_query": 3}}, "model: .*did you mean 'num_queries'"),
        ({"model": {"backbone": "ResNet-18", "has_refiner": True}}, "model: has_refiner: expected has_tracker"),
        ({"model": {"num_queries": 3}}, "model: backbone: expected a JSON object"),
        ({"model": {"backbone": {1}}}, "model: expected what JSON can hold"),
        ({"model": "own", "start_from": "a"}, "start_from: expected null for a segmenter of your own"),
        ({"start_from": 3}, "start_from: expected the path of a checkpoint or null, got 3"),
        ({"new_classes": 1}, "new_classes: expected true or false"),
        ({"objective": "query"}, "objective: expected one of null, pixel, queries, got 'query'"),
        ({"num_points": 0}, "num_points: expected an integer of at least 1"),
        ({"loss_weights": 5}, "loss_weights: expected an object with class, mask and dice"),
        ({"loss_weights": {"masks": 5}}, "loss_weights.masks: no such key; did you mean loss_weights.mask?"),
        ({"loss_weights": {"mask": -5}}, "loss_weights.mask: expected a finite number"),
        ({"no_object_weight": -1}, "no_object_weight: expected a finite number"),
        ({"contrast_weight": -1}, "contrast_weight: expected a finite number"),
        ({"guide_until": 1.5}, r"guide_until: expected a finite number in \[0, 1\], got 1.5"),
        ({"noise": "weighted"}, "noise: expected one of null, none, rs, wa, cc"),
        ({"noise_probability": 2}, r"noise_probability: expected a finite number in \[0, 1\]"),
        ({"masked_parts": "tracker"}, "masked_parts: expected names of parts or null"),
        ({"sampling": "all"}, "sampling: expected one of stride, window, consecutive"),
        ({"short_videos": "drop"}, "short_videos: expected one of null, refuse, repeat"),
        ({"window": 0}, "window: expected an integer of at least 1"),
        ({"reverse": -0.5}, "reverse: expected a finite number"),
        ({"short_sides": []}, "short_sides: expected numbers"),
        ({"short_sides": [0]}, "short_sides: expected an integer of at least 1"),
        ({"long_side": 0}, "long_side: expected an integer of at least 1"),
        ({"scales": [2, 1]}, r"scales: expected the least value first, got \[2, 1\]"),
        ({"crop_size": [16, 64]}, "crop_size: expected an integer of at least 32"),
        ({"crop_size": None, "crop_range": [64, 48]}, "crop_range: expected the least value first"),
        ({"crop_range": [48, 64]}, "crop_range: expected crop_size null with it"),
        ({"colour": 1.5}, "colour: expected a finite number in"),
        ({"extra_data": {"root": "a"}}, "extra_data: expected a list of data sets"),
        ({"extra_data": ["a"]}, r"extra_data\[0\]: expected an object"),
        ({"extra_data": [{"root": 3}]}, r"extra_data\[0\].root: expected the folder of a data set, or null"),
        ({"extra_data": [{"root": "a", "split": 3}]}, r"extra_data\[0\].split: expected the name of a split"),
        ({"extra_data": [{"root": "a", "splits": "val"}]}, r"extra_data\[0\].splits: no such key"),
        ({"extra_data": [{"root": "a", "classes": [1]}]}, r"extra_data\[0\].classes: expected an object"),
        ({"backbone_rate": "x"}, "backbone_rate: expected a finite number"),
        ({"schedule": "steps"}, 'drops: missing; schedule "steps" needs the steps'),
        ({"drops": [3]}, 'drops: expected schedule "steps" with it'),
        ({"schedule": "steps", "drops": [0]}, "drops: expected an integer of at least 1"),
        ({"drop_factor": 3}, "drop_factor: expected a finite number in"),
        ({"picture_every": -1}, "picture_every: expected an integer of at least 0"),
        ({"tensorboard": 1}, "tensorboard: expected true or false"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        TrainConfig.from_dict({"steps": 10, **values})


def test_parts_of_an_object_that_are_left_out_have_their_defaults() -> None:
    config = TrainConfig.from_dict({"steps": 1, "loss_weights": {"dice": 2}, "extra_data": [{"root": "b"}]})
    assert config.loss_weights == {"class": 2.0, "mask": 5.0, "dice": 2}
    assert config.extra_data == ({"root": "b", "split": "train", "classes": None},)
    same = TrainConfig.from_dict({"steps": 1, "extra_data": [{"split": "val"}]})
    assert same.extra_data == ({"root": None, "split": "val", "classes": None},)


@pytest.mark.parametrize("name", PRESETS)
def test_the_name_of_a_preset_brings_its_published_training(name: str) -> None:
    config = TrainConfig.from_dict({"model": name})
    assert PUBLISHED[name].items() <= (config.to_dict() | {"loss_weights": dict(config.loss_weights)}).items()
    assert (config.steps, config.learning_rate, config.drops[0]) == (20000, 1e-4, 14000)
    changed = TrainConfig.from_dict({"model": name, "steps": 30, "drops": [20]})
    assert differing_keys(changed, config).keys() == {"steps", "drops"}
    assert TrainConfig.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed


def test_a_preset_takes_on_the_classes_of_the_data() -> None:
    assert dvis_config("vspw_online_r50", num_classes=124) == PRESETS["vspw_online_r50"]
    own = dvis_config("vspw_online_r50", num_classes=10)
    assert (own.num_classes, own.class_order) == (10, None)


def test_an_object_describes_a_model_of_as_many_classes_as_the_data() -> None:
    config = dvis_config({"backbone": "ResNet-18", "num_queries": 7}, num_classes=10)
    assert (config.backbone, config.num_queries, config.num_classes) == (BACKBONES["ResNet-18"], 7, 10)
    assert config.class_order is None
    ordered = {"backbone": "ResNet-18", "num_classes": 3, "class_order": [2, 0, 1]}
    assert dvis_config(ordered, num_classes=3).class_order == (2, 0, 1)
    with pytest.raises(ConfigError, match=r"model\.num_classes: expected 4 as the data set has, got 3; leave it out"):
        dvis_config(ordered, num_classes=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "run.json: expected JSON"),
        ("[1]", "run.json: config: expected a JSON object, got list"),
        ("{}", "run.json: steps: missing"),
        ('{"steps": 3, "sed": 1}', "run.json: sed: no such key; did you mean seed"),
    ],
)
def test_a_wrong_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "run.json")


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: cannot be read \(No such file"):
        read_config(tmp_path / "none.json")
    (tmp_path / "run.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(ConfigError, match=r"run\.json: expected JSON"):
        read_config(tmp_path / "run.json")


def test_a_presets_numbers_give_way_to_other_keys_for_the_same_thing() -> None:
    cropped = TrainConfig.from_dict({"model": "vspw_offline_r50", "crop_size": [64, 96]})
    assert (cropped.crop_size, cropped.crop_range) == ((64, 96), None)
    ranged = TrainConfig.from_dict({"model": "vspw_dvis1_offline_swinl", "crop_range": [64, 96]})
    assert (ranged.crop_size, ranged.crop_range) == (None, (64, 96))
    zoomed = TrainConfig.from_dict({"model": "vspw_online_r50", "scales": [0.5, 2.0]})
    assert (zoomed.short_sides, zoomed.long_side, zoomed.scales) == (None, None, (0.5, 2.0))
    smooth = TrainConfig.from_dict({"model": "vspw_online_r50", "schedule": "poly"})
    assert (smooth.schedule, smooth.drops) == ("poly", ())


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"clip_gradient": 0}, "clip_gradient: expected a norm above 0, or null for no limit, got 0"),
        ({"seed": 2**63}, r"seed: expected an integer below 2\*\*63"),
    ],
)
def test_numbers_that_would_train_nothing_or_overflow_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        TrainConfig(steps=1, **values)
