"""Groups of look-alike classes in a YAML file of the user's, read and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from os import PathLike

import yaml
from torch import Tensor

from mvcseg.data.files import write_text
from mvcseg.errors import ConfigError, DataError
from mvcseg.vlm.confusion import called_without_truth, confusion_shares
from mvcseg.vlm.groups import Group
from mvcseg.vlm.yaml_file import Located, entries_of, read_yaml, text_at, told

_FORM = "{noun: water, classes: [river, lake]}"
_HEADER = """\
# Classes that look alike. `mvcseg correct` asks "Is the {noun} inside the magenta outline a {classes}?"
# Give each group a noun that all its classes are, and remove the groups that no picture could settle.
"""
_MOST_LEFT_OUT = 10
_MOST_TRUE = 3
_SHARES = """\
# Percentages: confused pixels among all that are or were called the class of the two that suffers more.
"""


def read_groups(path: str | PathLike[str], *, class_names: Sequence[str]) -> tuple[Group, ...]:
    """Groups from a YAML (or JSON) file.

    Args:
        path: a list of entries with ``noun`` and ``classes``, each class by name or by id::

                - noun: water
                  classes: [river, lake, 37]

        class_names: name of every class, by id.

    Raises:
        DataError: the file is missing, no YAML or of another form, names a class that does not exist or a name that
            two classes have, or a group is not allowed (see `Group`); names file and line.
    """
    return tuple(
        _group(entry, class_names)
        for entry in entries_of(read_yaml(path), form=f"- {_FORM}", allowed=("noun", "classes"))
    )


def write_groups(
    path: str | PathLike[str],
    groups: Sequence[Group],
    *,
    class_names: Sequence[str],
    matrix: Tensor | None = None,
) -> None:
    """Write groups as YAML for people, which `read_groups` reads back.

    Args:
        path: the file.
        groups: what is written, in this order.
        class_names: name of every class, by id. A class whose name another has as well is written by its id.
        matrix: the confusion matrix the groups come from; adds as comments how much each pair is confused, up to
            ten pairs that are confused as much as one of these but in no group together, and what has no ground truth.

    Raises:
        DataError: the file cannot be written.
        ConfigError: a group holds an id without a name, or there is no group.
    """
    if not groups:
        raise ConfigError("groups: expected at least one, got none")
    for group in groups:
        group.answers(class_names)
    shares = None if matrix is None else confusion_shares(matrix)
    lines = [_HEADER + (_SHARES if shares is not None else "")]
    for group in groups:
        lines.append(f"- noun: {_scalar(group.noun)}\n")
        lines.append(f"  classes: [{', '.join(_class(index, class_names) for index in group.class_ids)}]\n")
        if shares is not None:
            lines += [f"  #   {line}\n" for line in _told(_pairs(group.class_ids, shares), class_names)]
    if shares is not None and (left_out := _left_out(groups, shares)):
        lines.append("# Confused as well, and in no group together:\n")
        lines += [f"#   {line}\n" for line in _told(left_out, class_names)]
    if matrix is not None:
        lines += [f"# {line}\n" for line in told_without_truth(matrix, class_names=class_names)]
    write_text(path, "".join(lines))


def told_without_truth(matrix: Tensor, *, class_names: Sequence[str]) -> list[str]:
    """Lines about classes that are predicted but have no ground truth, so that nothing is proposed for them.

    Args:
        matrix: counts, as in `mvcseg.vlm.confusion_groups`.
        class_names: name of every class, by id.

    Returns:
        A line for each of the ten classes of most pixels; none where all that is predicted has ground truth.

    Example:
        >>> import torch
        >>> matrix = torch.tensor([[90, 0, 0], [0, 50, 30], [0, 0, 0]])
        >>> told_without_truth(matrix, class_names=["sky", "river", "lake"])
        ['left out, no ground truth: lake (30 pixels of river called so)']
    """
    lines = []
    for absent, true in list(called_without_truth(matrix).items())[:_MOST_LEFT_OUT]:
        first, *others = [(pixels, _line(class_names[index])) for index, pixels in true[:_MOST_TRUE]]
        was = ", ".join([f"{first[0]:,} pixels of {first[1]}", *(f"{pixels:,} of {name}" for pixels, name in others)])
        lines.append(f"left out, no ground truth: {_line(class_names[absent])} ({was} called so)")
    return lines


def _group(entry: Located, class_names: Sequence[str]) -> Group:
    assert isinstance(entry.value, dict)
    noun, classes = text_at(entry, "noun"), entry.value.get("classes")
    if classes is None or not isinstance(classes.value, list):
        place, got = (entry.place, "none") if classes is None else (classes.place, told(classes))
        raise DataError(f"{place}: classes: expected a list of names of classes or ids, got {got}")
    try:
        group = Group(noun, tuple(_id(found, class_names) for found in classes.value))
        group.answers(class_names)
    except ConfigError as error:
        raise DataError(f"{entry.place}: {error}") from error
    return group


def _id(found: Located, class_names: Sequence[str]) -> int:
    value = found.value
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(class_names):
            raise DataError(f"{found.place}: expected an id from 0 to {len(class_names) - 1}, got {value}")
        return value
    owners = [index for index, name in enumerate(class_names) if name == value]
    if len(owners) > 1:
        raise DataError(f"{found.place}: {told(found)} is the name of several classes, expected an id of {owners}")
    if not owners:
        raise DataError(f"{found.place}: expected the name of a class or an id, got {told(found)}")
    return owners[0]


def _pairs(members: Iterable[int], shares: Tensor) -> list[tuple[float, int, int]]:
    """Share and ids of each pair of classes, most confused first."""
    pairs = [(float(shares[i, j]), i, j) for i, j in combinations(sorted(members), 2)]
    return sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))


def _left_out(groups: Sequence[Group], shares: Tensor) -> list[tuple[float, int, int]]:
    together = {(i, j) for group in groups for _, i, j in _pairs(group.class_ids, shares)}
    least = min(float(shares[i, j]) for i, j in together)
    pairs = _pairs(range(len(shares)), shares)
    return [pair for pair in pairs if pair[0] >= max(least, 0.001) and pair[1:] not in together][:_MOST_LEFT_OUT]


def _told(pairs: Sequence[tuple[float, int, int]], class_names: Sequence[str]) -> list[str]:
    return [f"{100 * share:4.1f} %  {_line(class_names[i])} / {_line(class_names[j])}" for share, i, j in pairs]


def _class(index: int, class_names: Sequence[str]) -> str:
    name = class_names[index]
    return _scalar(name) if Counter(class_names)[name] == 1 else str(index)


def _scalar(text: str) -> str:
    """A text as YAML: as it is where that is read as this text, else in quotes."""
    plain = text.replace("_", "a").replace("-", "a").replace(" ", "a")
    is_plain = plain.isascii() and plain.isalnum() and text[0].isalpha() and text == text.strip()
    # Other readers of YAML take these words for yes or no.
    if is_plain and text.lower() not in {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}:
        return text
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**6).strip()


def _line(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name)
