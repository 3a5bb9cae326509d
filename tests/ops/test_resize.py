from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.ops.resize import pad_to_multiple, resize_frames, resize_scores, short_side_size


@pytest.mark.parametrize("size", [(13, 17), (50, 64), (40, 31)])
def test_bytes_are_resized_as_pillow_does(size: tuple[int, int]) -> None:
    frame = torch.randint(0, 256, (3, 33, 47), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(frame.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    resized = resize_frames(frame, size=size)
    assert resized.dtype == torch.uint8
    assert (resized.int() - expected.int()).abs().max() <= 1


def test_leading_axes_are_kept() -> None:
    frames = torch.rand(2, 5, 3, 20, 30)
    assert resize_frames(frames, size=(10, 15)).shape == (2, 5, 3, 10, 15)
    assert torch.equal(resize_scores(frames, size=(25, 40))[1, 2], resize_scores(frames[1, 2], size=(25, 40)))


def test_the_same_size_is_the_same_tensor() -> None:
    frames = torch.rand(1, 3, 20, 30)
    assert resize_frames(frames, size=(20, 30)) is frames
    assert resize_scores(frames, size=(20, 30)) is frames


def test_a_constant_stays_constant() -> None:
    resized = resize_scores(torch.full((1, 4, 7, 9), 0.25), size=(20, 31))
    assert torch.allclose(resized, torch.full((1, 4, 20, 31), 0.25), rtol=1e-6, atol=0)


def test_short_side_keeps_the_aspect_and_the_cap() -> None:
    assert short_side_size((480, 853), short_side=720) == (720, 1280)
    assert short_side_size((853, 480), short_side=720) == (1280, 720)
    assert short_side_size((400, 1000), short_side=720, long_side=1333) == (533, 1333)


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), multiple=st.integers(1, 40))
def test_padding_is_undone_by_cropping(height: int, width: int, multiple: int) -> None:
    images = torch.rand(2, 3, height, width)
    padded = pad_to_multiple(images, multiple=multiple, value=7.0)
    assert padded.shape[-2] % multiple == padded.shape[-1] % multiple == 0
    assert torch.equal(padded[..., :height, :width], images)
    assert (padded[..., height:, :] == 7).all()
    assert (padded[..., :, width:] == 7).all()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ShapeError, match="frames: expected at least three axes"):
        resize_frames(torch.zeros(4, 4), size=(2, 2))
    with pytest.raises(ConfigError, match="height: expected an integer of at least 1"):
        resize_scores(torch.zeros(1, 4, 4), size=(0, 2))
    with pytest.raises(ConfigError, match="short_side"):
        short_side_size((4, 4), short_side=0)
    with pytest.raises(ConfigError, match="long_side"):
        short_side_size((4, 4), short_side=4, long_side=0)
    with pytest.raises(ConfigError, match="multiple"):
        pad_to_multiple(torch.zeros(1, 4, 4), multiple=0)
