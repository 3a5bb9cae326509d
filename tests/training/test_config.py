"""Run configurations: JSON in and out, every wrong key and value named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mvcseg.errors import ConfigError
from mvcseg.masking import PatchMask
from mvcseg.training.config import TrainConfig, differing_keys, read_config

FULL = TrainConfig(steps=7, strides=(1, 4), mask=PatchMask(patch_size=16, ratio=0.5, grid="stretch", tube=True))


@pytest.mark.parametrize("config", [TrainConfig(steps=1), FULL])
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
        ({"schedule": "step"}, "schedule: expected one of poly, cosine, constant"),
        ({"precision": "fp16"}, "precision: expected one of no, bf16"),
        ({"precision": ["no"]}, "precision: expected one of"),
        ({"crop_size": [32]}, "crop_size: expected two numbers"),
        ({"crop_size": 32}, "crop_size: expected two numbers"),
        ({"strides": []}, "strides: expected numbers"),
        ({"strides": [0]}, "strides: expected an integer of at least 1"),
        ({"scales": [1, "x"]}, "scales: expected a finite number"),
        ({"flip": 1}, "flip: expected true or false"),
        ({"eval_split": ""}, "eval_split: expected the name"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        TrainConfig.from_dict({"steps": 10, **values})


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
