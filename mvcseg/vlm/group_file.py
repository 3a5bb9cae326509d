"""Groups of look-alike classes in a JSON file of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from mvcseg.data.files import read_json, shown
from mvcseg.errors import ConfigError, DataError
from mvcseg.vlm.groups import Group


def read_groups(path: str | PathLike[str], *, class_names: Sequence[str]) -> tuple[Group, ...]:
    """Groups from a file such as ``[{"noun": "water", "classes": ["river", "lake", 37]}]``.

    Args:
        path: JSON list of objects with ``noun`` and ``classes``, each class by name or by id.
        class_names: name of every class, by id.

    Raises:
        DataError: the file is missing, no JSON or of another form, or names a class that does not exist.
        ConfigError: a group is not allowed, see ``Group``.
    """
    entries = read_json(path)
    form = '[{"noun": "water", "classes": ["river", "lake"]}, ...]'
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{shown(path)}: expected {form}")
    ids = {name: index for index, name in enumerate(class_names)}
    groups = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("classes"), list):
            raise DataError(f"{shown(path)}: expected {form}, got the entry {entry!r}")
        unknown = [value for value in entry["classes"] if not isinstance(value, int) and value not in ids]
        if unknown:
            raise DataError(f"{shown(path)}: expected names of classes or ids, got {unknown[0]!r}")
        members = tuple(value if isinstance(value, int) else ids[value] for value in entry["classes"])
        try:
            groups.append(Group(entry.get("noun", ""), members))
            groups[-1].answers(class_names)
        except ConfigError as error:
            raise DataError(f"{shown(path)}: {error}") from error
    return tuple(groups)
