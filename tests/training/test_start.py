"""A stage starts from the one before, to the bit; anything else is refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mvcseg.errors import CheckpointError, ConfigError
from mvcseg.models.backbones import resnet, swin
from mvcseg.models.dvis import DVIS, DVISConfig, build_dvis, load_official, official_state_dict
from mvcseg.models.dvis.config import ResNetSizes, SwinSizes, ViTAdapterSizes
from mvcseg.models.dvis.trained import save_trained
from mvcseg.training.start import start_stage

SWIN = SwinSizes(16, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=4)
MINVIS = DVISConfig(
    SWIN,
    num_classes=5,
    num_queries=6,
    class_order=None,
    width=32,
    encoder_layers=1,
    encoder_hidden=32,
    decoder_layers=1,
    decoder_hidden=32,
    tracker_layers=1,
    refiner_layers=1,
    hidden=32,
)
CTVIS = dataclasses.replace(MINVIS, has_reid=True)
ONLINE = dataclasses.replace(CTVIS, has_tracker=True)
OFFLINE = dataclasses.replace(ONLINE, has_refiner=True)
FIRST = dataclasses.replace(MINVIS, version=1)
FIRST_ONLINE = dataclasses.replace(FIRST, has_tracker=True)
FIRST_OFFLINE = dataclasses.replace(FIRST_ONLINE, has_refiner=True)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Writes a fresh model, or tensors, in the published layout."""

    def write(content: DVIS | DVISConfig | dict[str, Tensor]) -> str:
        if isinstance(content, DVISConfig):
            torch.manual_seed(1)
            content = build_dvis(content)
        state = official_state_dict(content) if isinstance(content, DVIS) else content
        torch.save({"model": state}, tmp_path / "start.pth")
        return str(tmp_path / "start.pth")

    return write


