"""Two names for one tensor: the published checkpoint's and that of the module which holds it here.

Rules are data, pairs of templates; one table serves both directions, so what it maps it also maps back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache


class Renaming:
    """Names to and from those of the published checkpoints.

    A field such as ``{block}`` stands for one part of a dotted name, or for the end of one (``conv{i}``); ``{rest}``
    stands for all that follows. The first rule that fits a name counts; a name that fits none is kept.

    Args:
        rules: pairs ``(official, own)`` of templates with the same fields.

    Example:
        >>> names = Renaming([("stem.conv1.norm.{leaf}", "bn1.{leaf}")])
        >>> names.from_official("stem.conv1.norm.bias"), names.to_official("bn1.bias")
        ('bn1.bias', 'stem.conv1.norm.bias')
    """

    def __init__(self, rules: Sequence[tuple[str, str]]) -> None:
        self._to_own = [(_compile(official), own) for official, own in rules]
        self._to_official = [(_compile(own), official) for official, own in rules]

    def to_official(self, name: str) -> str:
        """The checkpoint's name for a module's entry."""
        return _apply(self._to_official, name)

    def from_official(self, name: str) -> str:
        """The module's name for a checkpoint's entry."""
        return _apply(self._to_own, name)


def _apply(rules: list[tuple[re.Pattern[str], str]], name: str) -> str:
    for pattern, template in rules:
        if match := pattern.fullmatch(name):
            return template.format(**match.groupdict())
    return name


@cache
def _compile(template: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", template)
    fields = (rf"(?P<{field}>{'.+' if field == 'rest' else '[^.]+'})" for field in pieces[1::2])
    return re.compile(
        "".join(f"{re.escape(text)}{field}" for text, field in zip(pieces[::2], [*fields, ""], strict=True))
    )
