from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest

from mvcseg import argument_types


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("positive", "3", 3),
        ("count", "0", 0),
        ("price", "0.15", 0.15),
        ("price", "0", 0.0),
        ("share", "1", 1.0),
        ("share", "5e-3", 0.005),
        ("scales", "1.0,1.1", (1.0, 1.1)),
        ("shard", "1/4", "1/4"),
        ("short_side", "native", "native"),
        ("short_side", "480", 480),
    ],
)
def test_word_in_its_range_is_its_value(kind: str, text: str, value: object) -> None:
    convert: Callable[[str], Any] = getattr(argument_types, kind)
    assert convert(text) == value
    assert type(convert(text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("positive", "0", "expected a number of at least 1, got 0"),
        ("positive", "٣", "expected a number of at least 1"),
        ("positive", "-1", "expected a number of at least 1"),
        ("count", "1.5", "expected a number of at least 0, got 1.5"),
        ("price", "-0.1", "expected a number of at least 0, got -0.1"),
        ("price", "inf", "expected a number of at least 0"),
        ("price", "nan", "expected a number of at least 0"),
        ("price", "cheap", "expected a number, got cheap"),
        ("share", "1.01", "expected a number from 0 to 1, got 1.01"),
        ("share", "-0.1", "expected a number from 0 to 1"),
        ("share", "nan", "expected a number from 0 to 1"),
        ("scales", "1;2", "expected numbers with commas between"),
        ("shard", "5/4", "shard: expected I/N"),
        ("short_side", "wide", "expected a number of at least 1, got wide"),
    ],
)
def test_other_words_are_refused_with_what_was_expected(kind: str, text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        getattr(argument_types, kind)(text)
