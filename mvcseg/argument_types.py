"""What a word of a command line may be: numbers in their range, lists of them, the form of a shard."""

from __future__ import annotations

import argparse
import math

from mvcseg.errors import ConfigError


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _at_least(1, text)


def count(text: str) -> int:
    """A whole number of at least 0."""
    return _at_least(0, text)


def price(text: str) -> float:
    """A number of at least 0, such as an amount of money."""
    value = _number(text)
    if not (0 <= value < math.inf):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text}")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def scales(text: str) -> tuple[float, ...]:
    """Numbers with commas between."""
    try:
        return tuple(float(scale) for scale in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas between, such as 1.0,1.1, got {text}") from None


def shard(text: str) -> str:
    """A part such as ``1/4``, as it stands."""
    from mvcseg.prediction import shard as part_of

    try:
        part_of([], text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def short_side(text: str) -> int | str:
    """A number of pixels, ``native`` or ``model``."""
    return text if text in ("native", "model") else positive(text)


def _at_least(least: int, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"expected a number of at least {least}, got {text}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text}") from None
