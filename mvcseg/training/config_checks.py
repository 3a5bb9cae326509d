"""Checks of configuration values: each names its key, what was expected and what was got."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mvcseg.errors import ConfigError


def check_keys(values: Mapping[str, Any], *, valid: Iterable[str], prefix: str = "") -> None:
    """Require known keys only; the nearest known one is named."""
    known = list(valid)
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{prefix}{key}: no such key; did you mean {prefix}{close}?")


LARGEST = 2**63 - 1
"""What PyTorch takes for an integer."""


def check_integer(name: str, value: Any, *, least: int) -> None:
    """Require an integer of at least ``least`` that fits 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}: expected an integer of at least {least}, got {value!r}")
    if value > LARGEST:
        raise ConfigError(f"{name}: expected an integer below 2**63, got {value!r}")


def check_number(name: str, value: Any, *, most: float = math.inf) -> None:
    """Require a finite number in ``[0, most]``."""
    is_number = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    if not is_number or not 0 <= value <= most:
        limits = "of at least 0" if most == math.inf else f"in [0, {most:g}]"
        raise ConfigError(f"{name}: expected a finite number {limits}, got {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[str | None]) -> None:
    """Require one of some words, or null where None is among them."""
    if value not in choices:
        told = ", ".join("null" if choice is None else choice for choice in choices)
        raise ConfigError(f"{name}: expected one of {told}, got {value!r}")


def check_switch(name: str, value: Any) -> None:
    """Require true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: expected true or false, got {value!r}")


def check_text(name: str, value: Any, *, what: str) -> None:
    """Require some text."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name}: expected {what}, got {value!r}")


def integers(name: str, value: Any, *, length: int | None = None, least: int = 1) -> tuple[int, ...]:
    """A list of integers as a tuple."""
    for entry in _entries(name, value, length):
        check_integer(name, entry, least=least)
    return tuple(value)


def numbers(name: str, value: Any, *, length: int | None = None) -> tuple[float, ...]:
    """A list of finite numbers of at least 0 as a tuple."""
    for entry in _entries(name, value, length):
        check_number(name, entry)
    return tuple(value)


def rising(name: str, value: Sequence[float]) -> None:
    """Require a least and a largest value in this order."""
    if value[0] > value[1]:
        raise ConfigError(f"{name}: expected the least value first, got {list(value)}")


def _entries(name: str, value: Any, length: int | None) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or not value or (length is not None and len(value) != length):
        raise ConfigError(f"{name}: expected {'numbers' if length is None else 'two numbers'}, got {value!r}")
    return value
