"""The page in the system's Chromium, driven by its own chromedriver: one start, nothing downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mvcseg.report import PageVideo, write_page

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
NAMES = ("sky", "a_rather_long_name_of_a_class_that_must_not_widen_the_page", "lake <b>", "absent")
COLOURS = torch.tensor([[120, 180, 230], [20, 60, 160], [30, 130, 120], [9, 9, 9]], dtype=torch.uint8)
EVIL = "<script>document.title = 'broken'</script>"
T, H, W = 6, 24, 40


def stripes(shift: int) -> torch.Tensor:
    """Three vertical classes that move by one column a frame."""
    columns = (torch.arange(W)[None] - torch.arange(T)[:, None] - shift) % W
    return (columns * 3 // W)[:, None].expand(T, H, W).clone()


def clip(name: str) -> PageVideo:
    frames = torch.zeros(T, 3, H, W, dtype=torch.uint8)
    frames[:] = (torch.arange(T, dtype=torch.uint8) * 40)[:, None, None, None]
    truth = stripes(0)
    truth[:, :4] = 255
    change = {
        "status": "changed",
        "frames": [2, 4],
        "region": [10, 6, 30, 18],
        "from": NAMES[1],
        "to": NAMES[2],
        "question": "Is the water in the image a sea, lake?",
        "answer": EVIL,
    }
    predictions = {"plain": stripes(3), "a prediction with a rather long name": stripes(1), "right": stripes(0)}
    return PageVideo(name, frames, predictions, truth, [f"{i:08d}" for i in range(T)], 15.0, (change,))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    predictions = list(clip("").predictions)
    return write_page(
        tmp_path_factory.mktemp("page") / "page.html",
        title="A page to look at",
        videos=[clip("first clip"), clip(EVIL)],
        class_names=NAMES,
        colours=COLOURS,
        scores=[{"step": name, "mIoU": 0.5 + 0.1 * i, "VC8": 0.9 - 0.1 * i} for i, name in enumerate(predictions)],
        class_iou={name: [0.5, 0.1 * i, 0.9 - 0.1 * i, float("nan")] for i, name in enumerate(predictions)},
        curves={"loss": [(i, 1 / (i + 1)) for i in range(50)]},
        notes=[EVIL],
    ).as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with chromedriver here: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    driver.set_script_timeout(20)
    yield driver
    driver.quit()


@pytest.fixture
def js(browser: Any, page: str) -> Callable[..., Any]:
    """The page freshly opened at desktop size; runs a script in it and gives what it returns."""
    set_window(browser, width=1280, height=900)
    browser.get(page)
    wait_until_open(browser)
    return browser.execute_script  # type: ignore[no-any-return]


def set_window(browser: Any, *, width: int, height: int, scheme: str = "light") -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def wait_until_open(browser: Any) -> None:
    browser.execute_async_script(
        """const done = arguments[0], viewer = document.querySelector('#viewer');
        const look = () => document.querySelector('.panel') && !viewer.hasAttribute('aria-busy')
          ? requestAnimationFrame(() => setTimeout(done, 60)) : setTimeout(look, 20);
        look();"""
    )


def pause(browser: Any, milliseconds: int = 60) -> None:
    browser.execute_async_script("setTimeout(arguments[1], arguments[0])", milliseconds)


GREY = """const canvas = document.querySelectorAll('.panel canvas.image')[0];
return canvas.getContext('2d').getImageData(5, 5, 1, 1).data[0];"""
"""The brightness of the frame shown: 40 times its number."""
ALPHA = """const canvas = document.querySelectorAll('.panel canvas.labels')[arguments[0]];
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
let count = 0; for (let i = 3; i < data.length; i += 4) count += data[i] > 0; return count;"""
"""Painted pixels of a label map; 0 is the ground truth."""
SCRUB = """const s = document.querySelector('#scrubber'); s.value = arguments[0];
s.dispatchEvent(new Event('input', {bubbles: true}));"""
CLICK = (
    """[...document.querySelectorAll(arguments[0])].find((each) => each.textContent.trim() === arguments[1]).click();"""
)


def test_it_loads_without_errors_and_without_a_request(browser: Any, js: Callable[..., Any]) -> None:
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    names = js("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in names if not name.startswith(("data:", "blob:"))] == []
    assert js("return document.title") == "A page to look at"
    assert not js("return document.querySelector('#problem').checkVisibility()")


def test_scrubbing_changes_the_frame_and_the_labels_shown(browser: Any, js: Callable[..., Any]) -> None:
    before = js("return document.querySelector('canvas.labels').toDataURL()")
    assert abs(js(GREY) - 0) < 8
    js(SCRUB, 4)
    pause(browser)
    assert abs(js(GREY) - 160) < 8
    assert js("return document.querySelector('canvas.labels').toDataURL()") != before
    assert js("return document.querySelector('#position').textContent") == "5 / 6 · 00000004"


def test_the_keyboard_steps_jumps_and_plays(browser: Any, js: Callable[..., Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    panels = browser.find_element("id", "panels")
    for key, frame in (
        (Keys.ARROW_RIGHT, 1),
        (Keys.END, 5),
        (Keys.ARROW_LEFT, 4),
        (Keys.HOME, 0),
        (Keys.ARROW_LEFT, 0),
    ):
        panels.send_keys(key)
        pause(browser)
        assert js("return Number(document.querySelector('#scrubber').value)") == frame
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


def test_every_control_can_be_reached_by_tab(browser: Any, js: Callable[..., Any]) -> None:
    reachable = js(
        """return [...document.querySelectorAll('button, select, input, [tabindex="0"]')]
        .filter((each) => each.checkVisibility() && !each.disabled)
        .every((each) => { each.focus(); return document.activeElement === each; })"""
    )
    assert reachable
    unnamed = js(
        """return [...document.querySelectorAll('button, select, input, [role=img]')].filter((each) =>
        each.checkVisibility() && !each.textContent.trim() && !each.getAttribute('aria-label') && !each.labels?.length)
        .map((each) => each.outerHTML)"""
    )
    assert unnamed == []


def test_opacity_fades_the_labels(js: Callable[..., Any]) -> None:
    js("const o = document.querySelector('#opacity'); o.value = 20; o.dispatchEvent(new Event('input'))")
    assert js("return getComputedStyle(document.querySelector('canvas.labels')).opacity") == "0.2"
    assert js("return document.querySelector('#opacity-value').textContent") == "20%"


def test_labels_are_painted_where_there_is_a_class(js: Callable[..., Any]) -> None:
    assert js(ALPHA, 0) == (H - 4) * W
    assert js(ALPHA, 1) == H * W


def test_errors_paint_the_wrong_pixels_only(js: Callable[..., Any]) -> None:
    js(CLICK, "#modes button", "Errors")
    wrong = ((stripes(3) != stripes(0))[0, 4:]).sum()
    assert [js(ALPHA, index) for index in (1, 3)] == [int(wrong), 0]
    stats = js("return [...document.querySelectorAll('.stats')].map((each) => each.textContent)")
    assert stats[2] == f"{100 * int(wrong) / ((H - 4) * W):.1f}% wrong"
    assert stats[4] == "0.0% wrong"


def test_changes_paint_what_moved_since_the_frame_before(js: Callable[..., Any]) -> None:
    js(CLICK, "#modes button", "Changes")
    assert js(ALPHA, 1) == 0
    js(SCRUB, 2)
    assert js(ALPHA, 1) == int((stripes(3)[2] != stripes(3)[1]).sum())


def test_a_class_can_be_seen_alone(js: Callable[..., Any]) -> None:
    names = js("return [...document.querySelectorAll('#legend button')].map((each) => each.textContent)")
    assert names == list(NAMES[:3])
    js(CLICK, "#legend button", "sky")
    assert js(ALPHA, 1) == int((stripes(3)[0] == 0).sum())
    js(CLICK, "#legend button", "sky")
    assert js(ALPHA, 1) == H * W


def test_columns_can_be_put_away(js: Callable[..., Any]) -> None:
    js(CLICK, "#columns button", "plain")
    shown = js("return [...document.querySelectorAll('.panel .name')].map((each) => each.textContent)")
    assert shown == ["Frame", "Ground truth", "a prediction with a rather long name", "right"]


def test_pointing_names_the_class_in_every_panel(browser: Any, js: Callable[..., Any]) -> None:
    from selenium.webdriver import ActionChains

    js("document.querySelector('#panels').scrollIntoView()")
    ActionChains(browser).move_to_element(browser.find_element("css selector", ".panel .stage")).perform()
    named = js("return [...document.querySelectorAll('.pointed:not([hidden])')].map((each) => each.textContent)")
    middle = [NAMES[int(labels[0, H // 2, W // 2])] for labels in (stripes(0), stripes(3), stripes(1), stripes(0))]
    assert named == middle


def test_a_change_leads_to_its_frame_region_and_video(browser: Any, js: Callable[..., Any]) -> None:
    js("document.querySelectorAll('.jump')[1].click()")
    wait_until_open(browser)
    pause(browser, 200)
    assert js("return document.querySelector('#video').selectedIndex") == 1
    assert js("return document.querySelector('#position').textContent").startswith("3 / 6")
    box = js("const s = document.querySelector('.region').style; return [s.left, s.top, s.width, s.height]")
    assert box == ["25%", "25%", "50%", "50%"]
    js(SCRUB, 5)
    assert js("return document.querySelector('.region').hidden")
    assert js("return document.title") == "A page to look at"


def test_tables_sort_by_any_column_and_back(js: Callable[..., Any]) -> None:
    rows = "return [...document.querySelectorAll('.scores tbody th')].map((each) => each.textContent)"
    original = js(rows)
    orders, marks = [], []
    for _ in range(3):
        js("document.querySelectorAll('.scores thead button')[1].click()")
        orders.append(js(rows))
        marks.append(js("return document.querySelectorAll('.scores thead th')[1].getAttribute('aria-sort')"))
    assert orders == [original[::-1], original, original]
    assert marks == ["descending", "ascending", None]
    js("document.querySelectorAll('.scores thead button')[2].click()")
    assert js(rows) == original
    js("document.querySelectorAll('.scores thead button')[0].click()")
    assert js(rows) == sorted(original)


SEEK = """const over = document.querySelector('#timeline .u-over'), box = over.getBoundingClientRect();
const event = { clientX: box.left + box.width * arguments[0], clientY: box.top + 9, isPrimary: true, pointerId: 1 };
over.setPointerCapture = () => {};
over.dispatchEvent(new PointerEvent('pointerdown', event))"""


def test_the_timeline_shows_and_seeks(js: Callable[..., Any]) -> None:
    assert js("return document.querySelectorAll('.lines button').length") == 3
    assert "Wrong pixels" in js("return document.querySelector('#timeline .chart').getAttribute('aria-label')")
    js(SEEK, 0.55)
    assert js("return Number(document.querySelector('#scrubber').value)") == 3


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_scrolls_sideways(browser: Any, js: Callable[..., Any], width: int) -> None:
    set_window(browser, width=width, height=844)
    pause(browser, 150)
    assert js("return document.documentElement.scrollWidth") <= width
    outside = js(
        """return [...document.querySelectorAll('body *')]
        .filter((each) => !each.closest('.scroll') && !each.matches('.skip') && each.checkVisibility())
        .filter((each) => each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.className)"""
    )
    assert outside == []


CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
const ground = (each) => {
  const colour = parse(getComputedStyle(each).backgroundColor);
  return colour.length === 3 || colour[3] > 0 ? colour : ground(each.parentElement);
};
const texts = 'p, h1, h2, th, .value, .gain, .chip, .name, .stats, .caption, dt, dd, .jump, .grow, button, output';
return [...document.querySelectorAll(texts)]
  .filter((each) => each.checkVisibility() && each.textContent.trim()).map((each) => {
    const a = light(parse(getComputedStyle(each).color)), b = light(ground(each));
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), each.className || each.tagName];
  }).filter(([ratio]) => ratio < arguments[0]);
"""
"""Texts of less contrast to their ground than a ratio (WCAG 2.2)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_keeps_its_contrast(browser: Any, js: Callable[..., Any], scheme: str) -> None:
    set_window(browser, width=1280, height=900, scheme=scheme)
    ground = js("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 23, 26)") == (scheme == "dark")
    assert js(CONTRAST, 4.5) == []
    assert js(CONTRAST, 21.1) != []


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
        curves={"loss of masked clips": [(i, 1000.0 / (i + 1)) for i in range(50)], "mIoU": [(10, 0.4), (50, 0.5)]},
        pictures={"After step 20": tmp_path / "strip.png", "After step 50": tmp_path / "strip.png"},
    )
    set_window(browser, width=width, height=900)
    browser.get_log("browser")  # what other pages left
    browser.get(path.as_uri())
    pause(browser)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    js = browser.execute_script
    assert js("return document.documentElement.scrollWidth") <= width
    assert js("return document.querySelector('.strip img').naturalWidth") == 1000
    assert js("return document.querySelectorAll('.strip img')[1].checkVisibility()") is False
    js("document.querySelector('details').open = true")
    pause(browser)
    assert js("return document.querySelectorAll('.strip img')[1].checkVisibility()")
    assert js("return document.documentElement.scrollWidth") <= width
