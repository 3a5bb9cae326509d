"""What a model of a comparison may be called: a folder of that name is made for its answers and its log."""

from __future__ import annotations

import re

from mvcseg.errors import ConfigError

COMPARISON_FILE = "comparison.json"
"""The file that lies beside the models' folders."""
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.+ -]{0,62}[A-Za-z0-9_+-])?")
# What Windows takes for a device, whatever follows a dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]) *(\..*)?", re.IGNORECASE)


def check_model_name(name: str) -> None:
    """Require a name that a folder can have on any system, beside the files of a comparison.

    Raises:
        ConfigError: it is no such name.

    Example:
        >>> check_model_name("llava 1.5")
        >>> check_model_name("../llava")
        Traceback (most recent call last):
        ...
        mvcseg.errors.ConfigError: name: expected up to 64 letters, digits, spaces and _ . + - that a folder can be \
called beside 'comparison.json', got '../llava'
    """
    is_taken = name.casefold() == COMPARISON_FILE or _DEVICE.fullmatch(name)
    if is_taken or not _NAME.fullmatch(name):
        raise ConfigError(
            "name: expected up to 64 letters, digits, spaces and _ . + - that a folder can be called beside "
            f"{COMPARISON_FILE!r}, got {name!r:.80}"
        )
