"""What a notebook shows, in a host page in the system's Chromium: it opens, its scrubber works, it is shut in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chromium_page
import pytest
import torch

from mvcseg.report import show

pytestmark = pytest.mark.browser

EVIL = "</iframe><script>parent.document.title = 'broken'</script>"


@pytest.fixture
def host(browser: Any, tmp_path: Path) -> Any:
    """The browser at a page with two looks, as a notebook with two outputs has them."""
    frames, truth = chromium_page.grey_frames(), chromium_page.truth()
    names = [EVIL, *chromium_page.NAMES[1:]]
    first = show(frames, {EVIL: chromium_page.flashing(), "right": truth}, truth=truth, class_names=names)
    second = show(frames.numpy(), chromium_page.stripes(1).numpy(), class_names=names, flow=chromium_page.still)
    outputs = "".join(f"<div class='output'>{look._repr_html_()}</div>" for look in (first, second))
    (tmp_path / "host.html").write_text(
        f"<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>host</title><body>{outputs}",
        encoding="utf-8",
    )
    chromium_page.set_window(browser, width=1000, height=900)
    browser.get_log("browser")  # what other pages left
    browser.get((tmp_path / "host.html").as_uri())
    return browser


@contextmanager
def inside(browser: Any, number: int) -> Iterator[None]:
    browser.switch_to.frame(number)
    try:
        yield
    finally:
        browser.switch_to.default_content()


@pytest.mark.parametrize("number", [0, 1])
def test_the_page_in_the_frame_opens_and_its_scrubber_works(host: Any, number: int) -> None:
    with inside(host, number):
        chromium_page.wait_until_open(host)
        assert host.execute_script("return document.querySelectorAll('.panel').length") == (4 if number == 0 else 2)
        assert abs(host.execute_script(chromium_page.GREY) - 0) < 8
        host.execute_script(chromium_page.SCRUB, 4)
        chromium_page.pause(host)
        assert abs(host.execute_script(chromium_page.GREY) - 160) < 8
        assert host.execute_script("return document.querySelector('#position').textContent").startswith("5 / 6")
        assert host.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert chromium_page.problems(host) == []


def test_the_keyboard_works_in_the_frame(host: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    with inside(host, 0):
        chromium_page.wait_until_open(host)
        host.find_element("id", "panels").send_keys(Keys.END)
        chromium_page.pause(host)
        assert abs(host.execute_script(chromium_page.GREY) - 200) < 8


def test_nothing_in_the_frame_reaches_the_notebook(host: Any) -> None:
    assert host.title == "host"
    assert host.execute_script("return document.querySelectorAll('iframe').length") == 2
    with inside(host, 0):
        reached = host.execute_script("try { return parent.document.title } catch (error) { return error.name }")
        assert reached == "SecurityError"
        assert host.execute_script("return self.origin") == "null"
    host.get_log("browser")


def test_a_saved_look_is_a_page_of_its_own(browser: Any, tmp_path: Path) -> None:
    labels = torch.zeros(6, 24, 40, dtype=torch.uint8)
    path = show(chromium_page.grey_frames(), labels, class_names=["sky"]).save(tmp_path / "look.html")
    browser.get_log("browser")
    browser.get(path.as_uri())
    chromium_page.wait_until_open(browser)
    assert abs(browser.execute_script(chromium_page.GREY) - 0) < 8
    assert chromium_page.problems(browser) == []
