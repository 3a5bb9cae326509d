from __future__ import annotations

import dataclasses
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mvcseg.errors import CheckpointError, ConfigError
from mvcseg.models.compact_checkpoint import packaged_checkpoint
from mvcseg.models.dvis import BACKBONES as NAMED
from mvcseg.models.dvis import DVIS, PRESETS, DVISConfig, build_dvis, checkpoint, load_official, official_state_dict
from mvcseg.models.dvis.checkpoint import not_finite
from mvcseg.models.dvis.config import ResNetSizes, SwinSizes, ViTAdapterSizes
from mvcseg.models.dvis.identify import identify
from mvcseg.models.dvis.reading import read_state

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
ONLINE = dataclasses.replace(SMALL, has_refiner=False)
SEGMENTER = dataclasses.replace(ONLINE, has_tracker=False)


@pytest.fixture(scope="module")
def model() -> DVIS:
    torch.manual_seed(0)
    return build_dvis(SMALL)


@pytest.fixture(scope="module")
def state(model: DVIS) -> dict[str, Tensor]:
    return official_state_dict(model)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.pth"


def assert_same(model: DVIS, other: DVIS) -> None:
    first, second = model.state_dict(), other.state_dict()
    assert list(first) == list(second)
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert torch.equal(tensor, second[name]), name


BACKBONES = {
    "resnet": ResNetSizes(50),
    "resnet 18": ResNetSizes(18),
    "resnet 34": ResNetSizes(34),
    "swin": SMALL.backbone,
    "vit_adapter": ViTAdapterSizes(64, depth=4, heads=2, grid=5, stem_width=8),
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_saved_and_loaded_is_the_same_to_the_bit(backbone: str, path: Path) -> None:
    config = dataclasses.replace(SEGMENTER, backbone=BACKBONES[backbone])
    model = build_dvis(config)
    torch.save({"model": official_state_dict(model)}, path)
    loaded = load_official(path, preset=config)
    assert_same(model, loaded)
    assert not any(module.training for module in loaded.modules())
    kernel = loaded.sem_seg_head.pixel_decoder.layer_1.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("depth", [18, 34, 101])
def test_a_file_of_a_small_model_tells_its_own_configuration(depth: int, path: Path) -> None:
    small = dataclasses.replace(
        SMALL,
        backbone=ResNetSizes(depth),
        class_order=None,
        width=64,
        encoder_layers=2,
        encoder_hidden=48,
        decoder_layers=3,
        decoder_hidden=80,
    )
    torch.manual_seed(0)
    model = build_dvis(small)
    state = official_state_dict(model)
    identity = identify({name: tuple(tensor.shape) for name, tensor in state.items()})
    assert identity.config == small
    assert identity.load_with is not None
    config = eval(identity.load_with, {"DVISConfig": DVISConfig, "BACKBONES": NAMED})
    assert config == small
    torch.save({"model": state}, path)
    assert_same(model, load_official(path, preset=config))


@pytest.mark.parametrize("version", [1, 2])
def test_trackers_of_both_versions_survive_saving(version: Any, path: Path) -> None:
    config = dataclasses.replace(SMALL, version=version, has_reid=version == 2)
    model = build_dvis(config)
    torch.save(official_state_dict(model), path)
    assert_same(model, load_official(path, preset=config))


def test_a_loaded_model_gives_the_same_scores(model: DVIS, state: dict[str, Tensor], path: Path) -> None:
    torch.save({"model": state}, path)
    frames = torch.rand(1, 3, 3, 40, 56)
    with torch.inference_mode():
        # matrix products round by where their operands lie in memory, so not to the bit
        torch.testing.assert_close(load_official(path, preset=SMALL)(frames), model(frames), rtol=0, atol=1e-5)


def as_arrays(state: dict[str, Tensor], path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}, protocol=2))


WRITERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "bare": lambda state, path: torch.save(state, path),
    "with optimiser": lambda state, path: torch.save(
        {"model": state, "optimizer": {"state": {}}, "iteration": 1}, path
    ),
    "module.": lambda state, path: torch.save({f"module.{name}": value for name, value in state.items()}, path),
    "old torch": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "safetensors": lambda state, path: save_file(state, path),
    "detectron2 pickle": as_arrays,
    "static_query": lambda state, path: torch.save(
        {name.replace("query_feat", "static_query"): value for name, value in state.items()}, path
    ),
    "without the loss": lambda state, path: torch.save(
        {name: value for name, value in state.items() if not name.startswith("criterion.")}, path
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_layout_of_a_file_loads_the_same_model(
    writer: str, model: DVIS, state: dict[str, Tensor], path: Path
) -> None:
    WRITERS[writer](state, path)
    assert_same(load_official(path, preset=SMALL), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(dtype: torch.dtype, state: dict[str, Tensor], path: Path) -> None:
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    torch.save(cast, path)
    loaded = official_state_dict(load_official(path, preset=SMALL))
    assert all(torch.equal(loaded[name], cast[name].to(state[name].dtype)) for name in state if "criterion" not in name)


def test_the_official_state_dict_has_the_weights_of_the_loss(state: dict[str, Tensor]) -> None:
    weight = state["criterion.empty_weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.1]))


def test_the_official_state_dict_is_detached_and_contiguous(state: dict[str, Tensor]) -> None:
    assert all(value.is_contiguous() and not value.requires_grad for value in state.values())


def test_the_class_order_is_the_configurations_and_in_no_file(state: dict[str, Tensor], path: Path) -> None:
    assert not any("class_order" in name for name in state)
    torch.save(state, path)
    frames = torch.rand(1, 1, 3, 32, 32)
    plain = dataclasses.replace(SMALL, class_order=None)
    with torch.inference_mode():
        ordered, trained = (load_official(path, preset=config)(frames) for config in (SMALL, plain))
    assert torch.equal(ordered[:, :, [2, 0, 3, 1]], trained)


def without(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith(prefix)}


def refusal(content: object, path: Path, preset: str | DVISConfig) -> str:
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        load_official(path, preset=preset)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


def test_an_online_file_for_an_offline_model_is_told(state: dict[str, Tensor], path: Path) -> None:
    message = refusal(without(state, "refiner."), path, SMALL)
    assert message.startswith("does not fit the configuration given: missing refiner.* (")
    assert "it is a DVIS++ online model" in message
    assert "(no refiner)" in message


def test_an_offline_file_for_an_online_model_is_told(state: dict[str, Tensor], path: Path) -> None:
    message = refusal(state, path, ONLINE)
    assert "unexpected refiner.* (" in message
    assert "it is a DVIS++ offline model" in message
    assert "(a refiner)" in message


def test_a_missing_tensor_is_named(state: dict[str, Tensor], path: Path) -> None:
    name = "tracker.decoder_norm.weight"
    message = refusal({key: value for key, value in state.items() if key != name}, path, SMALL)
    assert "missing tracker.* (1)" in message
    assert "is incomplete or was changed" in message


def test_a_wrong_number_of_queries_is_told(state: dict[str, Tensor], path: Path) -> None:
    message = refusal(state, path, dataclasses.replace(SMALL, num_queries=7))
    assert "sem_seg_head.predictor.query_embed.weight (expected (7, 256), got (5, 256))" in message
    assert "(5 queries, not 7)" in message
    assert "DVISConfig(SwinSizes(" in message


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


@pytest.mark.parametrize(
    ("content", "preset", "told"),
    [
        (
            ("vspw_online_r50", {}),
            "vspw_offline_r50",
            "does not fit preset 'vspw_offline_r50': missing refiner.* (192): "
            'it is a DVIS++ online model with ResNet-50 (no refiner); it fits preset="vspw_online_r50"',
        ),
        (
            ("vspw_offline_r50", {"num_classes": 40, "class_order": None}),
            "vspw_offline_r50",
            "(40 classes, not 124); it fits "
            'preset=dataclasses.replace(PRESETS["vspw_offline_r50"], num_classes=40, class_order=None)',
        ),
        (
            ("vspw_minvis_r50", {"num_classes": 133, "class_order": None}),
            "vspw_minvis_r50",
            "it is a COCO panoptic Mask2Former with ResNet-50 (133 classes, not 124); it fits preset=dataclasses",
        ),
        (
            ("vspw_offline_vitl", {}),
            "vspw_offline_r50",
            'the model wanted has ResNet-50, 200 queries, not 100); it fits preset="vspw_offline_vitl"',
        ),
        (("vspw_minvis_r50", {}), "vspw_ctvis_r50", '(no re-identification head); it fits preset="vspw_minvis_r50"'),
        (("vspw_dvis1_online_swinl", {}), "vspw_online_vitl", "it is a first-version DVIS online model with Swin-L"),
        (("vspw_dvis1_online_swinl", {}), "vspw_online_vitl", "a tracker of version 1, not 2"),
        (
            ("vspw_minvis_r50", {"backbone": ResNetSizes(101)}),
            "vspw_minvis_r50",
            'DVISConfig(BACKBONES["ResNet-101"], ',
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_file_of_another_preset_is_one_error_that_names_what_fits(
    content: tuple[str, dict[str, Any]], preset: str, told: str, path: Path
) -> None:
    assert told in refusal(preset_state(content[0], **content[1]), path, preset)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"cls_token": torch.ones(1), "blocks.0.attn.qkv.weight": torch.ones(1)}, "it is a plain DINOv2 transformer"),
        ({"res2.0.conv1.weight": torch.ones(1)}, "it is a detectron2 ImageNet ResNet: the start of a backbone"),
        ({"conv1.weight": torch.ones(1), "layer1.0.conv1.weight": torch.ones(1)}, "torchvision-style ImageNet ResNet"),
        ({"a\x1b[31m\u202e": torch.ones(1)}, "it is not a checkpoint of a known kind"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_file_of_another_kind_is_named(state: dict[str, Tensor], told: str, path: Path) -> None:
    assert told in refusal(state, path, SMALL)


def test_a_file_of_mvcseg_train_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"is a compact model of `mvcseg train`, not preset 'vspw_minvis_r50'"):
        load_official(packaged_checkpoint("mvc"), preset="vspw_minvis_r50")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_counted_and_the_first_named(
    value: float, state: dict[str, Tensor], path: Path
) -> None:
    first, second = "backbone.norm1.bias", "tracker.decoder_norm.weight"
    broken = {name: tensor.clone() if name in (first, second) else tensor for name, tensor in state.items()}
    broken[first][1] = broken[second][-1] = value
    message = refusal(broken, path, SMALL)
    assert f"2 tensors hold NaN or infinite numbers, first {first}" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_number_is_asked_whether_it_is_finite(dtype: torch.dtype) -> None:
    plain = torch.linspace(-3, 3, 35).to(dtype).view(5, 7).t()
    state = {"empty": plain[:0], "plain": plain, "least": plain.clone(), "none": plain.clone(), "whole": plain.long()}
    state["least"][6, 4], state["none"][0, 3] = -torch.inf, torch.nan
    if dtype is torch.float64:
        state["large"] = plain * 1e300  # infinite in float32
    assert not_finite(state) == ["least", "none", "large"][: 3 if dtype is torch.float64 else 2]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda value: value.long(), "expected float32, got int64"),
        (lambda value: value.to(torch.complex64), "expected float32, got complex64"),
        (lambda value: value.to_sparse(), "is no plain tensor of numbers"),
        (lambda value: value.to("meta"), "is no plain tensor of numbers"),
        (lambda value: value[:-1], "got \\(7,\\)"),
    ],
)
def test_tensors_of_another_kind_are_refused(
    change: Callable[[Tensor], Tensor], told: str, state: dict[str, Tensor], path: Path
) -> None:
    message = refusal({**state, "backbone.norm0.bias": change(state["backbone.norm0.bias"])}, path, SMALL)
    assert re.search(told, message), message


def test_a_changed_index_of_windows_is_refused(state: dict[str, Tensor], path: Path) -> None:
    name = "backbone.layers.0.blocks.0.attn.relative_position_index"
    message = refusal({**state, name: state[name] + 1000}, path, SMALL)
    assert message.startswith(f"{name} is not the index of a window of 2")
    assert "expected int64, got complex64" in refusal({**state, name: state[name].to(torch.complex64)}, path, SMALL)


def test_a_tensor_that_only_claims_its_size_takes_no_memory(state: dict[str, Tensor], path: Path) -> None:
    """One number, expanded to a terabyte."""
    name = "tracker.decoder_norm.weight"
    huge = torch.zeros(1).expand(1 << 38)
    assert f"{name} (expected (512,), got ({1 << 38},))" in refusal({**state, name: huge}, path, SMALL)


def test_a_wrong_digest_or_preset_is_an_error_before_anything_is_built(state: dict[str, Tensor], path: Path) -> None:
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="expected SHA-256"):
        load_official(path, preset=SMALL, sha256="0" * 64)
    with pytest.raises(ConfigError, match="did you mean 'vspw_online_r50'"):
        load_official(path, preset="vspw_online_r5")


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_official(tmp_path / "none.pth", preset=SMALL)
    with pytest.raises(CheckpointError, match="got a folder"):
        load_official(tmp_path, preset=SMALL)


