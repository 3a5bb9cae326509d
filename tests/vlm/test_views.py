from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.vlm.tubes import FrameSeen, Tube
from mvcseg.vlm.views import MARK_COLOUR, crop_box, marked_crop, outlined_crop, view_frames

WHOLE = (0, 0, 8, 8)


def tube_seen(pixels: dict[int, int], sharpness: dict[int, float] | None = None) -> Tube:
    sharp = sharpness or {}
    seen = {
        frame: FrameSeen(pixels=number, box=WHOLE, sharpness=sharp.get(frame, 1.0)) for frame, number in pixels.items()
    }
    total = sum(pixels.values())
    return Tube(
        group=0,
        frames=(min(pixels), max(pixels)),
        box=WHOLE,
        pixels=total,
        shares=((1, total),),
        parts={frame: (1,) for frame in pixels},
        seen=seen,
    )


def test_first_view_is_the_largest_then_the_sharpest_of_the_large_then_spread() -> None:
    pixels = dict.fromkeys(range(20), 100) | {4: 120, 6: 60, 9: 59}
    tube = tube_seen(pixels, {6: 9.0, 9: 99.0})  # frame 9 is sharper, but not half as large
    assert view_frames(tube, count=1) == (4,)
    assert view_frames(tube, count=2) == (4, 6)
    assert view_frames(tube, count=3) == (4, 6, 19)
    assert view_frames(tube, count=5) == (4, 6, 19, 12, 0)  # 12 is 6 from 6 and 7 from 19; 13 as far, but later


def test_largest_that_is_the_sharpest_is_shown_once() -> None:
    tube = tube_seen({0: 10, 1: 12, 2: 10, 3: 10}, {1: 5.0})
    assert view_frames(tube, count=3) == (1, 3, 0)


def test_small_sights_are_shown_last_and_of_equally_far_ones_the_larger_first() -> None:
    tube = tube_seen({0: 49, 1: 100, 2: 90, 3: 100, 9: 49}, {1: 2.0})
    assert view_frames(tube, count=9) == (1, 3, 2, 9, 0)
    tube = tube_seen({0: 80, 5: 100, 10: 90}, {5: 2.0})
    assert view_frames(tube, count=2) == (5, 10)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.integers(0, 40), st.tuples(st.integers(1, 30), st.integers(0, 5)), min_size=1, max_size=12),
    st.integers(1, 15),
)
def test_views_are_different_frames_of_the_tube_and_more_views_only_add(
    seen: dict[int, tuple[int, int]], count: int
) -> None:
    tube = tube_seen({t: pixels for t, (pixels, _) in seen.items()}, {t: float(s) for t, (_, s) in seen.items()})
    frames = view_frames(tube, count=count)
    assert len(frames) == len(set(frames)) == min(count, len(seen))
    assert set(frames) <= set(seen)
    assert frames[0] == tube.key_frame
    assert view_frames(tube, count=count + 1)[: len(frames)] == frames


def test_count_below_one_is_refused() -> None:
    for count in (0, -1, True, 1.5):
        with pytest.raises(ConfigError, match="count: expected an integer of at least 1"):
            view_frames(tube_seen({0: 1}), count=count)  # type: ignore[arg-type]


def frame(*, height: int = 40, width: int = 60) -> torch.Tensor:
    return torch.randint(0, 200, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def is_line(crop: torch.Tensor) -> torch.Tensor:
    return (crop == torch.tensor(MARK_COLOUR)[:, None, None]).all(dim=0)


def test_hand_case_ring_around_a_rectangle() -> None:
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[15:20, 25:33] = True
    crop = outlined_crop(frame(), mask)  # margin max(8, 4) on each side
    assert crop.shape == (3, 5 + 16, 8 + 16)
    expected = torch.zeros(21, 24, dtype=torch.bool)
    expected[7:14, 7:17] = True
    expected[8:13, 8:16] = False
    assert torch.equal(is_line(crop), expected)
    assert torch.equal(crop[:, ~expected], frame()[:, 7:28, 17:41][:, ~expected])


def test_tint_leaves_the_surroundings_alone_and_structure_to_be_seen() -> None:
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[15:20, 25:33] = True
    crop, inside = marked_crop(frame(), mask, opacity=0.25), mask[7:28, 17:41]
    plain = frame()[:, 7:28, 17:41]
    tinted = (0.75 * plain.double() + 0.25 * torch.tensor(MARK_COLOUR)[:, None, None]).round()
    assert torch.equal(crop[:, ~inside], plain[:, ~inside])
    assert torch.equal(crop[:, inside], tinted[:, inside].to(torch.uint8))
    assert torch.equal(marked_crop(frame(), mask, opacity=0), plain)
    assert torch.equal(is_line(marked_crop(frame(), mask, opacity=1)), inside)
    for opacity in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="opacity: expected a number in"):
            marked_crop(frame(), mask, opacity=opacity)


@pytest.mark.parametrize("crop_of", [outlined_crop, marked_crop])
def test_crop_is_cut_at_the_border_and_input_untouched(crop_of: object) -> None:
    given_frame = frame()
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[0:30, 0:10] = True
    assert crop_of(given_frame, mask).shape == (3, 40, 25)  # type: ignore[operator] # 15 more to the right, 10 of 15 below
    assert torch.equal(given_frame, frame())


def test_tube_that_fills_the_frame_has_no_line() -> None:
    assert torch.equal(outlined_crop(frame(), torch.ones(40, 60, dtype=torch.bool)), frame())


def test_line_widens_with_the_picture() -> None:
    mask = torch.zeros(10, 800, dtype=torch.bool)
    mask[:, :400] = True
    crop = outlined_crop(frame(height=10, width=800), mask)
    assert is_line(crop).sum(dim=1).tolist() == [3] * 10  # 600 wide / 200


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 59), st.integers(0, 39), st.integers(1, 60), st.integers(1, 40), st.sampled_from([0.0, 0.5, 0.75])
)
def test_crop_box_is_what_a_crop_shows(left: int, top: int, width: int, height: int, context: float) -> None:
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    box = (left, top, min(60, left + width), min(40, top + height))
    x, y, right, bottom = crop_box(box, size=(40, 60), context=context)
    assert marked_crop(frame(), mask, context=context, opacity=0).equal(frame()[:, y:bottom, x:right])
    assert outlined_crop(frame(), mask, context=context).shape == (3, bottom - y, right - x)


def test_context_is_a_share_of_the_longer_side() -> None:
    assert crop_box((20, 20, 40, 21), size=(40, 60), context=0.75) == (5, 5, 55, 36)


def test_sizes_must_agree_and_a_tube_must_be_seen() -> None:
    for crop_of in (outlined_crop, marked_crop):
        with pytest.raises(ShapeError, match="mask"):
            crop_of(frame(), torch.ones(40, 61, dtype=torch.bool))
        with pytest.raises(ConfigError, match="mask: expected True somewhere"):
            crop_of(frame(), torch.zeros(40, 60, dtype=torch.bool))
