"""Pages with little or odd in them, in Chromium: they open, complain of nothing and say what they do not hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chromium_page import (
    ALPHA,
    CLICK,
    COLOURS,
    EVIL,
    FRAME,
    NAMES,
    SCRUB,
    TEXTS,
    problems,
    set_window,
    still,
    wait_until_open,
)
from torch import Tensor

from mvcseg.report import PageVideo, write_page

pytestmark = pytest.mark.browser

Js = Callable[..., Any]


def frames(t: int, *, h: int = 12, w: int = 20) -> Tensor:
    return torch.zeros(t, 3, h, w, dtype=torch.uint8)


def labels(t: int, *, h: int = 12, w: int = 20, value: int = 0) -> Tensor:
    return torch.full((t, h, w), value, dtype=torch.uint8)


def changing(t: int) -> Tensor:
    """All of one class in one frame, of the other in the next; a corner without any."""
    maps = (torch.arange(t) % 2).to(torch.uint8)[:, None, None].repeat(1, 12, 20)
    maps[:, :3, :3] = 255
    return maps


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Callable[..., Js]:
    def show(*videos: PageVideo, **other: Any) -> Js:
        values = {"title": "odd", "class_names": NAMES, "colours": COLOURS} | other
        path = write_page(tmp_path / "odd.html", videos=videos, **values)
        set_window(browser, width=1280, height=900)
        browser.get_log("browser")  # what other pages left
        browser.get(path.as_uri())
        wait_until_open(browser)
        assert problems(browser) == []
        assert not browser.execute_script("return document.querySelector('#problem').checkVisibility()")
        return browser.execute_script  # type: ignore[no-any-return]

    return show


def test_frames_alone(opened: Callable[..., Js]) -> None:
    js = opened(PageVideo("clip", frames(3), {}, flow=still))
    assert js(TEXTS, ".panel .name") == ["Frame"]
    visible = "return document.querySelector(arguments[0]).checkVisibility()"
    for hidden in ("#classes", "#modes", "#opacity-field", "#timeline"):
        assert js(visible, hidden) is False
    js(SCRUB, 2)
    assert js(FRAME) == 2


def test_one_frame(browser: Any, opened: Callable[..., Js]) -> None:
    js = opened(PageVideo("clip", frames(1), {"a": labels(1)}, labels(1), flow=still))
    assert js("return document.querySelector('#scrubber').disabled && document.querySelector('#play').disabled")
    assert js("return document.querySelector('#timeline').checkVisibility()") is False
    assert js("return document.querySelector('#heat').checkVisibility()") is False
    for mode in ("Errors", "Changes", "Flicker", "Classes"):
        js(CLICK, "#modes button", mode)
    assert problems(browser) == []


@pytest.mark.parametrize("t", [1, 2, 5])
def test_a_single_pixel(browser: Any, opened: Callable[..., Js], t: int) -> None:
    js = opened(PageVideo("clip", frames(t, h=1, w=1), {"a": labels(t, h=1, w=1)}, labels(t, h=1, w=1), flow=still))
    for mode in ("Errors", "Changes", "Flicker"):
        js(CLICK, "#modes button", mode)
        js(SCRUB, t - 1)
    assert problems(browser) == []


def test_no_class_anywhere(browser: Any, opened: Callable[..., Js]) -> None:
    js = opened(PageVideo("clip", frames(4), {"a": labels(4, value=255)}, labels(4, value=255), flow=still))
    assert js(TEXTS, "#legend button") == []
    assert js(ALPHA, 1) == 0
    for mode in ("Errors", "Changes", "Flicker"):
        js(CLICK, "#modes button", mode)
        assert js(ALPHA, 1) == 0
    assert "No pixel flickers" in js(TEXTS, "#heat .words")[0]
    assert js("return document.querySelectorAll('.stage')[1].getAttribute('aria-label')").count("no class") == 1
    js(CLICK, "#modes button", "Errors")
    assert js("return document.querySelector('#timeline').checkVisibility()") is False  # nothing to count
    assert problems(browser) == []


def test_a_prediction_may_leave_pixels_without_a_class(browser: Any, opened: Callable[..., Js]) -> None:
    js = opened(PageVideo("clip", frames(4), {"a": changing(4)}, labels(4), flow=still))
    assert js(ALPHA, 1) == 12 * 20 - 9
    js(CLICK, "#modes button", "Flicker")
    js(SCRUB, 1)
    assert js(ALPHA, 1) == 12 * 20 - 9
    js(CLICK, "#modes button", "Errors")
    assert js(ALPHA, 1) == 12 * 20  # where the truth has a class, no class is wrong
    assert problems(browser) == []


def test_a_prediction_without_ground_truth(opened: Callable[..., Js]) -> None:
    js = opened(PageVideo("clip", frames(4), {"a": changing(4)}, flow=still))
    assert js(TEXTS, "#modes button") == ["Classes", "Changes", "Flicker"]
    assert js(TEXTS, ".panel .name") == ["Frame", "a"]
    assert js("return document.querySelectorAll('#heat .tag').length") == 0  # nothing to be steadier than


def test_a_prediction_without_flow_or_truth_still_has_a_timeline(opened: Callable[..., Js]) -> None:
    js = opened(PageVideo("clip", frames(4), {"a": changing(4)}))
    assert js("return document.querySelector('#heat')") is None
    assert js("return document.querySelector('#timeline .title').textContent").startswith("Pixels of another class")
    assert "a 96.3% on average" in js("return document.querySelector('#timeline .chart').getAttribute('aria-label')")


def test_a_sampled_video_says_so_and_counts_its_own_frames(opened: Callable[..., Js]) -> None:
    clip = PageVideo("clip", frames(400), {"a": changing(400)}, flow=still)
    row = {"video": "clip", "prediction": "a", "frames": (390, 396), "measure": "VC8", "score": 0.1}
    js = opened(clip, max_frames=10, worst=[row])
    about = js("return document.querySelector('#about').textContent")
    assert "10 of 400 frames are in this page, evenly spaced beside those of the worst clips." in about
    js(SCRUB, 9)
    assert js("return document.querySelector('#position').textContent") == "400 / 400"
    js("document.querySelector('.worst .jump').click()")
    js("return new Promise((done) => setTimeout(done, 100))")
    assert js("return document.querySelector('#position').textContent") == "391 / 400"


def test_a_clip_of_which_no_frame_is_shown_leads_to_the_next_one(opened: Callable[..., Js]) -> None:
    change = {"frames": [361, 370], "from": 0, "to": 1, "status": "changed"}
    js = opened(PageVideo("clip", frames(400), {"a": changing(400)}, changes=(change,)), max_frames=10)
    assert "10 of 400 frames are in this page, evenly spaced." in js(TEXTS, "#about")[0]
    js("document.querySelector('.change .jump').click()")
    js("return new Promise((done) => setTimeout(done, 100))")
    assert js(FRAME) == 9
    js("document.querySelector('#play').click()")
    assert js("return document.querySelector('#play').getAttribute('aria-label')") == "Play"


def test_names_of_every_kind_are_text_everywhere(browser: Any, opened: Callable[..., Js]) -> None:
    row = {"video": EVIL, "prediction": EVIL, "frames": (0, 1), "measure": EVIL, "score": math.nan}
    change = {"frames": [0, 1], "from": EVIL, "to": EVIL, "question": EVIL, "answers": [{"frame": 0, "answer": EVIL}]}
    clip = PageVideo(EVIL, frames(3), {EVIL: changing(3)}, labels(3), [EVIL] * 3, 15.0, (change,), still)
    js = opened(
        clip,
        title="fine",
        class_names=(EVIL, "b\u202ec", "", "d" * 300),
        worst=[row, row | {"measure": "x"}],
        headline=[EVIL],
        scores=[{EVIL: EVIL, EVIL + "2": None}],
        curves={EVIL: [(0, 1.0), (1, math.nan), (2, 3.0)]},
    )
    for mode in ("Errors", "Changes", "Flicker"):
        js(CLICK, "#modes button", mode)
    js("document.querySelector('.worst .jump').click()")
    js("document.querySelector('.numbers').open = true")
    js("return new Promise((done) => setTimeout(done, 100))")
    assert js("return document.title") == "fine"
    assert js("return document.querySelectorAll('script').length") == 3
    assert EVIL in js(TEXTS, "#timeline .lines .name")
    assert js("return document.documentElement.scrollWidth") <= 1280
    assert problems(browser) == []


def test_many_predictions_keep_their_signs_apart(opened: Callable[..., Js]) -> None:
    js = opened(PageVideo("clip", frames(3), {f"step {i}": changing(3) for i in range(12)}, labels(3)))
    marks = js("return [...document.querySelectorAll('.lines .key')].map((each) => each.style.backgroundImage)")
    assert len(set(marks)) == 12
    assert len(js(TEXTS, ".panel .name")) == 8
