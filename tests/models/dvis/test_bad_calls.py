"""Calls that cannot work say so, and half precision does not spoil sums over time."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import pytest
import torch

import mvcseg
from mvcseg.cli import main
from mvcseg.errors import CheckpointError, ConfigError, DataError, DTypeError, ShapeError
from mvcseg.models.dvis import (
    BACKBONES,
    DVIS,
    DVISConfig,
    build_dvis,
    explain,
    load_official,
    official_state_dict,
)
from mvcseg.models.dvis.causal import CausalState
from mvcseg.tta import MeanTTA, View, vote_labels

VIDEO = torch.randint(0, 256, (3, 3, 32, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


SMALL = DVISConfig(
    BACKBONES["ResNet-50"],
    num_classes=5,
    class_order=None,
    num_queries=6,
    has_reid=True,
    has_tracker=True,
    tracker_layers=1,
    hidden=32,
)


@pytest.fixture(scope="module")
def model() -> DVIS:
    torch.manual_seed(0)
    return build_dvis(SMALL)


@pytest.mark.parametrize("size", [30, (30,), (10, 20, 30), (1.5, 20), None])
def test_an_output_size_is_two_whole_numbers(model: DVIS, size: Any) -> None:
    with pytest.raises(ConfigError, match="output_size: expected"):
        model.scores(torch.rand(1, 1, 3, 32, 40), output_size=size)


def test_an_output_size_may_be_any_pair_of_integers(model: DVIS) -> None:
    frames = VIDEO[None].float() / 255
    with torch.no_grad():
        expected = model.scores(frames, output_size=(20, 30))
        for size in ([20, 30], np.array([20, 30])):
            assert torch.equal(model.scores(frames, output_size=size), expected)  # type: ignore[arg-type]


def test_a_causal_source_gives_uint8_frames(model: DVIS) -> None:
    for items, error in (
        ([np.zeros((3, 32, 32), "uint8")], DTypeError),
        ([torch.zeros(3, 32, 32)], DTypeError),
        ([VIDEO[:0]], ShapeError),
        ([VIDEO[0, 0]], ShapeError),
    ):
        with pytest.raises(error, match="frames: expected"):
            list(model.stream_causal(items))  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="state: expected a CausalState"):
        list(model.stream_causal(VIDEO, state={}))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="height: expected"):
        list(model.stream_causal(VIDEO, output_size=(0, 30)))


def test_a_frame_that_fails_leaves_the_causal_state(model: DVIS, monkeypatch: pytest.MonkeyPatch) -> None:
    state = CausalState()
    next(model.stream_causal(VIDEO, state=state))
    before = state.logit_mean
    monkeypatch.setattr(model.tracker, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(model.stream_causal(VIDEO[1:], state=state))
    assert state.frames == 1
    assert state.logit_mean is before


def test_frames_of_any_float_type_are_taken(model: DVIS) -> None:
    frames = VIDEO[None].float() / 255
    with torch.no_grad():
        assert model(frames.double()).dtype == torch.float32
        assert model(frames.bfloat16()).dtype == torch.float32
    with pytest.raises(ShapeError, match="frames"):
        model(torch.rand(5))


def test_a_half_precision_model_composes(model: DVIS) -> None:
    import copy

    half = copy.deepcopy(model).bfloat16()
    assert mvcseg.predict_labels(MeanTTA(half, [View()]), VIDEO, clip_length=2).shape == (3, 32, 40)
    with torch.no_grad():
        assert half(VIDEO[None].float() / 255).dtype == torch.float32


def test_scores_under_autocast_are_float32_with_and_without_gradients(model: DVIS) -> None:
    frames = VIDEO[None].float() / 255
    with torch.autocast("cpu", torch.bfloat16):
        assert model(frames).dtype == torch.float32
        with torch.no_grad():
            assert model(frames).dtype == torch.float32


def test_the_running_mean_of_a_half_precision_model_keeps_up(model: DVIS) -> None:
    import copy

    half, state = copy.deepcopy(model).bfloat16(), CausalState()
    queries = half.segment(VIDEO[:1].bfloat16() / 255)
    half.segment = lambda _: queries  # type: ignore[method-assign]
    half.tracker.requires_grad_(False)
    for _ in half.stream_causal(VIDEO[:1].expand(600, -1, -1, -1), state=state):
        pass
    assert state.logit_mean is not None
    assert state.logit_mean.dtype == torch.float32
    reference = CausalState()
    for _ in half.stream_causal(VIDEO[:1].expand(20, -1, -1, -1), state=reference):
        pass
    # the picture stands still, so the mean does too; a sum of bfloat16 would have stopped growing at 256 frames
    torch.testing.assert_close(state.logit_mean, reference.logit_mean, rtol=0.1, atol=0.1)


def test_votes_wait_in_the_models_own_folder(model: DVIS, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    views = [View(), View(flip=True)]
    with pytest.raises(DataError, match="temporary folder"):
        vote_labels(model, VIDEO, views=views, clip_length=2)
    monkeypatch.setattr(model, "spill_folder", tmp_path)
    assert vote_labels(model, VIDEO, views=views, clip_length=2).shape == (3, 32, 40)
    assert list(tmp_path.iterdir()) == []


def test_a_spill_folder_may_be_bytes(model: DVIS, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(model, "spill_folder", bytes(tmp_path))
    assert sum(len(clip) for clip in model.stream_labels(VIDEO, clip_length=2)) == 3


def test_numbers_that_float32_cannot_hold_are_found_and_tensors_without_values_told(model: DVIS, tmp_path: Any) -> None:
    state, path = official_state_dict(model), tmp_path / "x.pth"
    name = "tracker.class_embed.weight"
    for broken in (state[name].double() * 1e300, state[name].to_sparse()):
        torch.save({"model": {**state, name: broken}}, path)
        assert explain(path).facts["not_finite"] == [name]
        with pytest.raises(CheckpointError, match=name):
            load_official(path, preset=SMALL)


def test_a_plain_state_dict_is_told_apart_from_the_published_layout(model: DVIS, tmp_path: Any) -> None:
    torch.save(model.state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="save official_state_dict"):
        load_official(tmp_path / "x.pth", preset=SMALL)


def test_a_pipe_is_not_divided_and_a_preset_is_checked_before_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "-", "--checkpoint", "x.pth", "--shard", "1/2", "--out", "x"]) == 2
    assert main(["predict", "x.mp4", "--checkpoint", "x.pth", "--preset", "vspw_ofline_r50", "--out", "x"]) == 1
    assert "vspw_offline_r50" in capsys.readouterr().err