def tensors_of(path: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["model"]
    return state


STEPS = {
    "re-id head": (MINVIS, CTVIS),
    "tracker": (CTVIS, ONLINE),
    "refiner": (ONLINE, OFFLINE),
    "first tracker": (FIRST, FIRST_ONLINE),
    "first refiner": (FIRST_ONLINE, FIRST_OFFLINE),
    "segmenter again": (CTVIS, CTVIS),
    "tracker again": (ONLINE, ONLINE),
    "refiner again": (OFFLINE, OFFLINE),
}


@pytest.mark.parametrize("step", STEPS)
def test_the_stage_before_is_taken_over_to_the_bit_and_the_new_part_is_drawn(step: str, save: Any) -> None:
    before, after = STEPS[step]
    path = save(before)
    torch.manual_seed(7)
    model = start_stage(after, path)
    torch.manual_seed(7)
    drawn = official_state_dict(build_dvis(after))
    stored, state = tensors_of(path), official_state_dict(model)
    assert list(state) == list(drawn)
    for name, tensor in state.items():
        assert torch.equal(tensor, stored.get(name, drawn[name])), name
    assert (len(state) > len(stored)) == (before != after)


@pytest.mark.parametrize("config", [CTVIS, ONLINE, OFFLINE, FIRST_OFFLINE], ids=["ctvis", "online", "offline", "first"])
def test_what_was_started_returns_through_the_published_layout(config: DVISConfig, save: Any) -> None:
    model = start_stage(config, save(config))
    loaded = load_official(save(model), preset=config)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_three_stages_in_a_row_keep_the_segmenter(save: Any) -> None:
    first = start_stage(CTVIS, save(CTVIS))
    second = start_stage(ONLINE, save(first))
    third = start_stage(OFFLINE, save(second))
    for name, tensor in second.state_dict().items():
        assert torch.equal(third.state_dict()[name], tensor)
        if name in first.state_dict():
            assert torch.equal(first.state_dict()[name], tensor)


def test_a_file_of_mvcseg_train_starts_a_stage_too(tmp_path: Path) -> None:
    model = build_dvis(CTVIS)
    names = [f"class {index}" for index in range(5)]
    save_trained(model, tmp_path / "model.safetensors", config=CTVIS, class_names=names)
    started = start_stage(ONLINE, tmp_path / "model.safetensors", class_names=names)
    assert all(torch.equal(tensor, started.state_dict()[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(
        CheckpointError,
        match=r"its class 4 is 'class 4', that of the data is 'sky'; new_classes=True \(.new_classes.: true in",
    ):
        start_stage(ONLINE, tmp_path / "model.safetensors", class_names=[*names[:4], "sky"])
    start_stage(ONLINE, tmp_path / "model.safetensors", class_names=[*names[:4], "sky"], new_classes=True)
    ordered = dataclasses.replace(ONLINE, class_order=(1, 0, 2, 3, 4))
    with pytest.raises(CheckpointError, match="numbers its classes in another class_order than the model"):
        start_stage(ordered, tmp_path / "model.safetensors")


def test_coco_weights_start_a_segmenter_of_other_classes_when_asked_to(save: Any) -> None:
    path = save(dataclasses.replace(MINVIS, num_classes=133))
    with pytest.raises(
        CheckpointError, match=r"has 133 classes, the model to be trained has 5; new_classes=True \(\"new_cl"
    ):
        start_stage(CTVIS, path)
    stored = tensors_of(path)
    torch.manual_seed(7)
    model = start_stage(CTVIS, path, new_classes=True)
    torch.manual_seed(7)
    drawn = official_state_dict(build_dvis(CTVIS))
    for name, tensor in official_state_dict(model).items():
        is_drawn = "class_embed" in name or "reid_embed" in name or name.startswith("criterion.")
        assert torch.equal(tensor, drawn[name] if is_drawn else stored[name]), name


def test_new_classes_draws_heads_even_where_the_numbers_agree(save: Any) -> None:
    path = save(ONLINE)
    stored, state = tensors_of(path), official_state_dict(start_stage(ONLINE, path, new_classes=True))
    drawn = {name for name, tensor in state.items() if not torch.equal(tensor, stored[name])}
    assert drawn == {name for name in state if ".class_embed." in name}
    assert len(drawn) == 4


@pytest.mark.parametrize(
    ("content", "config", "told"),
    [
        (
            MINVIS,
            ONLINE,
            r"training a tracker, .* segmenter with a trained re-id.* missing sem_seg_head",
        ),
        (CTVIS, OFFLINE, r"training a refiner, which starts from an online model: missing tracker.\* \(36\)"),
        (ONLINE, CTVIS, r"training a segmenter: unexpected tracker.\*"),
        (OFFLINE, ONLINE, r"training a tracker.*: unexpected refiner.\*"),
        (FIRST_ONLINE, OFFLINE, r"a tracker of version 1, not 2"),
        (dataclasses.replace(CTVIS, num_queries=9), ONLINE, r"query_feat.weight \(expected \(6, 32\), got \(9, 32\)\)"),
    ],
    ids=["no re-id", "no tracker", "tracker left", "refiner left", "version", "queries"],
)
def test_a_file_that_is_no_start_is_refused_by_what_is_amiss(
    content: DVISConfig, config: DVISConfig, told: str, save: Any
) -> None:
    with pytest.raises(CheckpointError, match=told) as error:
        start_stage(config, save(content))
    assert "preset" not in str(error.value)


def test_half_a_part_is_not_drawn_anew(save: Any) -> None:
    state = official_state_dict(build_dvis(ONLINE))
    del state["tracker.ref_proj.layers.0.weight"]
    with pytest.raises(CheckpointError, match=r"missing tracker.ref_proj.layers.0.weight|missing tracker"):
        start_stage(ONLINE, save(state))


def test_broken_weights_are_refused(save: Any) -> None:
    state = official_state_dict(build_dvis(CTVIS))
    state["sem_seg_head.predictor.query_feat.weight"] = torch.full((6, 32), torch.nan)
    with pytest.raises(CheckpointError, match=r"query_feat.weight holds NaN or infinite numbers"):
        start_stage(CTVIS, save(state))


def test_no_file_and_no_preset_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        start_stage(CTVIS, tmp_path / "none.pth")
    with pytest.raises(ConfigError, match=r"preset: 'vspw_onlin_r50' is unknown"):
        start_stage("vspw_onlin_r50", tmp_path / "none.pth")


def resnet_states() -> dict[str, dict[str, Tensor]]:
    """An ImageNet ResNet-18 as torchvision and as detectron2 name its tensors."""
    torch.manual_seed(3)
    net = resnet.ResNet(18)
    own = {name: torch.rand_like(tensor) for name, tensor in net.state_dict().items()}
    torchvision = own | {"fc.weight": torch.rand(9, 512), "bn1.num_batches_tracked": torch.tensor(3)}
    detectron2 = {resnet.to_official(name): tensor for name, tensor in own.items()}
    return {"torchvision": torchvision, "detectron2": detectron2 | {"stem.fc.weight": torch.rand(9, 512)}}


@pytest.mark.parametrize("kind", ["torchvision", "detectron2"])
def test_an_imagenet_resnet_starts_a_segmenters_backbone(kind: str, save: Any) -> None:
    states = resnet_states()
    config = dataclasses.replace(CTVIS, backbone=ResNetSizes(18))
    model = start_stage(config, save(states[kind]))
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, states["torchvision"][name]), name
    with pytest.raises(CheckpointError, match=r"is a backbone of other sizes than the model's: backbone.\*"):
        start_stage(dataclasses.replace(config, backbone=ResNetSizes(50)), save(states[kind]))
    with pytest.raises(CheckpointError, match="no start for training a tracker"):
        start_stage(dataclasses.replace(ONLINE, backbone=ResNetSizes(18)), save(states[kind]))


def test_dinov2_starts_the_transformer_of_an_adapter(save: Any) -> None:
    config = dataclasses.replace(CTVIS, backbone=ViTAdapterSizes(64, depth=4, heads=2, grid=5, stem_width=8))
    vit = build_dvis(config).backbone.vit_module
    state = {name: torch.rand_like(tensor) for name, tensor in vit.state_dict().items()}
    state["patch_embed.proj.weight"] = torch.rand(64, 3, 14, 14)
    started = start_stage(config, save(state)).backbone.vit_module.state_dict()
    assert started["patch_embed.proj.weight"].shape == (64, 3, 16, 16)
    assert all(torch.equal(started[name], state[name]) for name in state if name != "patch_embed.proj.weight")


def test_a_swin_of_timm_starts_a_segmenters_backbone(save: Any) -> None:
    net = build_dvis(CTVIS).backbone
    own = {
        name: torch.rand_like(tensor)
        for name, tensor in net.state_dict().items()
        if tensor.is_floating_point() and not name.startswith("norm")
    }
    state = {swin.to_timm(name): tensor for name, tensor in own.items()} | {"head.fc.weight": torch.rand(9, 128)}
    started = start_stage(CTVIS, save(state)).backbone.state_dict()
    assert all(torch.equal(started[name], tensor) for name, tensor in own.items())
