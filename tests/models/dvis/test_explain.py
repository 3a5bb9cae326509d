from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import KEY_LISTS, GoldenFolders, read_entries, read_json
from torch import Tensor

from mvcseg.errors import CheckpointError
from mvcseg.models.compact_checkpoint import packaged_checkpoint
from mvcseg.models.dvis import PRESETS, build_dvis, explain, official_state_dict
from mvcseg.models.dvis.config import ResNetSizes, SwinSizes
from mvcseg.models.dvis.explain import preset_for
from mvcseg.models.dvis.identify import identify


def preset_state(preset: str, **changes: Any) -> dict[str, Tensor]:
    """Tensors of a preset's names and shapes that take no space in a file."""
    with torch.device("meta"):
        official = official_state_dict(build_dvis(dataclasses.replace(PRESETS[preset], **changes)))
    return {
        name: torch.zeros(1, dtype=value.dtype).expand(value.shape)
        if value.ndim
        else torch.zeros((), dtype=value.dtype)
        for name, value in official.items()
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.pth"


@pytest.mark.golden
@pytest.mark.parametrize("preset", KEY_LISTS)
def test_names_and_shapes_identify_every_published_configuration(preset: str, golden: GoldenFolders) -> None:
    listed = read_entries(golden / f"keys/{KEY_LISTS[preset]}.json")
    identity = identify({name: tuple(entry["shape"]) for name, entry in listed.items()})
    assert (identity.preset, identity.config) == (preset, PRESETS[preset])
    assert identity.load_with == f'"{preset}"'


KINDS = {
    "vspw_minvis_r50": "MinVIS segmenter (Mask2Former) with ResNet-50",
    "vspw_ctvis_r50": "CTVIS segmenter with ResNet-50",
    "vspw_online_r50": "DVIS++ online model with ResNet-50",
    "vspw_dvis1_offline_swinl": "first-version DVIS offline model with Swin-L",
}


@pytest.mark.parametrize("preset", KINDS)
def test_a_published_file_is_named_with_its_preset_and_numbers(preset: str, path: Path, golden: GoldenFolders) -> None:
    torch.save({"model": preset_state(preset), "iteration": 19_999}, path)
    found = explain(path).to_dict()
    listed = read_json(golden / f"keys/{KEY_LISTS[preset]}.json")
    assert found == {
        "kind": KINDS[preset],
        "preset": preset,
        "load_with": None,
        "container": "torch",
        "tensors": len(listed["entries"]),
        "numbers": found["numbers"],
        "iteration": 19_999,
        "num_classes": 124,
        "num_queries": 200 if preset.endswith("swinl") else 100,
        "backbone": KINDS[preset].rpartition(" ")[2],
        "model_parameters": listed["num_parameters"],
    }
    assert preset_for(path) == preset


def test_other_classes_need_a_changed_preset(path: Path) -> None:
    torch.save(preset_state("vspw_online_r50", num_classes=40, class_order=None), path)
    explanation = explain(path)
    expected = 'dataclasses.replace(PRESETS["vspw_online_r50"], num_classes=40, class_order=None)'
    assert (explanation.preset, explanation.load_with) == (None, expected)
    assert explanation.facts["nearest_preset"] == "vspw_online_r50"
    with pytest.raises(CheckpointError) as caught:
        preset_for(path)
    assert expected in str(caught.value)
    assert eval(expected, {"dataclasses": dataclasses, "PRESETS": PRESETS}).num_classes == 40


@pytest.mark.parametrize(("classes", "kind"), [(133, "COCO panoptic Mask2Former"), (80, "COCO instance Mask2Former")])
def test_coco_files_are_named(classes: int, kind: str, path: Path) -> None:
    arrays = {
        name.replace("query_feat", "static_query"): np.broadcast_to(value.numpy(), value.shape)
        for name, value in preset_state("vspw_minvis_r50", num_classes=classes, class_order=None).items()
        if not name.startswith("backbone.")
    }
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "third\x1bparty"}, protocol=2))
    explanation = explain(path)
    assert explanation.kind == f"{kind} with an unknown backbone"
    assert explanation.facts["container"] == "pickle"
    assert "author: third\\x1bparty" in str(explanation)
    assert str(explanation).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["cls_token", "blocks.0.attn.qkv.weight"], "a plain DINOv2 transformer"),
        (["patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"], "a plain Swin Transformer"),
        (["stem.conv1.weight", "res2.0.conv1.weight"], "a detectron2 ImageNet ResNet"),
        (["conv1_w", "res2_0_branch2a_w"], "a detectron2 ImageNet ResNet"),
        (["conv1.weight", "layer1.0.conv1.weight"], "a torchvision-style ImageNet ResNet"),
        (["model.pixel_level_module.encoder.x"], "a Mask2Former of transformers"),
        (["backbone.clip_model.visual.conv1.weight"], "an open-vocabulary model on CLIP"),
        (["tracker.decoder_norm.weight"], "a tracker without its segmenter"),
        (["anything"], "not a checkpoint of a known kind"),
    ],
)
def test_files_of_other_kinds_are_named(names: list[str], kind: str, path: Path) -> None:
    torch.save({name: torch.ones(1) for name in names}, path)
    explanation = explain(path)
    assert explanation.kind.startswith(kind)
    assert explanation.preset is explanation.load_with is None
    assert explanation.facts["first_names"] == sorted(names)
    with pytest.raises(CheckpointError, match="which no preset fits; `mvcseg inspect` says more"):
        preset_for(path)


