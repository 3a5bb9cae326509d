"""Farneback flow as tensor operations: OpenCV as the reference, batches, small frames, errors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.ops.farneback import farneback


@pytest.fixture(scope="module")
def frames() -> Tensor:
    """Three grey frames, uint8, of a window that moves over a photograph: 3 px right and 2 px down at each step."""
    from skimage.data import camera

    picture = torch.from_numpy(camera())
    return torch.stack([picture[100 + 2 * t : 250 + 2 * t, 80 + 3 * t : 281 + 3 * t] for t in range(3)])


def of_opencv(source: Tensor, target: Tensor, *numbers: float, flags: int = 0) -> np.ndarray:
    flow = cv2.calcOpticalFlowFarneback(source.numpy(), target.numpy(), None, *numbers, flags)
    return np.moveaxis(flow, 2, 0)


@pytest.mark.parametrize(
    ("scale", "levels", "window", "iterations", "poly_n", "sigma"),
    [(0.5, 3, 15, 3, 5, 1.2), (0.5, 0, 15, 1, 5, 1.2), (0.7, 4, 21, 2, 7, 1.5), (0.5, 1, 20, 3, 5, 1.1)],
)
def test_flow_is_opencvs(
    device: torch.device,
    frames: Tensor,
    scale: float,
    levels: int,
    window: int,
    iterations: int,
    poly_n: int,
    sigma: float,
) -> None:
    got = farneback(
        frames[1:].float().to(device),
        frames[:-1].float().to(device),
        pyramid_scale=scale,
        levels=levels,
        window=window,
        iterations=iterations,
        poly_n=poly_n,
        poly_sigma=sigma,
    ).cpu()
    for pair in range(2):
        expected = of_opencv(frames[pair + 1], frames[pair], scale, levels, window, iterations, poly_n, sigma)
        error = np.linalg.norm(got[pair].numpy() - expected, axis=0)
        assert error.mean() < 1e-3
        assert error.max() < 0.05


@pytest.mark.parametrize("size", [(96, 128), (121, 87), (200, 213)])
@pytest.mark.parametrize("texture", ["camera", "brick", "grass", "noise"])
@pytest.mark.parametrize("step", [(1, 2), (-4, 3), (0, -7)])
def test_flow_of_textures_is_opencvs(size: tuple[int, int], texture: str, step: tuple[int, int]) -> None:
    """End points lie less than 0.05 pixels apart on average, whatever the texture, the size and the motion."""
    from skimage import data, filters

    if texture == "noise":
        blurred = filters.gaussian(np.random.default_rng(0).random((512, 512)), 2)
        picture = np.round(255 * (blurred - blurred.min()) / np.ptp(blurred)).astype(np.uint8)
    else:
        picture = getattr(data, texture)()
    rows, columns = (slice(100, 100 + side) for side in size)
    moved_rows, moved_columns = (slice(100 + d, 100 + d + side) for d, side in zip(step, size, strict=True))
    first, second = (
        torch.from_numpy(np.ascontiguousarray(x)) for x in (picture[rows, columns], picture[moved_rows, moved_columns])
    )
    got = farneback(first[None].float(), second[None].float())[0].numpy()
    expected = of_opencv(first, second, 0.5, 3, 15, 3, 5, 1.2)
    assert np.linalg.norm(expected, axis=0).mean() > 0.5
    assert np.linalg.norm(got - expected, axis=0).mean() < 0.05


def test_window_weighed_by_a_gaussian_is_opencvs(frames: Tensor) -> None:
    got = farneback(frames[:1].float(), frames[1:2].float(), gaussian_window=True)[0].numpy()
    expected = of_opencv(frames[0], frames[1], 0.5, 3, 15, 3, 5, 1.2, flags=cv2.OPTFLOW_FARNEBACK_GAUSSIAN)
    assert np.linalg.norm(got - expected, axis=0).mean() < 1e-3


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 40), (10, 60), (9, 60), (60, 7), (6, 8), (5, 60), (3, 4)])
def test_small_frames_have_fewer_levels_as_in_opencv(frames: Tensor, size: tuple[int, int]) -> None:
    small = frames[:2, : size[0], : size[1]].contiguous()
    got = farneback(small[:1].float(), small[1:].float())[0].numpy()
    expected = of_opencv(small[0], small[1], 0.5, 3, 15, 3, 5, 1.2)
    assert np.linalg.norm(got - expected, axis=0).mean() < 1e-3


def test_a_pair_does_not_depend_on_the_others(frames: Tensor) -> None:
    real = frames.float()
    together = farneback(real[1:], real[:-1])
    for pair in range(2):
        assert torch.equal(farneback(real[pair + 1 : pair + 2], real[pair : pair + 1])[0], together[pair])


def test_frames_that_stand_still_do_not_flow(frames: Tensor) -> None:
    """But near the last row and column, which OpenCV compares with nothing; coarse levels carry that inwards."""
    flow = farneback(frames[:1].float(), frames[:1].float())[0].norm(dim=0)
    assert (flow < 1e-3).float().mean() > 0.9
    assert flow[:20, :20].max() < 1e-3


@pytest.mark.parametrize("size", [(1, 1), (5, 9)])
def test_tiny_frames_give_finite_flow(size: tuple[int, int]) -> None:
    first, second = torch.rand(2, 1, *size) * 255
    assert farneback(first, second).isfinite().all()


def test_frames_of_other_shapes_and_dtypes_are_refused(frames: Tensor) -> None:
    with pytest.raises(ShapeError, match="target"):
        farneback(frames[:2].float(), frames[:1].float())
    with pytest.raises(DTypeError, match="source"):
        farneback(frames[:1], frames[1:2])
