"""The page's charts in Chromium: the line of every prediction over the frames, heat maps, training curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chromium_page import (
    CLICK,
    COLOURS,
    FRAME,
    LONG,
    SCRUB,
    TEXTS,
    H,
    T,
    W,
    flashing,
    grey_frames,
    pause,
    predictions,
    problems,
    set_window,
    still,
    truth,
)
from PIL import Image

from mvcseg.report import write_page
from mvcseg.report.flicker import flicker

pytestmark = pytest.mark.browser

Js = Callable[..., Any]

LABEL = "return document.querySelector('#timeline .chart').getAttribute('aria-label')"
NOW = "return document.querySelector('.now').getBoundingClientRect().left"
OVER = "const box = document.querySelector('#timeline .u-over').getBoundingClientRect(); return [box.left, box.width]"
INK = """const canvas = document.querySelector(arguments[0]), colours = new Set();
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) colours.add(data.slice(i, i + 3).join());
return [...colours];"""
"""Colours of the opaque pixels of a canvas."""


def test_the_timeline_counts_flicker_errors_or_changes_of_every_prediction(js: Js) -> None:
    assert js(TEXTS, "#measures button") == ["Errors", "Changes", "Flicker"]
    assert js(TEXTS, ".lines .name") == ["Ground truth", "plain", LONG, "right"]
    js(CLICK, "#measures button", "Errors")
    assert js(TEXTS, ".lines .name") == ["plain", LONG, "right"]
    assert "Wrong pixels" in js("return document.querySelector('#timeline .title').textContent")


def test_its_values_are_those_that_python_finds(js: Js) -> None:
    shares = flicker(grey_frames(), flashing(), flow=still).float().mean(dim=(1, 2)).tolist()
    mean, most = sum(shares[1:]) / (T - 1), max(shares)
    words = f"{LONG} {100 * mean:.1f}% on average, at most {100 * most:.1f}% in frame {shares.index(most) + 1}"
    assert words in js(LABEL)
    js(SCRUB, 3)
    assert js(TEXTS, ".lines .value")[2] == f"now {100 * shares[3]:.1f}%"
    js("document.querySelector('.numbers').open = true")
    js("return new Promise((done) => setTimeout(done, 100))")
    rows = js("return [...document.querySelectorAll('.numbers tbody tr')].map((row) => row.cells[3].textContent)")
    assert rows == ["–", *(f"{100 * share:.2f}%" for share in shares[1:])]


def test_it_moves_with_the_scrubber_and_a_click_moves_both(browser: Any, js: Js) -> None:
    from selenium.webdriver import ActionChains

    left, width = js(OVER)
    assert js(NOW) == pytest.approx(left - 1, abs=1)
    js(SCRUB, 5)
    assert js(NOW) == pytest.approx(left + width - 1, abs=1.5)
    js("document.querySelector('#timeline').scrollIntoView()")
    over = browser.find_element("css selector", "#timeline .u-over")
    ActionChains(browser).move_to_element_with_offset(over, int(0.1 * width), 0).click().perform()
    assert js(FRAME) == 3
    assert js(NOW) == pytest.approx(left + 0.6 * width - 1, abs=1.5)


def test_dragging_over_the_timeline_scrubs(browser: Any, js: Js) -> None:
    from selenium.webdriver import ActionChains

    js("document.querySelector('#timeline').scrollIntoView()")
    width = int(js(OVER)[1])
    over = browser.find_element("css selector", "#timeline .u-over")
    chain = ActionChains(browser).move_to_element_with_offset(over, -int(0.3 * width), 0).click_and_hold()
    chain.move_by_offset(int(0.5 * width), 0).perform()
    assert js(FRAME) == 4
    ActionChains(browser).release().perform()
    ActionChains(browser).move_by_offset(-20, 0).perform()
    assert js(FRAME) == 4


def test_a_line_can_be_put_away_with_the_keyboard(browser: Any, js: Js) -> None:
    from selenium.webdriver.common.keys import Keys

    assert "31,95,191" in js(INK, "#timeline canvas")
    button = browser.find_elements("css selector", ".lines button")[1]
    button.send_keys(Keys.ENTER)
    pause(browser)
    assert button.get_attribute("aria-pressed") == "false"
    assert "31,95,191" not in js(INK, "#timeline canvas")


def test_lines_differ_by_more_than_colour(js: Js) -> None:
    marks = js(
        "return [...document.querySelectorAll('.lines .key')].map((each) => each.style.backgroundImage"
        ".replaceAll(/var\\(--[a-z0-9-]+\\)/g, 'colour'))"
    )
    assert len(set(marks)) == len(marks) == 4


def test_the_chart_follows_the_colour_scheme(browser: Any, js: Js) -> None:
    light = set(js(INK, "#timeline canvas"))
    set_window(browser, width=1280, height=900, scheme="dark")
    pause(browser, 150)
    dark = set(js(INK, "#timeline canvas"))
    accents = {"31,95,191", "127,176,245"}
    assert light & accents == {"31,95,191"}
    assert dark & accents == {"127,176,245"}


def test_the_chart_is_as_wide_as_the_window_allows(browser: Any, js: Js) -> None:
    set_window(browser, width=700, height=900)
    pause(browser, 200)
    assert js(OVER)[1] < 640
    assert js("return document.documentElement.scrollWidth") <= 700


def test_heat_maps_say_where_and_how_much_each_prediction_flickers(js: Js) -> None:
    lit = """return [...document.querySelectorAll('#heat canvas')].map((canvas) => {
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        let count = 0; for (let i = 0; i < data.length; i += 4) count += data[i] !== data[i + 1]; return count; })"""
    found = [flicker(grey_frames(), labels, flow=still) for labels in (truth(), *predictions().values())]
    ever = [each.any(dim=0) for each in found]
    assert js(TEXTS, "#heat .who b") == ["Ground truth", *predictions()]
    assert js(lit) == [int(each.sum()) for each in ever]
    words = js(TEXTS, "#heat .words")
    for text, each, once in zip(words, found, ever, strict=True):
        shares = 100 * each[1:].float().mean().item(), 100 * once.float().mean().item()
        expected = f"{shares[0]:.2f}% of the pixels flicker in a frame on average, {shares[1]:.0f}% at least once."
        assert text.startswith(expected if each.any() else "No pixel flickers in any frame.")
    assert len({bool(each.any()) for each in found}) == 2
    label = js("return document.querySelectorAll('#heat canvas')[2].getAttribute('aria-label')")
    assert label == f"Heat map of {LONG}. {words[2]}"


def test_the_steadiest_prediction_is_called_so(js: Js) -> None:
    counts = {name: int(flicker(grey_frames(), labels, flow=still).sum()) for name, labels in predictions().items()}
    steadiest = "return document.querySelector('#heat .tag').parentElement.querySelector('b').textContent"
    assert js(steadiest) == min(counts, key=lambda name: counts[name])


def test_a_heat_map_tells_the_number_under_the_pointer(browser: Any, js: Js) -> None:
    from selenium.webdriver import ActionChains

    counts = flicker(grey_frames(), flashing(), flow=still).sum(dim=0)
    js("document.querySelector('#heat').scrollIntoView()")
    canvas = browser.find_elements("css selector", "#heat canvas")[2]
    width = js("return document.querySelectorAll('#heat canvas')[2].clientWidth")
    ActionChains(browser).move_to_element_with_offset(canvas, -int(5 / W * width), 0).perform()
    assert counts[H // 2, W // 2 - 5] == 2
    assert js(TEXTS, "#heat .pointed")[2] == f"here in 2 of {T - 1} frames"


def test_training_curves_are_drawn_with_their_words(browser: Any, js: Js) -> None:
    labels = js("return [...document.querySelectorAll('.curve .chart')].map((each) => each.getAttribute('aria-label'))")
    assert labels == ["loss: 100 at step 0, 2 at step 49", "mIoU: 0.1 at step 10, 0.3 at step 50"]
    assert js("return document.querySelectorAll('.curve canvas').length") == 2
    assert "31,95,191" in js(INK, ".curve canvas")
    assert js(TEXTS, ".curve .axis") == ["2 to 100, log scale", "0.1 to 0.3"]


def test_pointing_at_a_curve_tells_the_value(browser: Any, js: Js) -> None:
    from selenium.webdriver import ActionChains

    over = browser.find_elements("css selector", ".curve .u-over")[1]
    js("document.querySelector('.curve').scrollIntoView()")
    width = js("return document.querySelectorAll('.curve .u-over')[1].clientWidth")
    ActionChains(browser).move_to_element_with_offset(over, -int(0.4 * width), 0).perform()
    pause(browser)
    assert js(TEXTS, ".curve .value")[1] == "0.1 at 10"


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_of_a_run_shows_its_pictures_and_does_not_scroll_sideways(
    browser: Any, tmp_path: Path, width: int
) -> None:
    Image.new("RGB", (1000, 300), (200, 60, 60)).save(tmp_path / "strip.png")
    path = write_page(
        tmp_path / "run.html",
        title="A run",
        videos=[],
        class_names=[],
        colours=COLOURS[:0],
        curves={
            "loss of masked clips": [(i, 1000.0 / (i + 1)) for i in range(50)],
            "one": [(1, 0.5)],
            "flat": [(1, 0.0), (2, 0.0)],
            "none": [(1, float("nan"))],
        },
        pictures={"After step 20": tmp_path / "strip.png", "After step 50": tmp_path / "strip.png"},
    )
    set_window(browser, width=width, height=900)
    browser.get_log("browser")  # what other pages left
    browser.get(path.as_uri())
    pause(browser)
    assert problems(browser) == []
    js = browser.execute_script
    assert js("return document.querySelectorAll('.curve canvas').length") == 3
    assert js("return document.documentElement.scrollWidth") <= width
    assert js("return document.querySelector('.strip img').naturalWidth") == 1000
    assert js("return document.querySelectorAll('.strip img')[1].checkVisibility()") is False
    js("document.querySelector('details').open = true")
    pause(browser)
    assert js("return document.querySelectorAll('.strip img')[1].checkVisibility()")
    assert js("return document.documentElement.scrollWidth") <= width
