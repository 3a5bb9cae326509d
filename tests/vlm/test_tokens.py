from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvcseg.errors import ConfigError
from mvcseg.vlm import estimate_tokens

FRAME = estimate_tokens([], "")  # what every request costs


def by_the_book(height: int, width: int) -> int:
    """OpenAI's three steps, one after the other, images never enlarged."""
    if max(height, width) > 2048:
        height, width = round(height * 2048 / max(height, width)), round(width * 2048 / max(height, width))
    if min(height, width) > 768:
        height, width = round(height * 768 / min(height, width)), round(width * 768 / min(height, width))
    return 85 + 170 * math.ceil(height / 512) * math.ceil(width / 512)


@pytest.mark.parametrize(
    ("size", "tokens"), [((1024, 1024), 765), ((4096, 2048), 1105), ((512, 512), 255), ((400, 4000), 765)]
)
def test_the_examples_of_the_rule_and_a_long_strip_come_out(size: tuple[int, int], tokens: int) -> None:
    assert estimate_tokens([size], "", max_side=8192) == FRAME + tokens


@given(height=st.integers(1, 2048), width=st.integers(1, 2048))
def test_any_image_is_counted_by_the_book(height: int, width: int) -> None:
    assert estimate_tokens([(height, width)], "", max_side=2048) == FRAME + by_the_book(height, width)


def test_images_and_text_add_up() -> None:
    one, two = estimate_tokens([(480, 853)], ""), estimate_tokens([(200, 150)], "")
    assert (one - FRAME, two - FRAME) == (85 + 2 * 170, 85 + 170)
    assert estimate_tokens([(480, 853), (200, 150)], "") == one + two - FRAME
    assert estimate_tokens([], "x" * 400) == FRAME + 100
    assert estimate_tokens([], "x" * 401) == FRAME + 101


def test_other_scripts_cost_more_a_letter() -> None:
    assert estimate_tokens([], "水" * 40) == FRAME + 30
    assert estimate_tokens([], "\ud800") == FRAME + 1  # half a surrogate, which a class name may hold


def test_images_are_counted_as_they_are_sent() -> None:
    assert estimate_tokens([(2160, 3840)], "", max_side=1024) == estimate_tokens([(576, 1024)], "")
    assert estimate_tokens([(100, 4000)], "", max_side=256) == FRAME + 85 + 170


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5,), (3, 5, 5)])
def test_size_that_no_image_has_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="sizes: expected height and width"):
        estimate_tokens([size], "")


def test_bound_below_one_pixel_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_side"):
        estimate_tokens([(5, 5)], "", max_side=0)
