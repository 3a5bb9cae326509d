"""How often answerers agree, and how much more than by chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """Of two answerers, over the questions that both answered.

    Attributes:
        first: name of the one.
        second: name of the other.
        both: questions that both answered with a class.
        equal: of these, with the same class.
        kappa: Cohen's kappa, at most 1; None where chance alone makes them agree always, or both answered nothing.
    """

    first: str
    second: str
    both: int
    equal: int
    kappa: float | None

    @property
    def share(self) -> float | None:
        """Share of equal answers, in ``[0, 1]``; None where there is none to compare."""
        return self.equal / self.both if self.both else None


def agreement_between(
    first: str,
    second: str,
    *,
    answers: Sequence[tuple[int | None, int | None]],
    groups: Sequence[Hashable],
) -> Agreement:
    """How two answerers agree.

    Kappa is ``(observed - expected) / (1 - expected)``; the agreement expected by chance is taken within each group
    of questions, from how often each answerer names each class there, because two who know nothing still agree
    that water is no animal. With one group this is Cohen's kappa.

    Args:
        first: name of the one.
        second: name of the other.
        answers: for every question the class that each named, None where it named none.
        groups: for every question what its choices are, equal where the choices are.

    Source: Cohen, "A coefficient of agreement for nominal scales", 1960.

    Example:
        >>> answers = [(1, 1)] * 20 + [(1, 2)] * 5 + [(2, 1)] * 10 + [(2, 2)] * 15
        >>> agreement_between("a", "b", answers=answers, groups=["water"] * 50)
        Agreement(first='a', second='b', both=50, equal=35, kappa=0.4)
    """
    known = [
        (one, other, group) for (one, other), group in zip(answers, groups, strict=True) if None not in (one, other)
    ]
    equal = sum(one == other for one, other, _ in known)
    chance = 0.0  # equal answers expected
    for group in dict.fromkeys(group for _, _, group in known):
        of_group = [(one, other) for one, other, its in known if its == group]
        ones, others = Counter(one for one, _ in of_group), Counter(other for _, other in of_group)
        chance += sum(count * others[index] for index, count in ones.items()) / len(of_group)
    kappa = None if chance == len(known) else (equal - chance) / (len(known) - chance)
    return Agreement(first=first, second=second, both=len(known), equal=equal, kappa=kappa)
