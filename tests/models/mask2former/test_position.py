from __future__ import annotations

import math

import pytest
import torch
from golden_files import Golden, GoldenFolders

from mvcseg.errors import ConfigError
from mvcseg.models.mask2former.position import sine_position


@pytest.mark.golden
def test_is_the_reference_encoding(golden: GoldenFolders) -> None:
    stored = Golden(golden / "ops/position_sine_2d.npz")
    for name in stored.arrays:
        height, width = map(int, name.removeprefix("pe_").split("x"))
        for dtype in (torch.float32, torch.float64):
            got = sine_position(height, width, channels=256, dtype=dtype)
            assert got.dtype == dtype
            torch.testing.assert_close(got.permute(2, 0, 1)[None].float(), stored.tensor(name), rtol=0, atol=1e-6)


def test_small_case_by_hand() -> None:
    got = sine_position(2, 3, channels=4, dtype=torch.float64)
    row, column = math.pi, 2 * math.pi / 3  # of the first pixel, the last at 2 pi
    expected = torch.tensor([math.sin(row), math.cos(row), math.sin(column), math.cos(column)], dtype=torch.float64)
    torch.testing.assert_close(got[0, 0], expected, rtol=0, atol=1e-5)
    last = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(got[1, 2], last, rtol=0, atol=1e-5)


def test_channels_slow_down_in_pairs() -> None:
    got = sine_position(1, 50, channels=16, dtype=torch.float64)[0, :, 8:]
    place = torch.arange(1, 51) / 50 * 2 * math.pi
    for pair in range(4):
        angle = place / 10000 ** (2 * pair / 8)
        torch.testing.assert_close(got[:, 2 * pair], angle.sin().double(), rtol=0, atol=1e-6)
        torch.testing.assert_close(got[:, 2 * pair + 1], angle.cos().double(), rtol=0, atol=1e-6)


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="channels: expected a multiple of 4, got 6"):
        sine_position(2, 3, channels=6)
    with pytest.raises(ConfigError, match="height: expected an integer of at least 1, got 0"):
        sine_position(0, 3, channels=4)
