"""What lies in the package for the page: scripts in order, and a chart library as its authors ship it."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

import pytest

from mvcseg.report.rendering import SCRIPTS, render

WEB = files("mvcseg.report").joinpath("web")


def digest(*path: str) -> str:
    return hashlib.sha256(WEB.joinpath(*path).read_bytes()).hexdigest()


def test_the_chart_library_is_the_one_published() -> None:
    # uplot 1.6.32 of the npm registry, integrity sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+...
    assert digest("uplot", "uPlot.iife.min.js") == "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
    assert digest("uplot", "uPlot.min.css") == "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"
    assert digest("uplot", "LICENSE") == "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"


def page() -> str:
    return render(
        data={"text": "</script><!--", "number": 1},
        title="<b>",
        summary="",
        scores={},
        worst={},
        class_tables=[],
        changes={},
        curves=[],
    )


def test_the_page_carries_its_licence() -> None:
    html = page()
    assert "Copyright (c) 2022 Leon Sorokin" in html
    assert "The above copyright notice and this permission notice shall be included" in html


def test_all_scripts_of_the_folder_are_in_the_page_and_no_other() -> None:
    assert {entry.name for entry in WEB.joinpath("script").iterdir()} == {f"{name}.js" for name in SCRIPTS}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_short_enough_to_read_and_cannot_end_their_block(name: str) -> None:
    text = WEB.joinpath("script", f"{name}.js").read_text(encoding="utf-8")
    assert text.startswith("// ")
    assert len(text.splitlines()) <= 120
    assert not re.search(r"</script|<!--|innerHTML|insertAdjacentHTML|document\.write|\beval\b", text)


def test_data_and_text_cannot_leave_their_place() -> None:
    html = page()
    assert "<title>&lt;b&gt;</title>" in html
    assert html.count("</script>") == 3
    assert "\\u003c/script\\u003e\\u003c!--" in html


def test_numbers_that_are_no_json_are_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="JSON"):
        render(data={"x": float("nan")})
