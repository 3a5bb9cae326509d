"""Words of a page: names made printable, numbers with their noun."""

from __future__ import annotations

from collections.abc import Sequence

from mvcseg.data.files import shown
from mvcseg.errors import ConfigError


def printable(value: object) -> str:
    r"""One line of text: bytes that are no UTF-8 and control characters show as escapes.

    Example:
        >>> print(printable("clip\udcff"), printable("two\nlines"))
        clip\udcff two lines
    """
    text = str(value)
    return text if text.isprintable() else " ".join(shown(line) for line in text.splitlines())


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number and its noun.

    Example:
        >>> counted(1, "video"), counted(1200, "frame"), counted(3, "class", "classes")
        ('1 video', '1,200 frames', '3 classes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def frame_range(value: object, argument: str) -> tuple[int, int]:
    """``(first, last)`` of a row.

    Raises:
        ConfigError: it is no such pair; names the argument that holds the row.

    Example:
        >>> frame_range([2, 5], "changes")
        (2, 5)
    """
    if not isinstance(value, Sequence) or len(value) != 2 or not all(isinstance(i, int) for i in value):
        raise ConfigError(f"{argument}: expected frames (first, last), got {value!r}")
    return value[0], value[1]


def where(first: int, last: int) -> str:
    """Frames by the numbers people count with.

    Example:
        >>> where(0, 7), where(3, 3)
        ('Frames 1–8', 'Frame 4')
    """
    return f"Frame {first + 1}" if first == last else f"Frames {first + 1}–{last + 1}"
