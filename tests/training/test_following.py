"""What a run shows while it goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mvcseg import PerFrame
from mvcseg.data.clip import PackedClip
from mvcseg.training import TrainConfig, read_log
from mvcseg.training.following import followed

CONFIG = TrainConfig(steps=2, batch_size=2, clip_length=3, crop_size=(32, 32))


def test_a_step_is_a_line_of_losses_rate_and_speed(tmp_path: Path) -> None:
    with followed(CONFIG, tmp_path, done=0, processes=2) as follower:
        assert follower.images == 12
        follower.step(1, {"loss": 2.0, "loss_masked": None}, learning_rate=0.1, seconds=0.5)
        follower.scores(1, {"mIoU": 0.25, "VC16": None})
    line, scores = read_log(tmp_path)
    assert line.pop("images_per_second") > 0
    assert line == {"step": 1, "loss": 2.0, "loss_masked": None, "lr": 0.1, "seconds": 0.5}
    assert scores == {"step": 1, "mIoU": 0.25, "VC16": None}
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["step"] == 1
    assert not (tmp_path / "tensorboard").exists()


def test_a_picture_is_written_where_reports_look(tmp_path: Path) -> None:
    batch = PackedClip(
        torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8),
        torch.randint(0, 4, (2, 3, 32, 32), dtype=torch.uint8),
        torch.tensor([[32, 32], [32, 32]]),
        0,
    )
    segmenter = PerFrame(nn.Conv2d(3, 4, 1), num_classes=4, logits_of=lambda out: out)
    with followed(CONFIG, tmp_path, done=0, processes=1) as follower:
        follower.picture(2, batch, segmenter, class_names=["a", "b", "c", "d"])
    assert (tmp_path / "pictures" / "step_2.png").stat().st_size > 0
    assert segmenter.training


def test_curves_are_written_where_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = TrainConfig(steps=2, tensorboard=True)
    with followed(config, tmp_path, done=0, processes=1) as follower:
        follower.step(1, {"loss": 2.0}, learning_rate=0.1, seconds=0.5)
    assert list((tmp_path / "tensorboard").iterdir())
