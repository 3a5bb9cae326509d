from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from mvcseg.models.dvis import PRESETS, build_dvis
from mvcseg.training.groups import published_groups
from mvcseg.training.stages import build_stage


def rates(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter that is in a group."""
    groups = published_groups(model, learning_rate=1e-4, weight_decay=0.05)
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


@pytest.fixture(scope="module")
def segmenter() -> dict[str, tuple[float, float]]:
    with torch.device("meta"):
        return rates(build_dvis("vspw_ctvis_r50"))


@pytest.mark.parametrize(
    ("name", "rate", "decay"),
    [
        ("backbone.layer1.0.conv1.weight", 1e-5, 0.05),
        ("sem_seg_head.pixel_decoder.input_proj.0.0.weight", 1e-4, 0.05),
        ("sem_seg_head.pixel_decoder.input_proj.0.0.bias", 1e-4, 0.05),
        ("sem_seg_head.pixel_decoder.input_proj.0.1.weight", 1e-4, 0.0),
        ("sem_seg_head.pixel_decoder.input_proj.0.1.bias", 1e-4, 0.0),
        ("sem_seg_head.pixel_decoder.transformer.level_embed", 1e-4, 0.05),
        ("sem_seg_head.pixel_decoder.adapter_1.norm.weight", 1e-4, 0.0),
        ("sem_seg_head.predictor.query_feat.weight", 1e-4, 0.0),
        ("sem_seg_head.predictor.query_embed.weight", 1e-4, 0.0),
        ("sem_seg_head.predictor.level_embed.weight", 1e-4, 0.0),
        ("sem_seg_head.predictor.decoder_norm.bias", 1e-4, 0.0),
        ("sem_seg_head.predictor.class_embed.bias", 1e-4, 0.05),
        ("sem_seg_head.predictor.transformer_ffn_layers.0.linear1.bias", 1e-4, 0.05),
        ("sem_seg_head.predictor.transformer_self_attention_layers.0.self_attn.in_proj_bias", 1e-4, 0.05),
    ],
)
def test_rates_and_decay_are_the_published_ones(
    segmenter: dict[str, tuple[float, float]], name: str, rate: float, decay: float
) -> None:
    assert segmenter[name] == (pytest.approx(rate), decay)


def test_tables_of_relative_positions_do_not_decay() -> None:
    with torch.device("meta"):
        swin = rates(build_dvis("vspw_dvis1_minvis_swinl"))
    tables = {name: pair for name, pair in swin.items() if name.endswith("relative_position_bias_table")}
    assert len(tables) == 24
    assert set(tables.values()) == {(1e-4 * 0.1, 0.0)}
    assert swin["backbone.norm2.weight"][1] == 0.0


@pytest.mark.parametrize("name", ["vspw_ctvis_vitl", "vspw_online_r50", "vspw_offline_r50"])
def test_a_stages_groups_hold_what_it_trains_once(name: str) -> None:
    config = dataclasses.replace(PRESETS[name], class_order=None)  # a buffer of numbers cannot be on no device
    with torch.device("meta"):
        stage = build_stage(build_dvis(config))
        groups = published_groups(stage, learning_rate=1e-4, weight_decay=0.05)
    held = [parameter for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {parameter for parameter in stage.parameters() if parameter.requires_grad}
    in_backbone = {parameter for parameter in stage.model.backbone.parameters() if parameter.requires_grad}
    slow = {parameter for group in groups if group["lr"] < 1e-4 for parameter in group["params"]}
    assert slow == in_backbone
    torch.optim.AdamW(groups)


def test_a_shared_parameter_is_in_one_group() -> None:
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    net["b"].weight = net["a"].weight
    (group,) = published_groups(net, learning_rate=1e-4, weight_decay=0.05)
    assert len(group["params"]) == 3
