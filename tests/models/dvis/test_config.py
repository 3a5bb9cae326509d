from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from golden_files import GoldenFolders, read_json

from mvcseg.errors import ConfigError
from mvcseg.models.dvis import BACKBONES, DVIS, PRESETS, DVISConfig, build_dvis
from mvcseg.models.dvis.config import (
    VSPW_CLASS_ORDER,
    ResNetSizes,
    SwinSizes,
    ViTAdapterSizes,
    find_config,
    from_json,
    to_json,
)
from mvcseg.models.dvis.tracker import ReferringTracker
from mvcseg.models.dvis.tracker_v1 import FirstReferringTracker

SMALL = DVISConfig(
    SwinSizes(8, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=2),
    num_classes=4,
    num_queries=5,
    has_reid=True,
    has_tracker=True,
    has_refiner=True,
    class_order=(2, 0, 3, 1),
    tracker_layers=1,
    refiner_layers=1,
    hidden=16,
)


def test_the_presets_are_those_of_the_contract() -> None:
    plus = {f"vspw_{stage}_{net}" for stage in ("minvis", "ctvis", "online", "offline") for net in ("r50", "vitl")}
    first = {f"vspw_dvis1_{stage}_swinl" for stage in ("minvis", "online", "offline")}
    assert set(PRESETS) == plus | first


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_tested_at_720_by_1333_on_vspws_classes(name: str) -> None:
    config = PRESETS[name]
    assert (config.num_classes, config.short_side, config.long_side) == (124, 720, 1333)
    assert config.class_order == VSPW_CLASS_ORDER
    assert config.num_queries == (100 if name.endswith("r50") else 200)


def test_the_class_order_is_that_of_the_public_training_code(golden: GoldenFolders) -> None:
    listed = read_json(golden / "keys/vspw_class_order.json")
    assert list(VSPW_CLASS_ORDER) == listed["contiguous_to_vspw"]
    assert VSPW_CLASS_ORDER[17] == 60  # person
    assert sorted(VSPW_CLASS_ORDER) == list(range(124))


@pytest.mark.parametrize("config", [*PRESETS.values(), SMALL], ids=[*PRESETS, "small"])
def test_a_configuration_returns_from_json(config: DVISConfig) -> None:
    assert from_json(to_json(config)) == config


def test_json_may_name_the_backbone_and_leave_out_defaults() -> None:
    text = '{"backbone": "Swin-L", "num_queries": 200, "version": 1}'
    assert from_json(text) == PRESETS["vspw_dvis1_minvis_swinl"]
    assert from_json('{"backbone": {"kind": "resnet", "depth": 50}}') == PRESETS["vspw_minvis_r50"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "config: expected JSON"),
        ("[" * 100_000, "config: expected JSON"),
        ("[]", "config: expected a JSON object, got list"),
        ("{}", "backbone: expected a JSON object, got NoneType"),
        ('{"backbone": "ResNet50"}', "backbone: 'ResNet50' is unknown; did you mean 'ResNet-50'?"),
        ('{"backbone": "zzz"}', "expected one of ResNet-18, ResNet-34"),
        ('{"backbone": {"depth": 50}}', "backbone.kind: "),
        ('{"backbone": {"kind": "swim"}}', "did you mean 'swin'?"),
        ('{"backbone": {"kind": "swin", "width": 8}}', "backbone.depths: missing"),
        ('{"backbone": {"kind": "resnet", "deph": 50}}', "backbone.'deph' is unknown; did you mean 'depth'?"),
        ('{"backbone": {"kind": "resnet", "depth": "50"}}', "backbone.depth: expected an integer, got '50'"),
        ('{"backbone": {"kind": "vit_adapter", "width": 8, "depth": 4, "heads": 1, "is_gated": 1}}', "true or false"),
        ('{"backbone": "Swin-L", "num_querys": 3}', "'num_querys' is unknown; did you mean 'num_queries'?"),
        ('{"backbone": "Swin-L", "num_queries": true}', "num_queries: expected an integer, got True"),
        ('{"backbone": "Swin-L", "num_queries": 0}', "num_queries: expected an integer of at least 1, got 0"),
        ('{"backbone": "Swin-L", "class_order": "abc"}', "class_order: expected a list of integers"),
        ('{"backbone": "Swin-L", "num_classes": 3}', "class_order: expected a permutation of 0..2 or None"),
        ('{"backbone": "Swin-L", "num_classes": 256}', "num_classes: expected an integer from 1 to 255"),
        ('{"backbone": "Swin-L", "width": 48}', "width: expected a multiple of 32, got 48"),
        ('{"backbone": "Swin-L", "decoder_layers": 0}', "decoder_layers: expected an integer of at least 1, got 0"),
        ('{"backbone": "Swin-L", "version": 3}', "version: expected 1 or 2, got 3"),
        ('{"backbone": "Swin-L", "has_refiner": true}', "has_refiner: expected has_tracker with it"),
        ('{"backbone": "Swin-L", "has_tracker": true}', "has_reid: the tracker of version 2 expects"),
    ],
)
def test_a_wrong_configuration_is_one_error_that_names_the_key(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(text)
    assert told in str(caught.value)


def test_an_unknown_preset_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"preset: 'vspw_offlin_r50' is unknown; did you mean 'vspw_offline_r50'\?"):
        find_config("vspw_offlin_r50")
    with pytest.raises(ConfigError, match="expected one of vspw_minvis_r50, "):
        build_dvis("?")


def test_a_built_model_is_in_eval_mode_with_channels_last_convolutions() -> None:
    model = build_dvis(SMALL)
    assert isinstance(model, DVIS)
    assert not any(module.training for module in model.modules())
    assert model.num_classes == 4
    kernel = model.sem_seg_head.pixel_decoder.layer_1.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert model.class_order is not None
    assert model.class_order.tolist() == [2, 0, 3, 1]


def test_a_built_model_labels_frames_of_any_size() -> None:
    torch.manual_seed(0)
    scores = build_dvis(SMALL)(torch.rand(1, 2, 3, 33, 40))
    assert scores.shape == (1, 2, 4, 33, 40)
    assert scores.isfinite().all()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_parts_of_its_name(name: str) -> None:
    with torch.device("meta"):
        model = build_dvis(name)
    assert (model.tracker is not None) == ("online" in name or "offline" in name)
    assert (model.refiner is not None) == ("offline" in name)
    if model.tracker is not None:
        assert isinstance(model.tracker, FirstReferringTracker if "dvis1" in name else ReferringTracker)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_named_backbone_can_be_built(name: str) -> None:
    with torch.device("meta"):
        model = build_dvis(DVISConfig(BACKBONES[name]))
    assert len(model.backbone.channels) == 4


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        (ResNetSizes(35), "depth: expected one of 18, 34, 50, 101"),
        (SwinSizes(8, depths=(1, 1, 1, 1), heads=(1, 1, 1, 3), window=2), "heads: expected divisors"),
        (ViTAdapterSizes(8, depth=3, heads=1), "vit: expected a depth that is a multiple of 4"),
    ],
)
def test_sizes_of_no_backbone_are_an_error(sizes: ResNetSizes | SwinSizes | ViTAdapterSizes, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_dvis(DVISConfig(sizes))


def test_own_classes_replace_those_of_a_preset() -> None:
    own = dataclasses.replace(SMALL, num_classes=3, class_order=None)
    assert build_dvis(own).num_classes == 3
    assert json.loads(to_json(own))["class_order"] is None
