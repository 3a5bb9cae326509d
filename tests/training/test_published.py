from __future__ import annotations

from typing import Any

import pytest

from mvcseg.models.dvis import PRESETS
from mvcseg.training.config import TrainConfig
from mvcseg.training.published import PUBLISHED

STAGES = {
    "minvis": {"clip_length": 1, "batch_size": 8, "drops": (14000,)},
    "ctvis": {"clip_length": 4, "batch_size": 16, "drops": (14000, 18000), "sampling": "window", "window": 8},
    "online": {"clip_length": 5, "batch_size": 8, "drops": (14000,), "sampling": "consecutive", "guide_until": 0.5},
    "offline": {"clip_length": 21, "batch_size": 8, "drops": (14000,), "sampling": "consecutive", "reverse": 0.5},
}


def test_every_preset_has_a_published_training_and_no_other_model_has() -> None:
    assert set(PUBLISHED) == set(PRESETS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_training_is_a_valid_configuration(name: str) -> None:
    config = TrainConfig.from_dict(PUBLISHED[name])
    assert config.model == name
    assert config == TrainConfig.from_dict({"model": name})
    assert (config.steps, config.learning_rate, config.backbone_rate, config.weight_decay) == (20000, 1e-4, 0.1, 0.05)
    assert (config.schedule, config.drop_factor, config.clip_gradient, config.warm_up) == ("steps", 0.1, 0.01, 0)
    assert (config.short_sides, config.long_side) == (tuple(range(480, 801, 32)), 1333)
    assert (config.flip, config.colour, config.num_points, config.no_object_weight) == (True, 0.0, 12544, 0.1)
    assert config.loss_weights == {"class": 2.0, "mask": 5.0, "dice": 5.0}
    assert config.mask is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_stage_has_its_own_numbers(name: str) -> None:
    config = TrainConfig.from_dict(PUBLISHED[name])
    stage = name.split("_")[-2]
    expected: dict[str, Any] = STAGES[stage]
    assert {key: getattr(config, key) for key in expected} == expected
    is_second = "dvis1" not in name
    assert config.contrast_weight == (2.0 if is_second and stage != "minvis" else 0.0)
    assert config.noise == ("wa" if is_second and stage == "online" else "none")
    crops = {"offline": (None, (600, 720)) if is_second else ((608, 608), None)}
    assert (config.crop_size, config.crop_range) == crops.get(stage, (None, None))
    assert config.guide_until == (0.5 if stage in ("online", "offline") else 0.0)


def test_what_a_file_says_goes_before_the_published_numbers() -> None:
    config = TrainConfig.from_dict({"model": "vspw_online_r50", "steps": 300, "clip_length": 3, "drops": [200]})
    assert (config.steps, config.clip_length, config.drops, config.noise) == (300, 3, (200,), "wa")