def test_what_is_missing_extra_or_reshaped_is_counted_by_prefix(path: Path) -> None:
    state = preset_state("vspw_offline_r50")
    del state["refiner.conv_norms.0.weight"], state["sem_seg_head.predictor.level_embed.weight"]
    state["tracker.extra\x1b"] = torch.ones(1)
    state["tracker.decoder_norm.bias"] = torch.ones(3)
    torch.save(state, path)
    explanation = explain(path)
    assert explanation.preset is explanation.load_with is None
    facts = explanation.facts
    assert facts["nearest_preset"] == "vspw_offline_r50"
    assert facts["missing"] == {"refiner.*": 1, "sem_seg_head.predictor.*": 1}
    assert facts["unexpected"] == {"tracker.*": 1}
    assert facts["reshaped"] == {"tracker.decoder_norm.bias": "expected (512,), got (3,)"}
    assert max(map(len, str(explanation).splitlines())) <= 80


def test_numbers_that_are_not_finite_are_told(path: Path) -> None:
    state = preset_state("vspw_minvis_r50")
    state["backbone.stem.conv1.norm.bias"] = torch.full((64,), torch.nan)
    torch.save(state, path)
    facts = explain(path).facts
    assert (facts["not_finite"], facts["not_finite_count"]) == (["backbone.stem.conv1.norm.bias"], 1)


@pytest.mark.parametrize("backbone", [ResNetSizes(101), SwinSizes(96, (2, 2, 6, 2), (3, 6, 12, 24), 7)])
def test_a_backbone_without_a_preset_still_loads_by_a_configuration(backbone: Any, path: Path) -> None:
    torch.save(preset_state("vspw_minvis_r50", backbone=backbone), path)
    explanation = explain(path)
    assert explanation.preset is None
    assert explanation.load_with is not None
    assert explanation.load_with.startswith('DVISConfig(BACKBONES["')


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("sem_seg_head.predictor.class_embed.weight", ()),
        ("sem_seg_head.predictor.class_embed.weight", (1 << 40, 256)),
        ("sem_seg_head.predictor.query_feat.weight", (1 << 40, 256)),
        ("backbone.layers.0.blocks.0.attn.relative_position_bias_table", (0,)),
        ("backbone.layers.0.blocks.0.attn.relative_position_bias_table", (1 << 40, 1 << 20)),
        ("backbone.patch_embed.proj.weight", (1 << 50,)),
        ("tracker.transformer_ffn_layers.0.linear1.weight", (1 << 60, 1)),
    ],
)
def test_absurd_sizes_end_in_an_explanation(name: str, shape: tuple[int, ...], path: Path) -> None:
    state = preset_state("vspw_dvis1_online_swinl")
    torch.save({**state, name: torch.zeros(()).expand(shape) if shape != (0,) else torch.zeros(0)}, path)
    explanation = explain(path)
    assert explanation.preset is None
    json.dumps(explanation.to_dict())


def test_a_model_of_mvcseg_train_is_told_one_item_a_line() -> None:
    explanation = explain(packaged_checkpoint("mvc"))
    assert explanation.kind == "CompactSegmenter"
    assert explanation.facts["num_classes"] == len(explanation.facts["class_names"])
    lines = str(explanation).splitlines()
    assert max(map(len, lines)) <= 80
    assert "metadata:" in lines
    assert any(line.startswith("    learning_rate: ") for line in lines)
    json.dumps(explanation.to_dict())


def test_a_file_that_is_no_checkpoint_is_an_error(path: Path) -> None:
    path.write_text("words")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        explain(path)
