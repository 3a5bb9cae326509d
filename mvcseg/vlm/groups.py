"""Groups of classes that are easily taken for one another, as data.

The groups for VSPW are a proposal from the meaning of its class names, not a measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mvcseg.errors import ConfigError
from mvcseg.segmenter import IGNORE_INDEX
from mvcseg.vlm.prompt import spoken


@dataclass(frozen=True)
class Group:
    """Classes that look alike, and the word a question calls them all by.

    Attributes:
        noun: the report's {stuff}: "Is the water in the image a ...?".
        class_ids: the classes, in the order they are offered. A class whose name is the noun itself is asked
            about but never offered: "water" is no answer to what the water is.

    Raises:
        ConfigError: the noun holds no word, an id is negative or given twice, or there are fewer than two.

    Example:
        >>> Group("water", (1, 2, 3)).answers(["sky", "river", "lake", "water"])
        {1: 'river', 2: 'lake'}
    """

    noun: str
    class_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.noun, str) or not spoken(self.noun):
            raise ConfigError(f"noun: expected a word such as 'water', got {self.noun!r}")
        ids = tuple(self.class_ids)
        if any(isinstance(index, bool) or not isinstance(index, int) or index < 0 for index in ids):
            raise ConfigError(f"class_ids of group {self.noun!r}: expected integers of at least 0, got {ids}")
        if len(set(ids)) != len(ids) or len(ids) < 2:
            raise ConfigError(f"class_ids of group {self.noun!r}: expected at least two different ids, got {ids}")
        object.__setattr__(self, "class_ids", ids)

    def answers(self, class_names: Sequence[str]) -> dict[int, str]:
        """The classes offered: id and name as it is said, underscores as spaces; the noun's own class left out.

        Raises:
            ConfigError: an id has no name in ``class_names``, a name holds no word, two classes are
                called the same, or fewer than two are left to choose from.
        """
        if max(self.class_ids) >= len(class_names):
            raise ConfigError(
                f"class_ids of group {self.noun!r}: expected ids from 0 to {len(class_names) - 1} (there are "
                f"{len(class_names)} class_names), got {max(self.class_ids)}"
            )
        names = {index: spoken(class_names[index]) for index in self.class_ids}
        said = {index: name.casefold() for index, name in names.items()}
        if not all(said.values()) or len(set(said.values())) != len(said):
            raise ConfigError(
                f"class_names of group {self.noun!r}: expected different names, got {list(names.values())}"
            )
        offered = {index: name for index, name in names.items() if said[index] != spoken(self.noun).casefold()}
        if len(offered) < 2:
            raise ConfigError(
                f"group {self.noun!r}: expected at least two classes to choose from beside the noun itself, got "
                f"{list(offered.values())}"
            )
        return offered


VSPW_GROUPS = (
    Group("water", (35, 36, 37, 38, 39)),
    Group("ground", (13, 14, 15, 16, 17, 18, 19, 20)),
    Group("snow", (32, 33)),
    Group("structure", (0, 21, 22, 23, 24, 27, 34)),
    Group("barrier", (7, 9, 47, 81)),
    Group("rock", (29, 30)),
    Group("plant", (15, 66, 67, 68)),
    Group("vehicle", (48, 49, 50, 53, 123)),
    Group("vessel", (54, 55)),
    Group("animal", (61, 62, 63, 64, 65)),
    Group("furniture", (89, 90, 91, 92)),
    Group("storage unit", (75, 93)),
    Group("container", (76, 77, 78, 79, 83, 84, 85, 108)),
    Group("fabric", (45, 88, 103, 104, 105)),
    Group("panel", (40, 106, 107, 112, 114, 115)),
    Group("light", (58, 59)),
)
"""Likely confusions among VSPW's 124 classes (ids from 0). Grass is in two groups: the first asks about it."""


def check_ids_fit(groups: Sequence[Group], *, dtype: torch.dtype) -> None:
    """Require class ids that labels can hold, and that do not stand for pixels without a class.

    Raises:
        ConfigError: an id is `IGNORE_INDEX` or beyond what labels of ``dtype`` hold.

    Example:
        >>> check_ids_fit([Group("water", (1, 200))], dtype=torch.int8)
        Traceback (most recent call last):
        ...
        mvcseg.errors.ConfigError: class_ids of group 'water': labels of torch.int8 hold at most 127, got 200
    """
    most = torch.iinfo(dtype).max
    for group in groups:
        for index in group.class_ids:
            if index == IGNORE_INDEX:
                raise ConfigError(f"class_ids of group {group.noun!r}: {index} stands for pixels without a class")
            if index > most:
                raise ConfigError(
                    f"class_ids of group {group.noun!r}: labels of {dtype} hold at most {most}, got {index}"
                )


def asked_by(groups: Sequence[Group]) -> dict[int, int]:
    """Which group asks about the pixels of a class: id -> position of the first group that lists it.

    A class that a later group lists again stays one of that group's answers, so every pixel is asked about at
    most once and no two answers can contradict each other.
    """
    owner: dict[int, int] = {}
    for position, group in enumerate(groups):
        for index in group.class_ids:
            owner.setdefault(index, position)
    return owner
