"""The whole model in half precision: it runs, and its class map is nearly that of single precision."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from golden_files import Golden, GoldenFolders, fill_module

from mvcseg.models.backbones import resnet
from mvcseg.models.dvis.build import build_empty
from mvcseg.models.dvis.config import PRESETS

SHARE, DEVIATION = 0.9, 0.1
"""Least share of pixels of equal class; most that a score may be off, as a share of the highest."""


@pytest.mark.golden
@pytest.mark.slow
def test_scores_under_bf16_autocast_are_nearly_those_of_single_precision(golden: GoldenFolders) -> None:
    video = Golden(golden / "forward/r50_online_b.npz").frames()
    model = build_empty(dataclasses.replace(PRESETS["vspw_offline_r50"], class_order=None))
    for name in ("sem_seg_head", "tracker", "refiner"):
        fill_module(getattr(model, name), prefix=f"{name}.")
    fill_module(model.backbone, prefix="backbone.", names=resnet.to_official)
    frames = video[None] / 255
    with torch.no_grad():
        full = model.scores(frames, output_size=(100, 130))
        with torch.autocast("cpu", torch.bfloat16):
            half = model.scores(frames, output_size=(100, 130))
    labels = full.argmax(dim=2)
    assert len(labels.unique()) > 1
    assert half.dtype == torch.float32
    assert (labels == half.argmax(dim=2)).double().mean() > SHARE
    assert (full - half).abs().max() < DEVIATION * full.max()
