"""The page in the system's Chromium: the viewer, its keyboard, its ways to look at a prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from chromium_page import (
    ALPHA,
    CLICK,
    FRAME,
    GREY,
    LONG,
    NAMES,
    SCRUB,
    TEXTS,
    H,
    T,
    W,
    grey_frames,
    pause,
    predictions,
    problems,
    still,
    stripes,
    truth,
    wait_until_open,
)

from mvcseg.report.flicker import flicker

pytestmark = pytest.mark.browser

Js = Callable[..., Any]


def test_it_loads_without_errors_and_without_a_request(browser: Any, js: Js) -> None:
    assert problems(browser) == []
    names = js("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in names if not name.startswith(("data:", "blob:"))] == []
    assert js("return document.title") == "A page to look at"
    assert not js("return document.querySelector('#problem').checkVisibility()")


def test_its_policy_stops_requests_and_scripts_of_others(browser: Any, js: Js) -> None:
    blocked = browser.execute_async_script(
        """const done = arguments[0];
        const script = document.createElement('script'); script.textContent = 'document.title = "broken"';
        document.body.append(script);
        fetch('http://127.0.0.1:9/').then(() => done('sent'), () => done('stopped'));"""
    )
    assert blocked == "stopped"
    assert js("return document.title") == "A page to look at"
    assert all("Content Security Policy" in message for message in problems(browser))


def test_scrubbing_changes_the_frame_and_the_labels_shown(browser: Any, js: Js) -> None:
    before = js("return document.querySelector('canvas.labels').toDataURL()")
    assert abs(js(GREY) - 0) < 8
    js(SCRUB, 4)
    pause(browser)
    assert abs(js(GREY) - 160) < 8
    assert js("return document.querySelector('canvas.labels').toDataURL()") != before
    assert js("return document.querySelector('#position').textContent") == "5 / 6 · 00000004"


def test_the_keyboard_steps_jumps_and_plays(browser: Any, js: Js) -> None:
    from selenium.webdriver.common.keys import Keys

    panels = browser.find_element("id", "panels")
    for key, frame in (
        (Keys.ARROW_RIGHT, 1),
        (Keys.END, 5),
        (Keys.ARROW_LEFT, 4),
        (Keys.HOME, 0),
        (Keys.ARROW_LEFT, 0),
        (Keys.PAGE_DOWN, 5),
        (Keys.PAGE_UP, 0),
    ):
        panels.send_keys(key)
        pause(browser)
        assert js(FRAME) == frame
        assert abs(js(GREY) - 40 * frame) < 8
    panels.send_keys(Keys.SPACE)
    assert js("return document.querySelector('#play').getAttribute('aria-label')") == "Pause"
    browser.execute_async_script(
        """const done = arguments[0], s = document.querySelector('#scrubber');
        const look = () => Number(s.value) > 0 ? done() : setTimeout(look, 5); look();"""
    )
    panels.send_keys(Keys.SPACE)
    assert js("return document.querySelector('#play').getAttribute('aria-label')") == "Play"
    slider = browser.find_element("id", "scrubber")
    slider.send_keys(Keys.END)
    assert js("return document.querySelector('#position').textContent").startswith("6 / 6")


def test_arrows_step_on_a_button_too_and_space_presses_it(browser: Any, js: Js) -> None:
    from selenium.webdriver.common.keys import Keys

    button = browser.find_element("css selector", "#modes button:nth-of-type(2)")
    button.send_keys(Keys.ARROW_RIGHT)
    assert js(FRAME) == 1
    button.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "true"
    assert js("return document.querySelector('#play').getAttribute('aria-label')") == "Play"


def test_opacity_fades_the_labels(js: Js) -> None:
    js("const o = document.querySelector('#opacity'); o.value = 20; o.dispatchEvent(new Event('input'))")
    assert js("return getComputedStyle(document.querySelector('canvas.labels')).opacity") == "0.2"
    assert js("return document.querySelector('#opacity-value').textContent") == "20%"


def test_marks_have_an_opacity_of_their_own(js: Js) -> None:
    js(CLICK, "#modes button", "Errors")
    assert js("return document.querySelector('#opacity').value") == "100"
    js(CLICK, "#modes button", "Classes")
    assert js("return document.querySelector('#opacity').value") == "55"
    assert js("return getComputedStyle(document.querySelector('canvas.labels')).opacity") == "0.55"


def test_labels_are_painted_where_there_is_a_class(js: Js) -> None:
    assert js(ALPHA, 0) == (H - 4) * W
    assert js(ALPHA, 1) == H * W


def test_errors_paint_the_wrong_pixels_only(js: Js) -> None:
    js(CLICK, "#modes button", "Errors")
    wrong = ((stripes(3) != stripes(0))[0, 4:]).sum()
    assert [js(ALPHA, index) for index in (0, 1, 3)] == [(H - 4) * W, int(wrong), 0]  # the truth shows its classes
    opacities = "return [...document.querySelectorAll('canvas.labels')].map((each) => each.style.opacity)"
    assert js(opacities)[:2] == ["0.55", "1"]
    assert js("return [...document.querySelectorAll('.panel')].map((each) => each.matches('.plain'))")[1:3] == [
        True,
        False,
    ]
    stats = js(TEXTS, ".stats")
    assert stats[2] == f"{100 * int(wrong) / ((H - 4) * W):.1f}% wrong"
    assert stats[4] == "0.0% wrong"


def test_changes_paint_what_moved_since_the_frame_before(js: Js) -> None:
    js(CLICK, "#modes button", "Changes")
    assert js(ALPHA, 1) == 0
    js(SCRUB, 2)
    assert js(ALPHA, 1) == int((stripes(3)[2] != stripes(3)[1]).sum())


def test_flicker_paints_what_python_found(js: Js) -> None:
    maps = [truth(), *predictions().values()]
    expected = [flicker(grey_frames(), labels, flow=still).sum(dim=(1, 2)).tolist() for labels in maps]
    assert expected[2][3] >= 60
    js(CLICK, "#modes button", "Flicker")
    for frame in range(T):
        js(SCRUB, frame)
        assert [js(ALPHA, index) for index in range(4)] == [counts[frame] for counts in expected]
        told = js(TEXTS, ".stats")[3]
        assert told.endswith(f"{100 * expected[2][frame] / (H * W):.1f}% flickering") or frame == 0


def test_flicker_is_painted_where_python_found_it(js: Js) -> None:
    js(CLICK, "#modes button", "Flicker")
    js(SCRUB, 3)
    painted = js(
        """const canvas = document.querySelectorAll('.panel canvas.labels')[2], places = [];
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        for (let i = 0; i < data.length / 4; i++) if (data[4 * i + 3]) places.push(i); return places;"""
    )
    found = flicker(grey_frames(), predictions()[LONG], flow=still)[3]
    assert painted == found.flatten().nonzero().flatten().tolist()


def test_what_is_painted_is_said_beside_its_colour(js: Js) -> None:
    assert js("return document.querySelector('#painted').checkVisibility()") is False
    for mode, word in (("Errors", "ground truth"), ("Changes", "before"), ("Flicker", "optical flow")):
        js(CLICK, "#modes button", mode)
        assert word in js("return document.querySelector('#painted').textContent")
        assert js("return document.querySelector('#classes').checkVisibility()") is False


def test_a_class_can_be_seen_alone(js: Js) -> None:
    assert js(TEXTS, "#legend button") == list(NAMES[:3])
    js(CLICK, "#legend button", "sky")
    assert js(ALPHA, 1) == int((stripes(3)[0] == 0).sum())
    js(CLICK, "#legend button", "sky")
    assert js(ALPHA, 1) == H * W


def test_columns_can_be_put_away_and_come_back_painted(js: Js) -> None:
    js(CLICK, "#columns button", "plain")
    assert js(TEXTS, ".panel .name") == ["Frame", "Ground truth", LONG, "right"]
    js(SCRUB, 2)
    js(CLICK, "#modes button", "Changes")
    js(CLICK, "#columns button", "plain")
    assert js(TEXTS, ".panel .name") == ["Frame", "Ground truth", "plain", LONG, "right"]
    assert js(ALPHA, 1) == int((stripes(3)[2] != stripes(3)[1]).sum())


def test_a_panel_can_be_enlarged(js: Js) -> None:
    widths = "return [...document.querySelectorAll('.panel')].map((each) => each.getBoundingClientRect().width)"
    before = js(widths)
    js("document.querySelectorAll('.grow')[1].click()")
    after = js(widths)
    assert after[1] > 1.5 * before[1]
    assert js("return document.querySelectorAll('.grow')[1].getAttribute('aria-pressed')") == "true"


def test_pointing_names_the_class_in_every_panel(browser: Any, js: Js) -> None:
    from selenium.webdriver import ActionChains

    js("document.querySelector('#panels').scrollIntoView()")
    ActionChains(browser).move_to_element(browser.find_element("css selector", ".panel .stage")).perform()
    named = js(TEXTS, ".pointed:not([hidden])")[:4]
    middle = [NAMES[int(labels[0, H // 2, W // 2])] for labels in (stripes(0), stripes(3), stripes(1), stripes(0))]
    assert named == middle


def test_another_video_opens_at_its_first_frame(browser: Any, js: Js) -> None:
    js(SCRUB, 3)
    js("const s = document.querySelector('#video'); s.selectedIndex = 1; s.dispatchEvent(new Event('change'))")
    wait_until_open(browser)
    assert js(FRAME) == 0
    assert problems(browser) == []
