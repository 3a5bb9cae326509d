"""The system's Chromium, driven by its own chromedriver, and a page with everything in it to look at."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mvcseg.report import PageVideo, write_page

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
LONG = "a prediction with a rather long name"
T, H, W = 6, 24, 40


def still(source: Tensor, target: Tensor) -> Tensor:
    """A flow that says nothing moves."""
    return torch.zeros(len(source), 2, *source.shape[2:])


def stripes(shift: int) -> Tensor:
    """Three vertical classes that move by one column a frame."""
    columns = (torch.arange(W)[None] - torch.arange(T)[:, None] - shift) % W
    return (columns * 3 // W)[:, None].expand(T, H, W).clone()


def flashing() -> Tensor:
    """The stripes with a square that has another class in the frame of number 3 alone."""
    labels = stripes(1)
    labels[3, 8:16, 10:20] = (labels[3, 8:16, 10:20] + 1) % 3
    return labels


def predictions() -> dict[str, Tensor]:
    return {"plain": stripes(3), LONG: flashing(), "right": stripes(0)}


def truth() -> Tensor:
    labels = stripes(0)
    labels[:, :4] = 255
    return labels


def grey_frames() -> Tensor:
    """Frames as bright as 40 times their number."""
    frames = torch.zeros(T, 3, H, W, dtype=torch.uint8)
    frames[:] = (torch.arange(T, dtype=torch.uint8) * 40)[:, None, None, None]
    return frames


def clip(name: str) -> PageVideo:
    change = {
        "status": "changed",
        "frames": [2, 4],
        "region": [10, 6, 30, 18],
        "from": NAMES[1],
        "to": NAMES[2],
        "question": "Is the water in the image a sea, lake?",
        "answer": EVIL,
        "answers": [{"frame": 3, "answer": EVIL, "to": NAMES[2]}, {"frame": 4, "answer": None, "reason": "timed out"}],
    }
    names = [f"{i:08d}" for i in range(T)]
    return PageVideo(name, grey_frames(), predictions(), truth(), names, 15.0, (change,), still)


def write_full_page(folder: Path) -> str:
    """The address of a page of two videos that shows all there is to show."""
    names = list(predictions())
    worst = [
        {"video": video, "prediction": name, "frames": (i, i + 1), "measure": "VC8", "score": 0.5 + 0.03 * i}
        for i in range(4)
        for video, name in (("first clip", LONG), (EVIL, "plain"), ("first clip", "right"))
    ]
    return write_page(
        folder / "page.html",
        title="A page to look at",
        videos=[clip("first clip"), clip(EVIL)],
        class_names=NAMES,
        colours=COLOURS,
        scores=[{"step": name, "mIoU": 0.5 + 0.1 * i, "VC8": 0.9 - 0.1 * i} for i, name in enumerate(names)],
        class_iou={name: [0.5, 0.1 * i, 0.9 - 0.1 * i, float("nan")] for i, name in enumerate(names)},
        headline=["right is the steadiest.", EVIL],
        worst=worst,
        curves={"loss": [(i, 100 / (i + 1)) for i in range(50)], "mIoU": [(10, 0.1), (50, 0.3)]},
        notes=[EVIL],
    ).as_uri()


def start_chromium(profile: Path) -> Any:
    """A driver of the system's Chromium; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with chromedriver here: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    driver.set_script_timeout(20)
    return driver


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


def problems(browser: Any) -> list[str]:
    """What the browser's console complains about since it was last asked, but that tests read pixels often."""
    told = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    return [message for message in told if "willReadFrequently" not in message]


FRAME = "return Number(document.querySelector('#scrubber').value)"
"""The number of the frame shown, from 0."""
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
TEXTS = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
