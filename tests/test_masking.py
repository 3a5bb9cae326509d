from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mvcseg import IMAGENET_MEAN, IMAGENET_STD
from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.masking import PatchMask, apply_mask, patch_mask


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_cell_is_kept_when_its_draw_exceeds_the_ratio() -> None:
    draws = 1 - torch.rand(2, 3, 1, 2, 3, generator=seeded())
    mask = patch_mask(torch.zeros(2, 3, 3, 8, 10), patch_size=4, ratio=0.4, generator=seeded())
    for row in range(8):
        for column in range(10):
            assert torch.equal(mask[..., row, column], draws[..., row // 4, column // 4] > 0.4)


def test_the_last_cells_are_cut_at_the_border() -> None:
    mask = patch_mask(torch.zeros(1, 1, 3, 5, 7), patch_size=4, ratio=0.5, generator=seeded(3))[0, 0, 0]
    for rows in (slice(0, 4), slice(4, 5)):
        for columns in (slice(0, 4), slice(4, 7)):
            assert len(mask[rows, columns].unique()) == 1


def test_frames_are_masked_independently_and_a_tube_is_not() -> None:
    clip = torch.zeros(2, 4, 3, 64, 64)
    each = patch_mask(clip, patch_size=8, ratio=0.5, generator=seeded())
    tube = patch_mask(clip, patch_size=8, ratio=0.5, tube=True, generator=seeded())
    assert not torch.equal(each[:, 0], each[:, 1])
    assert all(torch.equal(tube[:, 0], tube[:, frame]) for frame in range(4))
    assert not torch.equal(tube[0], tube[1])
    assert tube.shape == each.shape == (2, 4, 1, 64, 64)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.7])
def test_the_hidden_share_lies_within_a_binomial_bound(ratio: float) -> None:
    mask = patch_mask(torch.zeros(1, 1, 1, 200, 200), patch_size=1, ratio=ratio, generator=seeded())
    deviation = math.sqrt(ratio * (1 - ratio) / 40_000)
    assert abs((~mask).float().mean().item() - ratio) < 4 * deviation


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    patch_size=st.integers(1, 50),
    grid=st.sampled_from(["crop", "stretch"]),
    tube=st.booleans(),
)
def test_ratio_zero_keeps_and_ratio_one_hides_everything(
    height: int, width: int, patch_size: int, grid: str, tube: bool
) -> None:
    clip = torch.zeros(1, 2, 3, height, width)
    for ratio, kept in ((0, True), (1, False)):
        mask = patch_mask(clip, patch_size=patch_size, ratio=ratio, grid=grid, tube=tube)  # type: ignore[arg-type]
        assert mask.shape == (1, 2, 1, height, width)
        assert bool((mask == kept).all())


@pytest.mark.parametrize(("height", "width", "patch_size"), [(480, 853, 64), (33, 47, 16), (7, 9, 32), (1, 1, 5)])
def test_stretched_cells_equal_nearest_resizing(height: int, width: int, patch_size: int) -> None:
    cells = max(1, round(height / patch_size)), max(1, round(width / patch_size))
    coarse = (1 - torch.rand(1, 2, 1, *cells, generator=seeded())) > 0.5
    expected = functional.interpolate(coarse[:, :, 0].double(), size=(height, width), mode="nearest").bool()
    mask = patch_mask(
        torch.zeros(1, 2, 3, height, width), patch_size=patch_size, ratio=0.5, grid="stretch", generator=seeded()
    )
    assert torch.equal(mask[:, :, 0], expected)


def test_the_same_seed_gives_the_same_mask_on_every_device_and_dtype(device: torch.device) -> None:
    reference = patch_mask(torch.zeros(1, 2, 3, 30, 50), patch_size=8, ratio=0.5, generator=seeded())
    for dtype in (torch.float32, torch.bfloat16, torch.uint8):
        frames = torch.zeros(1, 2, 3, 30, 50, dtype=dtype, device=device)
        mask = patch_mask(frames, patch_size=8, ratio=0.5, generator=seeded())
        assert mask.device == frames.device
        assert torch.equal(mask.cpu(), reference)


