from __future__ import annotations

import pytest
import torch

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.report.panels import INK, PAPER, beside, caption_height


def video(value: int, *, size: tuple[int, int] = (5, 7), length: int = 2) -> torch.Tensor:
    return torch.full((length, 3, *size), value, dtype=torch.uint8)


def test_panels_lie_row_by_row_in_the_order_given() -> None:
    sheet = beside({"a": video(10), "b": video(20), "c": video(30)}, columns=2, gap=3)
    line = caption_height(1)
    assert sheet.shape == (2, 3, 3 + 2 * (line + 5 + 3), 3 + 2 * (7 + 3))
    assert (sheet[:, :, 3 + line : 3 + line + 5, 3:10] == 10).all()
    assert (sheet[:, :, 3 + line : 3 + line + 5, 13:20] == 20).all()
    assert (sheet[:, :, 3 + 2 * line + 8 : -3, 3:10] == 30).all()
    assert (sheet[:, :, 3 + line + 5 :, 13:] == PAPER).all()


def test_a_pixel_becomes_a_square_of_the_scale() -> None:
    panel = torch.arange(2 * 3 * 5 * 7, dtype=torch.uint8).view(2, 3, 5, 7)
    sheet = beside({"a": panel}, columns=1, scale=3, gap=0)
    assert sheet.shape == (2, 3, caption_height(3) + 15, 21)
    torch.testing.assert_close(sheet[:, :, caption_height(3) + 1 :: 3, 1::3], panel, rtol=0, atol=0)


def test_captions_are_written_above_and_cut_to_the_panel() -> None:
    wide = {"a rather long caption": video(0, size=(4, 30)), "": video(0, size=(4, 30))}
    sheet = beside(wide, columns=2, gap=0)
    line = caption_height(1)
    assert int(sheet[0, 0, :line, :30].min()) < (INK + PAPER) // 2
    assert (sheet[0, 0, :line, 30:] == PAPER).all()


@pytest.mark.parametrize(
    ("panels", "numbers", "error", "message"),
    [
        ({}, {"columns": 1}, ConfigError, "expected at least one panel"),
        ({"a": video(0)}, {"columns": 0}, ConfigError, "columns: expected an integer of at least 1"),
        ({"a": video(0)}, {"columns": 1, "scale": 0}, ConfigError, "scale: expected an integer of at least 1"),
        ({"a": video(0)}, {"columns": 1, "gap": -1}, ConfigError, "a gap of at least 0, got 1, -1"),
        ({"a": video(0), "b": video(0, length=3)}, {"columns": 1}, ShapeError, r"panels\['b'\]: expected"),
        ({"a": video(0).float()}, {"columns": 1}, DTypeError, r"panels\['a'\]: expected uint8"),
    ],
)
def test_what_does_not_fit_is_refused(
    panels: dict[str, torch.Tensor], numbers: dict[str, int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        beside(panels, **numbers)
