"""YAML files of the user's, read strictly and with the line of every value, for messages that lead to the mistake.

No object is built from a file: it holds texts, numbers, yes or no, lists and mappings, and nothing else. As in YAML 1.2
only ``true`` and ``false`` are truth values and no date is recognised, so that a class called ``on`` or ``no`` keeps
its name. JSON is YAML, so such a file may hold JSON.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import yaml

from mvcseg.data.files import shown
from mvcseg.errors import DataError

LARGEST_FILE = 200_000
"""Bytes of the largest file that is read; 255 classes in groups take some 10,000."""

Value: TypeAlias = "str | int | float | bool | list[Located] | dict[str, Located] | None"


@dataclass(frozen=True)
class Located:
    """A value of a YAML file and where it stands.

    Attributes:
        value: a text, a number, True, False or None; or a list of `Located`, or a mapping from texts to `Located`.
        place: the file and the line, from 1, as an error begins: ``"groups.yaml, line 3"``.
    """

    value: Value
    place: str


def read_yaml(path: str | PathLike[str]) -> Located:
    """The value of a YAML file, with the line of everything in it.

    Raises:
        DataError: the file is missing, unreadable, larger than `LARGEST_FILE`, no UTF-8 or no YAML, holds no value, or
            has a key twice, an alias, a tag or a key that is no text; names file and line.
    """
    text = _text_of(path)
    try:
        node = _Loader(text).get_single_node()
        if node is None:
            raise DataError(f"{shown(path)}: expected YAML, got an empty file")
        return _located(node, origin=shown(path))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise DataError(f"{shown(path)}{line}: no YAML that is read here: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = f", line {text[: error.position].count(chr(10)) + 1}"
        raise DataError(f"{shown(path)}{line}: expected text, got the character {error.character:#06x}") from error
    except RecursionError as error:
        raise DataError(f"{shown(path)}: lists within lists too deep to be read") from error


def text_at(entry: Located, key: str, *, default: str | None = None) -> str:
    """The text under a key of a mapping.

    Raises:
        DataError: it is missing and there is no default, or no text, or an empty one.
    """
    assert isinstance(entry.value, dict)
    found = entry.value.get(key)
    if found is None and default is not None:
        return default
    if found is None:
        raise DataError(f"{entry.place}: expected {key!r} beside {', '.join(map(repr, entry.value))}, got none")
    if not isinstance(found.value, str) or not found.value.strip():
        raise DataError(f"{found.place}: {key}: expected a text, got {told(found)}")
    return found.value


def entries_of(found: Located, *, form: str, allowed: tuple[str, ...]) -> list[Located]:
    """The mappings of a list, with no other keys than those allowed.

    Raises:
        DataError: it is no list of mappings, it is empty, or a key is unknown.
    """
    if not isinstance(found.value, list) or not found.value:
        raise DataError(f"{found.place}: expected a list of entries such as {form}, got {told(found)}")
    for entry in found.value:
        if not isinstance(entry.value, dict):
            raise DataError(f"{entry.place}: expected an entry such as {form}, got {told(entry)}")
        for key, value in entry.value.items():
            if key not in allowed:
                raise DataError(f"{value.place}: expected the keys {', '.join(allowed)}, got {key!r:.80}")
    return found.value


def told(found: Located) -> str:
    """What a value is, in a few words for a message."""
    if isinstance(found.value, (list, dict)):
        kind = "list" if isinstance(found.value, list) else "mapping"
        return f"a {kind} of {len(found.value)}" if found.value else f"an empty {kind}"
    return "nothing" if found.value is None else f"{found.value!r:.80}"


def _text_of(path: str | PathLike[str]) -> str:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read: {error.strerror or error}") from error
    if len(raw) > LARGEST_FILE:
        raise DataError(f"{shown(path)}: expected at most {LARGEST_FILE:,} bytes, got more")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(f"{shown(path)}, line {line}: expected UTF-8, got byte {raw[error.start]:#04x}") from error
    # JSON is often indented with tabs, which YAML forbids.
    return re.sub(r"^\t+", lambda tabs: " " * len(tabs[0]), text, flags=re.MULTILINE) if text[:1] in "[{" else text


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader as far as nodes; no constructor of it is used."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - the parent's form

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # a few lines of them can stand for more values than memory holds
            mark = yaml.Mark("", self.index, self.line, self.column, None, 0)
            raise yaml.MarkedYAMLError(problem="aliases (*) are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]{1,18}", "-+0123456789"),
    ("float", r"[-+]?([0-9]{1,18}\.[0-9]{0,18}|\.[0-9]{1,18}|[0-9]{1,18})([eE][-+]?[0-9]{1,3})?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [*_first, ""])


def _located(node: yaml.Node, *, origin: str) -> Located:
    place = f"{origin}, line {node.start_mark.line + 1}"
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return Located([_located(item, origin=origin) for item in node.value], place)
    if isinstance(node, yaml.MappingNode) and kind == "map":
        entries: dict[str, Located] = {}
        for key, item in node.value:
            name = _located(key, origin=origin)
            if not isinstance(name.value, str):
                raise DataError(f"{name.place}: expected a text as key, got {told(name)}")
            if name.value in entries:
                raise DataError(f"{name.place}: expected each key once, got {name.value!r:.80} again")
            entries[name.value] = _located(item, origin=origin)
        return Located(entries, place)
    if isinstance(node, yaml.ScalarNode) and kind in ("str", "int", "float", "bool", "null"):
        return Located(_scalar(node.value, kind, place=place), place)
    raise DataError(f"{place}: expected no tag, got {node.tag!r:.80}")


def _scalar(text: str, kind: str, *, place: str) -> str | int | float | bool | None:
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError as error:
        raise DataError(f"{place}: expected a number, got {text!r:.80}") from error
    if kind == "bool":
        return text.lower() == "true"
    if kind == "null":
        return None
    try:  # JSON writes what lies beyond U+FFFF as two halves
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: expected a text, got half a character") from error
