"""Words of a page: names made printable, numbers with their noun."""

from __future__ import annotations

from mvcseg.data.files import shown


def printable(value: object) -> str:
    r"""One line of text: bytes that are no UTF-8 and control characters show as escapes.

    Example:
        >>> print(printable("clip\udcff"), printable("two\nlines"))
        clip\udcff two lines
    """
    return " ".join(shown(line) for line in str(value).splitlines())


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number and its noun.

    Example:
        >>> counted(1, "video"), counted(1200, "frame"), counted(3, "class", "classes")
        ('1 video', '1,200 frames', '3 classes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
