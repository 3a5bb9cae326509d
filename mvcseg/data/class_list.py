"""Class names of a data set, from VSPW's ``label_num_dic_final.json`` and from what users write instead."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvcseg.data.files import read_text, shown
from mvcseg.data.label_maps import read_classes
from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import DataError

CLASS_LIST_FILE = "label_num_dic_final.json"
"""Name of VSPW's class list: class name to raw mask value, 0 for void."""
PLAIN_CLASS_LIST_FILE = "classes.txt"
"""Name of a list that is easier to write: line k names the raw mask value k, void is not listed."""
MAX_RAW_CLASSES = 254
"""Most classes of raw masks: 0 is void and 255 is void too."""


def class_names_of(root: str | os.PathLike[str], *, classes: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """Names of the classes 0 to K-1 of a data set in the VSPW layout.

    Args:
        root: the data set's folder.
        classes: a class list to read instead of the data set's own.

    Returns:
        The names in ``classes``, else in ``root/label_num_dic_final.json`` or ``root/classes.txt``, else VSPW's 124.

    Raises:
        DataError: the list is missing, broken or contradicts itself, or there are two that differ.
    """
    if classes is not None:
        return read_class_list(classes)
    own = class_list_of(root)
    return VSPW_CLASSES if own is None else read_class_list(own)


def class_list_of(root: str | os.PathLike[str]) -> Path | None:
    """The class list in a data set's folder; None where there is none.

    Raises:
        DataError: there are two that differ.
    """
    found = [path for name in (CLASS_LIST_FILE, PLAIN_CLASS_LIST_FILE) if (path := Path(root) / name).is_file()]
    if len(found) == 2 and read_class_list(found[0]) != read_class_list(found[1]):
        raise DataError(f"{shown(found[1])}: names other classes than {found[0].name} beside it; remove one of them")
    return found[0] if found else None


def read_class_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the classes 0 to K-1 from a file.

    Args:
        path: VSPW's ``label_num_dic_final.json`` (name to raw mask value, ``"others": "0"`` for void; raw value
            k + 1 is class k), a ``classes.json`` as written beside label maps, or a text file with one
            name a line.

    Raises:
        DataError: the file is missing, broken, names a class or a value twice, leaves a value out, or has no or
            too many classes.
    """
    text = read_text(path)
    if not text.lstrip().startswith("{"):
        return _checked(path, [line.strip() for line in text.splitlines() if line.strip()])
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown(path)}: expected JSON, got {error}") from error
    if any(key == "classes" and isinstance(value, list) for key, value in pairs):
        return _checked(path, read_classes(path))
    raw_ids = {name: _raw_id(path, name, value) for name, value in pairs}
    _refuse_repeats(path, [name for name, _ in pairs])
    names = {raw_id: name for name, raw_id in raw_ids.items() if raw_id > 0}
    shared = [raw_id for raw_id, uses in Counter(raw_ids.values()).items() if uses > 1]
    if shared:
        users = ", ".join(shown(name) for name, raw_id in raw_ids.items() if raw_id == shared[0])
        raise DataError(f"{shown(path)}: expected every value once, got {shared[0]} for {users}")
    gaps = [raw_id for raw_id in range(1, max(names, default=0) + 1) if raw_id not in names]
    if gaps:
        shown_gaps = ", ".join(map(str, gaps[:20]))
        raise DataError(f"{shown(path)}: expected the values 1 to {max(names)}, missing {shown_gaps}")
    return _checked(path, [names[raw_id] for raw_id in sorted(names)])


class _Pairs(list[tuple[str, Any]]):
    """The pairs of a JSON object with repeated names kept, which a dict would drop."""


def _raw_id(path: str | os.PathLike[str], name: str, value: Any) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_RAW_CLASSES:
        value = dict(value) if isinstance(value, _Pairs) else value
        raise DataError(
            f"{shown(path)}: expected a raw mask value from 0 (void) to {MAX_RAW_CLASSES} for {shown(name)}, "
            f"got {shown(str(value)[:80])}"
        )
    return value


def _refuse_repeats(path: str | os.PathLike[str], names: list[str]) -> None:
    counts: Mapping[str, int] = Counter(names)
    repeated = [name for name in counts if counts[name] > 1]
    if repeated:
        raise DataError(f"{shown(path)}: expected every class once, got {shown(repeated[0])} twice")


def _checked(path: str | os.PathLike[str], names: list[str]) -> tuple[str, ...]:
    _refuse_repeats(path, names)
    if not 1 <= len(names) <= MAX_RAW_CLASSES:
        raise DataError(f"{shown(path)}: expected 1 to {MAX_RAW_CLASSES} classes, got {len(names)}")
    return tuple(names)
