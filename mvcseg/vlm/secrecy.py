"""Keeps an API key out of every text that is shown, logged or stored."""

from __future__ import annotations

import os
import re

KEY_VARIABLE = "OPENAI_API_KEY"
_FRAGMENT = 8


def api_key() -> str:
    """The key in the environment, or an empty text."""
    return os.environ.get(KEY_VARIABLE, "").strip()


def without_key(text: str, *, key: str) -> str:
    """A text with the key, and every piece of it of eight characters or more, replaced by ``***``.

    A key shorter than that (local servers take any word) is replaced where it stands alone.

    Example:
        >>> without_key("Incorrect API key provided: sk-0123456789abc", key="sk-0123456789abcdef")
        'Incorrect API key provided: ***'
    """
    if not key:
        return text
    if len(key) < _FRAGMENT:
        return re.sub(rf"(?<!\w){re.escape(key)}(?!\w)", "***", text)
    fragments = {key[start : start + _FRAGMENT] for start in range(len(key) - _FRAGMENT + 1)}
    hidden = [False] * len(text)
    for start in range(len(text) - _FRAGMENT + 1):
        if text[start : start + _FRAGMENT] in fragments:
            hidden[start : start + _FRAGMENT] = [True] * _FRAGMENT
    pieces = []
    for position, char in enumerate(text):
        if not hidden[position]:
            pieces.append(char)
        elif position == 0 or not hidden[position - 1]:
            pieces.append("***")
    return "".join(pieces)
