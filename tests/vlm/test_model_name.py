from __future__ import annotations

import pytest

from mvcseg.errors import ConfigError
from mvcseg.vlm.model_name import check_model_name


@pytest.mark.parametrize("name", ["a", "gpt-4o", "llava 1.5", "A_b.c+d", "comparison", "console", "com", "a" * 64])
def test_name_that_a_folder_can_have_is_taken(name: str) -> None:
    check_model_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "..", "../x", "/x", "a/b", "a\\b", ".answers", "a.", "a ", "a\n", "a" * 65, "é"),
        *("comparison.json", "Comparison.JSON", "CON", "nul.txt", "con .x", "Aux", "COM1", "lpt9.a.b"),
    ],
)
def test_name_that_no_folder_can_have_everywhere_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name: expected"):
        check_model_name(name)