def test_the_object_is_the_function() -> None:
    clip = torch.zeros(1, 2, 3, 30, 50)
    mask = PatchMask(8, 0.5, grid="stretch", tube=True)
    expected = patch_mask(clip, patch_size=8, ratio=0.5, grid="stretch", tube=True, generator=seeded())
    assert torch.equal(mask(clip, generator=seeded()), expected)


def test_hidden_pixels_show_the_fill_and_visible_ones_are_unchanged() -> None:
    clip = torch.rand(1, 2, 3, 12, 20)
    mask = patch_mask(clip, patch_size=4, ratio=0.5, generator=seeded())
    before = clip.clone()
    masked = apply_mask(clip, mask, fill=(0.1, 0.2, 0.3))
    kept = mask.expand_as(clip)
    assert torch.equal(masked[kept], clip[kept])
    for channel, value in enumerate((0.1, 0.2, 0.3)):
        assert (masked[:, :, channel][~mask[:, :, 0]] == value).all()
    assert torch.equal(clip, before)


@pytest.mark.parametrize("fill", [np.float32(0.25), torch.tensor(0.25), np.array([0.25] * 3), torch.full((3,), 0.25)])
def test_a_fill_may_be_a_number_of_numpy_or_torch(fill: Any) -> None:
    hidden = apply_mask(torch.zeros(1, 1, 3, 2, 4), torch.zeros(1, 1, 1, 2, 4, dtype=torch.bool), fill=fill)
    assert torch.equal(hidden, torch.full((1, 1, 3, 2, 4), 0.25))


def test_the_default_fill_is_zero_after_normalisation() -> None:
    clip = torch.rand(1, 1, 3, 4, 4)
    masked = apply_mask(clip, torch.zeros(1, 1, 1, 4, 4, dtype=torch.bool))
    mean, std = (torch.tensor(values).view(1, 1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    assert ((masked - mean) / std).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    mask = torch.ones(1, 1, 1, 4, 4, dtype=torch.bool)
    assert apply_mask(torch.zeros(1, 1, 3, 4, 4, dtype=dtype), mask, fill=0).dtype == dtype


def test_gradients_flow_through_visible_pixels_alone() -> None:
    clip = torch.rand(1, 1, 3, 4, 4, requires_grad=True)
    mask = patch_mask(clip, patch_size=2, ratio=0.5, generator=seeded())
    apply_mask(clip, mask).sum().backward()
    assert clip.grad is not None
    assert torch.equal(clip.grad, mask.expand_as(clip).float())


@pytest.mark.parametrize("ratio", [-0.1, 1.1, math.nan])
def test_a_ratio_outside_the_unit_interval_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="ratio: expected"):
        PatchMask(8, ratio)


def test_bad_numbers_shapes_and_types_are_refused() -> None:
    clip, mask = torch.zeros(1, 2, 3, 8, 8), torch.ones(1, 2, 1, 8, 8, dtype=torch.bool)
    with pytest.raises(ConfigError, match="patch_size: expected an integer of at least 1, got 0"):
        patch_mask(clip, patch_size=0, ratio=0.5)
    with pytest.raises(ConfigError, match="grid: expected 'crop' or 'stretch', got 'tiles'"):
        patch_mask(clip, patch_size=4, ratio=0.5, grid="tiles")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="frames: expected"):
        patch_mask(clip[0], patch_size=4, ratio=0.5)
    with pytest.raises(ShapeError, match=r"mask: expected .* with h=8 from frames"):
        apply_mask(clip, mask[..., :4, :])
    with pytest.raises(DTypeError, match="mask: expected bool"):
        apply_mask(clip, mask.float())
    with pytest.raises(DTypeError, match="frames: expected a floating-point tensor"):
        apply_mask(clip.byte(), mask)
    with pytest.raises(ConfigError, match="fill: expected a number or 3 of them"):
        apply_mask(clip, mask, fill=(0.0, 1.0))
    for fill in ("mean", None, [[0.5]] * 3):
        with pytest.raises(ConfigError, match="fill: expected a number or 3 of them"):
            apply_mask(clip, mask, fill=fill)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="ratio: expected"):
        PatchMask(8, "half")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="fill: expected finite numbers"):
        apply_mask(clip, mask, fill=math.nan)
