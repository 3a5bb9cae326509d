"""How the page sits in windows of all widths, in light and dark, and what it is to those who do not see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from chromium_page import CLICK, NAMES, pause, set_window

pytestmark = pytest.mark.browser

Js = Callable[..., Any]


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_scrolls_sideways(browser: Any, js: Js, width: int) -> None:
    set_window(browser, width=width, height=844)
    pause(browser, 200)
    assert js("return document.documentElement.scrollWidth") <= width
    outside = js(
        """const scrolls = (each) => each && (['auto', 'scroll'].includes(getComputedStyle(each).overflowX)
          || scrolls(each.parentElement));
        return [...document.querySelectorAll('body *')]
        .filter((each) => !scrolls(each.parentElement) && !each.matches('.skip') && each.checkVisibility())
        .filter((each) => each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.className)"""
    )
    assert outside == []


def test_predictions_stand_side_by_side_at_desktop_width_and_in_pairs_on_a_phone(browser: Any, js: Js) -> None:
    tops = "return [...document.querySelectorAll('.panel')].map((each) => Math.round(each.getBoundingClientRect().top))"
    assert js(tops).count(js(tops)[0]) >= 3
    set_window(browser, width=390, height=844)
    pause(browser, 200)
    assert js(tops).count(js(tops)[0]) == 2
    top = "document.querySelector(arguments[{}]).getBoundingClientRect().top"
    above = js(f"return {top.format(0)} - {top.format(1)}", ".panel", "#viewer")
    assert above < 300  # the pictures are in sight together with what is chosen above them


GROW = ".panel:nth-child({}) .grow"
IS_ON_IT = "return document.activeElement === document.querySelector(arguments[0])"


def test_enlarging_keeps_the_keyboards_place_and_escape_shrinks(browser: Any, js: Js) -> None:
    from selenium.webdriver.common.keys import Keys

    wide = "return [...document.querySelectorAll('.panel.wide .name')].map((each) => each.textContent)"
    second = GROW.format(2)
    browser.find_element("css selector", second).send_keys(Keys.ENTER)
    assert js(wide) == ["Ground truth"]
    assert js(IS_ON_IT, second)
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert js(wide) == []
    assert js(IS_ON_IT, second)
    assert js("return document.querySelector(arguments[0]).getAttribute('aria-pressed')", second) == "false"
    browser.switch_to.active_element.send_keys(Keys.SPACE)
    assert js(wide) == ["Ground truth"]
    browser.find_element("id", "scrubber").send_keys(Keys.ESCAPE)
    assert js(wide) == []


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844), (844, 390)])
def test_an_enlarged_picture_fits_the_window_above_the_bar(browser: Any, js: Js, width: int, height: int) -> None:
    set_window(browser, width=width, height=height)
    pause(browser, 200)
    before = js("return document.querySelector('.panel:nth-child(4)').getBoundingClientRect().width")
    js("document.querySelector(arguments[0]).click()", GROW.format(4))
    pause(browser, 100)
    top, bottom, own, bar = js(
        """const box = document.querySelector('.panel.wide').getBoundingClientRect();
        return [box.top, box.bottom, box.width, document.querySelector('.transport').getBoundingClientRect().top]"""
    )
    assert top >= 0
    assert bottom <= bar
    assert own > 1.2 * before
    assert js("return document.documentElement.scrollWidth") <= width


def test_four_pictures_stand_two_by_two_and_not_three_and_one(browser: Any, js: Js) -> None:
    set_window(browser, width=1280, height=820)
    pause(browser, 200)
    columns = "return Number(document.querySelector('#panels').style.getPropertyValue('--columns'))"
    assert js(columns) == 3  # five: no row can be full
    js("document.querySelectorAll('#columns button')[4].click()")
    assert js(columns) == 2
    js("document.querySelectorAll('#columns button')[3].click()")
    assert js(columns) == 3


def test_a_phone_can_press_and_play(browser: Any, js: Js) -> None:
    set_window(browser, width=390, height=844)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        pause(browser, 200)
        small = js(
            """return [...document.querySelectorAll('button, select, summary, input')]
            .filter((each) => each.checkVisibility())
            .map((each) => [each.getBoundingClientRect(), each.id || each.className || each.textContent])
            .filter(([box]) => box.height < 30 || box.width < 24).map(([box, name]) => [name, box.width, box.height])"""
        )
        assert [each for each in small if each[0] != "opacity"] == []
    finally:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_every_control_can_be_reached_by_tab_and_has_a_name(browser: Any, js: Js) -> None:
    reachable = js(
        """return [...document.querySelectorAll('button, select, input, summary, [tabindex="0"]')]
        .filter((each) => each.checkVisibility() && !each.disabled)
        .every((each) => { each.focus(); return document.activeElement === each; })"""
    )
    assert reachable
    unnamed = js(
        """return [...document.querySelectorAll('button, select, input, [role=img], [role=region], [role=group]')]
        .filter((each) => each.checkVisibility() && !each.textContent.trim() && !each.getAttribute('aria-label')
          && !each.getAttribute('aria-labelledby') && !each.labels?.length).map((each) => each.outerHTML)"""
    )
    assert unnamed == []


def test_the_keyboards_place_is_seen(browser: Any, js: Js) -> None:
    from selenium.webdriver.common.keys import Keys

    body = browser.find_element("tag name", "body")
    seen = []
    for _ in range(45):
        body.send_keys(Keys.TAB)
        seen.append(
            js(
                """const each = document.activeElement, style = getComputedStyle(each);
                return [each.id || each.className || each.textContent.trim().slice(0, 30), style.outlineStyle !== 'none'
                  && parseFloat(style.outlineWidth) >= 1]"""
            )
        )
        body = browser.switch_to.active_element
    assert [name for name, is_marked in seen if not is_marked] == []
    assert {"skip", "panels", "play", "scrubber"} <= {name for name, _ in seen}


def test_there_is_one_main_part_and_every_section_has_a_heading(js: Js) -> None:
    assert js("return [...document.querySelectorAll('main, header, footer, h1')].length") == 4
    unnamed = js(
        """return [...document.querySelectorAll('section')].filter((each) =>
        !document.getElementById(each.getAttribute('aria-labelledby'))?.textContent.trim()).length"""
    )
    assert unnamed == 0
    levels = js("return [...document.querySelectorAll('h1, h2, h3, h4')].map((each) => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert set(levels[1:]) == {2}


def test_every_picture_has_its_words(js: Js) -> None:
    assert js("return [...document.querySelectorAll('img')].every((each) => each.alt)")
    labels = js("return [...document.querySelectorAll('.stage')].map((each) => each.getAttribute('aria-label'))")
    assert labels[0] == "Frame 1 of 6 of first clip, the frame itself"
    assert labels[1].startswith("Frame 1 of 6 of first clip, Ground truth: ")
    assert NAMES[0] in labels[2]


CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
const mixed = ([r, g, b, share = 1], under) => [r, g, b].map((v, i) => share * v + (1 - share) * under[i]);
const solid = (each) => {
  if (!each) return [255, 255, 255];
  const colour = parse(getComputedStyle(each).backgroundColor);
  return mixed(colour, colour.length === 3 ? colour : solid(each.parentElement));
};
const faded = (each) => each ? Number(getComputedStyle(each).opacity) * faded(each.parentElement) : 1;
return [...document.querySelectorAll('body *')]
  .filter((each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
  .filter((each) => each.checkVisibility() && !each.closest('script, noscript, select')).map((each) => {
    const ground = solid(each), ink = mixed([...parse(getComputedStyle(each).color).slice(0, 3), faded(each)], ground);
    const a = light(ink), b = light(ground);
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), each.className || each.tagName, each.textContent.trim()];
  }).filter(([ratio]) => ratio < arguments[0]);
"""
"""Texts of less contrast to their ground than a ratio (WCAG 2.2)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_keeps_its_contrast(browser: Any, js: Js, scheme: str) -> None:
    set_window(browser, width=1280, height=900, scheme=scheme)
    ground = js("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 23, 26)") == (scheme == "dark")
    js("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    js("document.querySelectorAll('.lines button')[0].click()")  # one that is put away
    js("document.querySelectorAll('.worst .jump')[0].click()")
    pause(browser, 100)
    assert js(CONTRAST, 4.5) == []
    js(CLICK, "#modes button", "Flicker")
    assert js(CONTRAST, 4.5) == []
    assert len(js(CONTRAST, 21.1)) > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_of_charts_keep_their_contrast(browser: Any, js: Js, scheme: str) -> None:
    set_window(browser, width=1280, height=900, scheme=scheme)
    ratios = js(
        """const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const light = (name) => { const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
          const full = hex.length === 4 ? [...hex.slice(1)].map((c) => c + c).join('') : hex.slice(1);
          const [r, g, b] = [0, 2, 4].map((i) => linear(parseInt(full.slice(i, i + 2), 16) / 255));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const ground = light('--card');
        return [...[0, 1, 2, 3, 4, 5].map((i) => `--line-${i}`), '--quiet', '--accent'].map((name) => {
          const a = light(name); return (Math.max(a, ground) + 0.05) / (Math.min(a, ground) + 0.05); })"""
    )
    assert min(ratios) > 3


def test_without_scripts_the_tables_and_a_note_are_there(browser: Any, page: str) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page)
        shown = browser.find_element("tag name", "body").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "Pictures and charts need JavaScript" in shown
    assert "The lines need JavaScript" in shown
    for text in ("right is the steadiest.", "Frames 4–5", "2 to 100, log scale", "90.00"):
        assert text in shown
