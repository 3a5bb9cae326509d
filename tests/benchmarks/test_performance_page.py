"""The page of figures says what the files of results say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Script = Callable[[str], ModuleType]
PAGE = Path(__file__).resolve().parents[2] / "docs/performance.md"


def test_the_page_is_that_of_the_results(script: Script) -> None:
    page = PAGE.read_text()
    assert script("performance_page").filled(page) == page


def test_a_section_is_renewed_between_its_markers(script: Script) -> None:
    between = script("peers_table").between
    page = "before <!-- a:begin -->old\\1<!-- a:end --> after"
    assert between(page, "a", " \\1 new\n") == "before <!-- a:begin -->\n \\1 new\n<!-- a:end --> after"
    for wrong in ("", page + page, "<!-- a:end --><!-- a:begin -->"):
        with pytest.raises(ValueError, match="a:begin"):
            between(wrong, "a", "new")


def test_every_table_has_a_place_of_its_own(script: Script) -> None:
    page = PAGE.read_text()
    assert {line[5:-10] for line in page.splitlines() if line.endswith(":begin -->")} == set(
        script("performance_page").SECTIONS
    )


def test_what_is_asked_is_reached_or_missed(script: Script) -> None:
    word = script("performance_page").word
    assert (word(2.0, 2.0), word(1.99, 2.0)) == ("reached", "missed")
    lines = script("performance_page").summary().splitlines()
    assert all(line.count("|") == 5 for line in lines)
    assert {line.split(" | ")[-1].strip(" |") for line in lines[2:]} <= {"reached", "missed"}
