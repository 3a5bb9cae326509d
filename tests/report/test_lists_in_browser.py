"""Tables that sort and buttons that lead to frames, in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from chromium_page import FRAME, LONG, SCRUB, TEXTS, pause, set_window, wait_until_open

pytestmark = pytest.mark.browser

Js = Callable[..., Any]

ROWS = "return [...document.querySelectorAll('.scores tbody th')].map((each) => each.textContent)"
WORST = "return [...document.querySelectorAll('.worst tbody tr')].map((row) => row.cells[1].textContent)"
IN_SIGHT = "return [...document.querySelectorAll('.worst tbody tr')].filter((row) => row.checkVisibility()).length"


def test_tables_sort_by_any_column_and_back(js: Js) -> None:
    original = js(ROWS)
    orders, marks = [], []
    for _ in range(3):
        js("document.querySelectorAll('.scores thead button')[1].click()")
        orders.append(js(ROWS))
        marks.append(js("return document.querySelectorAll('.scores thead th')[1].getAttribute('aria-sort')"))
    assert orders == [original[::-1], original, original]
    assert marks == ["descending", "ascending", None]
    js("document.querySelectorAll('.scores thead button')[2].click()")
    assert js(ROWS) == original
    js("document.querySelectorAll('.scores thead button')[0].click()")
    assert js(ROWS) == sorted(original)


def test_tables_sort_by_keyboard(browser: Any, js: Js) -> None:
    from selenium.webdriver.common.keys import Keys

    original = js(ROWS)
    heading = browser.find_elements("css selector", ".scores thead button")[1]
    heading.send_keys(Keys.ENTER)
    assert js(ROWS) == original[::-1]
    assert js("return document.activeElement === document.querySelectorAll('.scores thead button')[1]")
    heading.send_keys(Keys.SPACE)
    assert js(ROWS) == original


def test_one_column_at_a_time_is_marked_as_sorted(js: Js) -> None:
    js("document.querySelectorAll('.scores thead button')[1].click()")
    js("document.querySelectorAll('.scores thead button')[2].click()")
    assert js("return document.querySelectorAll('.scores [aria-sort]').length") == 1


def test_the_worst_clips_come_first_and_the_rest_on_demand(js: Js) -> None:
    assert js(WORST) == sorted(js(WORST))
    assert js(IN_SIGHT) == 8
    js("document.querySelector('.more').click()")
    assert js(IN_SIGHT) == 12
    assert js("return document.querySelector('.more').getAttribute('aria-expanded')") == "true"
    js("document.querySelectorAll('.worst thead button')[1].click()")
    assert js("return document.querySelectorAll('.worst thead th')[1].getAttribute('aria-sort')") == "ascending"


def test_a_worst_clip_leads_to_its_video_prediction_and_frames(browser: Any, js: Js) -> None:
    js(SCRUB, 5)
    js("[...document.querySelectorAll('#columns button')][2].click()")
    assert "plain" not in js(TEXTS, ".panel .name")
    js("document.querySelectorAll('.worst .jump')[4].click()")  # frames 2 and 3 of the second video
    wait_until_open(browser)
    pause(browser, 150)
    assert js("return document.querySelector('#video').selectedIndex") == 1
    assert js(FRAME) == 1
    assert js(TEXTS, ".panel.chosen .name") == ["plain"]
    assert js(TEXTS, "#range-text") == ["Frames 2–3 of plain: VC8 53.0"]
    assert js("return document.querySelector('.band').checkVisibility()")
    top = js("return document.querySelector('#viewer').getBoundingClientRect().top")
    assert -5 < top < 60
    assert js("return document.activeElement.id") == "panels"


def test_playing_a_worst_clip_stays_within_it(browser: Any, js: Js) -> None:
    js("document.querySelectorAll('.worst .jump')[0].click()")
    pause(browser, 100)
    js("document.querySelector('#play').click()")
    seen = set()
    for _ in range(40):
        seen.add(js(FRAME))
        pause(browser, 15)
    js("document.querySelector('#play').click()")
    assert seen == {0, 1}
    js(SCRUB, 4)
    assert js("return document.querySelector('#range').checkVisibility()") is False
    assert js(TEXTS, ".panel.chosen .name") == []


def test_the_way_back_leads_to_the_row_one_came_from(browser: Any, js: Js) -> None:
    js("document.querySelectorAll('.worst .jump')[2].click()")
    pause(browser, 100)
    js("document.querySelector('#range-back').click()")
    assert js("return document.activeElement === document.querySelectorAll('.worst .jump')[2]")
    assert js("return document.querySelector('#range').checkVisibility()") is False


def test_a_prediction_that_was_put_away_is_shown_again(browser: Any, js: Js) -> None:
    js("[...document.querySelectorAll('#columns button')][3].click()")
    assert LONG not in js(TEXTS, ".panel .name")
    js("document.querySelectorAll('.worst .jump')[0].click()")
    pause(browser, 100)
    assert js(TEXTS, ".panel.chosen .name") == [LONG]


def test_a_change_leads_to_its_frame_region_and_video(browser: Any, js: Js) -> None:
    js("document.querySelectorAll('.change-head .jump')[1].click()")
    wait_until_open(browser)
    pause(browser, 200)
    assert js("return document.querySelector('#video').selectedIndex") == 1
    assert js("return document.querySelector('#position').textContent").startswith("3 / 6")
    box = js("const s = document.querySelector('.region').style; return [s.left, s.top, s.width, s.height]")
    assert box == ["25%", "25%", "50%", "50%"]
    js(SCRUB, 5)
    assert js("return document.querySelector('.region').hidden")
    assert js("return document.title") == "A page to look at"


def test_each_view_asked_about_leads_to_its_own_frame(browser: Any, js: Js) -> None:
    assert js(TEXTS, ".answers .jump")[:2] == ["Frame 4", "Frame 5"]
    js("document.querySelectorAll('.answers .jump')[1].click()")
    pause(browser, 100)
    assert js(FRAME) == 4
    assert js("return document.querySelector('.region').hidden") is False


def test_a_jump_works_on_a_phone(browser: Any, js: Js) -> None:
    set_window(browser, width=390, height=480)
    pause(browser, 150)
    js("document.querySelectorAll('.worst .jump')[0].click()")
    pause(browser, 200)
    chosen, bar = js(
        """const box = (name) => document.querySelector(name).getBoundingClientRect();
        return [box('.chosen .stage').bottom, box('.transport').top]"""
    )
    assert 0 < chosen <= bar
