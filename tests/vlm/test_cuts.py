from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tube_scenes import scene

from mvcseg.data import open_video
from mvcseg.flow import FarnebackFlow
from mvcseg.ops.warp import warp_labels
from mvcseg.vlm.cuts import is_cut

PICTURE = scene(seed=1)[1].int().numpy()
OTHER = scene(seed=2)[1].int().numpy()


def test_frame_that_shows_the_same_is_no_cut_whatever_its_light_and_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 50, PICTURE.shape)  # a correlation of 0.83 after averaging
    for now in (PICTURE, PICTURE // 4, 100 + PICTURE // 2, PICTURE + noise):
        assert not is_cut(PICTURE, now)


def test_frame_that_shows_another_scene_or_nothing_is_a_cut() -> None:
    for now in (OTHER, 255 - PICTURE, np.zeros_like(PICTURE)):
        assert is_cut(PICTURE, now)
        assert is_cut(now, PICTURE)


def test_half_a_frame_of_the_same_is_enough() -> None:
    half, less = PICTURE.copy(), PICTURE.copy()
    half[:, :112], less[:, :144] = OTHER[:, :112], OTHER[:, :144]
    assert not is_cut(PICTURE, half)
    assert is_cut(PICTURE, less)


def test_pixels_that_the_flow_brings_from_outside_say_nothing() -> None:
    moved = PICTURE.copy()
    moved[:, :144] = -1
    assert not is_cut(moved, np.where(moved < 0, OTHER, PICTURE))
    assert not is_cut(np.full_like(PICTURE, -1), PICTURE)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 16), (17, 40)])
def test_frames_too_small_or_too_plain_to_tell_are_not_cut(size: tuple[int, int]) -> None:
    assert not is_cut(PICTURE[: size[0], : size[1]], OTHER[: size[0], : size[1]])
    plain, spot = np.full((480, 640), 90), np.full((480, 640), 90)
    spot[100:120, 100:120] = 200  # structure in 4 of 1200 blocks
    assert not is_cut(plain, spot)
    assert not is_cut(plain, plain + 100)


@pytest.mark.slow
def test_real_pairs_are_told_from_cuts(shared_data: Path) -> None:
    flow = FarnebackFlow()
    folders = [shared_data / "camvid/data" / name for name in ("0016E5_07959", "0016E5_08035")]
    folders += sorted((shared_data / "vspw_sample/data").iterdir())
    clips = [open_video(folder / "origin")[0:37:9] for folder in folders]
    for folder in folders:
        clip = open_video(folder / "origin")[0:5]
        assert [cut_between(clip[0], clip[k], flow=flow) for k in (1, 3)] == [False, False]
    for one, other in zip(clips, clips[1:] + clips[:1], strict=True):
        height, width = (min(a, b) for a, b in zip(one.shape[2:], other.shape[2:], strict=True))
        for before, now in zip(one[..., :height, :width], other[..., :height, :width], strict=True):
            assert cut_between(before, now, flow=flow)


def cut_between(before: torch.Tensor, now: torch.Tensor, *, flow: FarnebackFlow) -> bool:
    grey = torch.stack([before, now]).float().mean(dim=1).int()
    moved = warp_labels(grey[:1] + 256, flow(now[None] / 255, before[None] / 255)) - 256
    return is_cut(moved[0].numpy(), grey[1].numpy())
