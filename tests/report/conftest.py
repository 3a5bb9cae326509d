"""One browser and one page for all tests that look at pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import chromium_page
import pytest


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = chromium_page.start_chromium(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return chromium_page.write_full_page(tmp_path_factory.mktemp("page"))


@pytest.fixture
def js(browser: Any, page: str) -> Callable[..., Any]:
    """The page freshly opened at desktop size; runs a script in it and gives what it returns."""
    chromium_page.set_window(browser, width=1280, height=900)
    browser.get_log("browser")  # what other pages left
    browser.get(page)
    chromium_page.wait_until_open(browser)
    return browser.execute_script  # type: ignore[no-any-return]