@pytest.mark.parametrize("preset", ["vspw_online_r50", "vspw_dvis1_online_swinl"])
@pytest.mark.slow
def test_a_whole_preset_survives_saving(preset: str, path: Path) -> None:
    model = build_dvis(preset)
    torch.save({"model": official_state_dict(model)}, path)
    assert_same(model, load_official(path, preset=preset))


@pytest.mark.parametrize("write", [torch.save, save_file])
def test_a_file_copied_in_many_pieces_gives_the_same_model(
    write: Callable[[Any, Path], None],
    model: DVIS,
    state: dict[str, Tensor],
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(state, path)
    monkeypatch.setattr(checkpoint, "_PIECE", 1 << 10)
    reads: list[Path] = []
    monkeypatch.setattr(checkpoint, "read_state", lambda file: reads.append(file) or read_state(file))
    assert_same(model, load_official(path, preset=SMALL))
    assert len(reads) > 10


def test_a_file_that_changes_while_it_is_read_is_refused(
    state: dict[str, Tensor], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state, path)

    def replaced(file: Path) -> Any:
        stored = read_state(file)
        os.utime(file, ns=(1, 1))
        return stored

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "read_state", replaced)
        with pytest.raises(CheckpointError, match="changed while it was read; load it again"):
            checkpoint.fill_model(read_state(path), SMALL, path=path)
