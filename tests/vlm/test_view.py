from __future__ import annotations

import pytest
import torch

from mvcseg.errors import ShapeError
from mvcseg.vlm.view import OUTLINE_COLOUR, outlined_crop


def frame(*, height: int = 40, width: int = 60) -> torch.Tensor:
    return torch.randint(0, 200, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_hand_case_ring_around_a_rectangle() -> None:
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[15:20, 25:33] = True
    crop = outlined_crop(frame(), mask)  # margin max(8, 4) on each side
    assert crop.shape == (3, 5 + 16, 8 + 16)
    is_line = (crop == torch.tensor(OUTLINE_COLOUR)[:, None, None]).all(dim=0)
    expected = torch.zeros(21, 24, dtype=torch.bool)
    expected[7:14, 7:17] = True
    expected[8:13, 8:16] = False
    assert torch.equal(is_line, expected)
    assert torch.equal(crop[:, ~expected], frame()[:, 7:28, 17:41][:, ~expected])


def test_crop_is_cut_at_the_border_and_input_untouched() -> None:
    given = frame()
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[0:30, 0:10] = True
    assert outlined_crop(given, mask).shape == (3, 40, 25)  # 15 more to the right, 10 of 15 below
    assert torch.equal(given, frame())


def test_region_that_fills_the_frame_has_no_line() -> None:
    assert torch.equal(outlined_crop(frame(), torch.ones(40, 60, dtype=torch.bool)), frame())


def test_line_widens_with_the_picture() -> None:
    mask = torch.zeros(10, 800, dtype=torch.bool)
    mask[:, :400] = True
    crop = outlined_crop(frame(height=10, width=800), mask)
    is_line = (crop == torch.tensor(OUTLINE_COLOUR)[:, None, None]).all(dim=0)
    assert is_line.sum(dim=1).tolist() == [3] * 10  # 600 wide / 200


def test_context_is_a_share_of_the_longer_side() -> None:
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[20, 20:40] = True
    assert outlined_crop(frame(), mask, context=0.75).shape == (3, 31 + 0, 50)


def test_sizes_must_agree() -> None:
    with pytest.raises(ShapeError, match="mask"):
        outlined_crop(frame(), torch.ones(40, 61, dtype=torch.bool))
