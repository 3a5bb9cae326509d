"""Simulated answerers that are right with a given probability, and what a vote over their answers changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.vlm import images_digest

Errors: TypeAlias = Literal["independent", "shared"]
"""Whether the views of a tube err each for itself, or all alike."""
NONE = -1
"""In place of a class: an answer that names none, a tube that stays as it was."""
NO_ANSWER = "None of these."


@dataclass(frozen=True)
class Asked:
    """What a simulated answerer knows about one picture.

    Attributes:
        tube: name of the tube, the same for all its views.
        digest: of the picture.
        truth: the name that is right; None where none of those offered is.
        choices: the names offered.
    """

    tube: str
    digest: str
    truth: str | None
    choices: tuple[str, ...]


class Answerer:
    """A VLM that names the truth with probability ``accuracy``, else one of the other names offered, all alike.

    Where no name offered is right, the right answer is `NO_ANSWER`. Every answer follows from ``seed`` and the picture
    (or the tube, where errors are shared), and who is right at one accuracy is right at every higher one.

    Args:
        known: what may be asked.
        accuracy: in ``[0, 1]``.
        seed: another seed errs elsewhere.
        errors: of the views of one tube.
    """

    def __init__(self, known: Sequence[Asked], *, accuracy: float, seed: int, errors: Errors = "independent") -> None:
        self.known: Mapping[str, Asked] = {asked.digest: asked for asked in known}
        self.accuracy = accuracy
        self.seed = seed
        self.errors = errors
        self.calls = 0
        self.identity = f"simulated {accuracy} {seed} {errors}"

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        """The answer to a picture that it knows."""
        self.calls += 1
        answer = self.name(self.known[images_digest(images)])
        return NO_ANSWER if answer is None else answer

    def name(self, asked: Asked) -> str | None:
        """The name it gives, or None."""
        luck, other = draws(asked, seed=self.seed, errors=self.errors)
        if luck < self.accuracy:
            return asked.truth
        return wrong_names(asked)[int(other * len(wrong_names(asked)))]


def draws(asked: Asked, *, seed: int, errors: Errors) -> tuple[float, float]:
    """Two numbers in ``[0, 1)``: who is luckier than the accuracy errs; which of the wrong names it gives then."""
    key = asked.digest if errors == "independent" else asked.tube
    digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
    luck, other = (int.from_bytes(part, "big") / 2**48 for part in (digest[:6], digest[6:12]))
    return luck, other


def wrong_names(asked: Asked) -> tuple[str, ...]:
    """The names offered but the right one."""
    return tuple(name for name in asked.choices if name != asked.truth)


def voted(
    answers: NDArray[np.int64], views: NDArray[np.int64], whole: NDArray[np.int64], *, agreement: float
) -> NDArray[np.int64]:
    """The class each tube gets by the library's rule, `NONE` where it stays as it was.

    Args:
        answers: classes named ``(tubes, views)``, `NONE` for none.
        views: views of each tube ``(tubes,)``; answers beyond them are ignored.
        whole: the class of a tube that is all of one class, else `NONE`, ``(tubes,)``.
        agreement: share of a tube's views that must name the same class, above a half.
    """
    asked = np.arange(answers.shape[1]) < views[:, None]
    named = np.where(asked, answers, NONE)
    votes = (named[:, :, None] == named[:, None, :]).sum(axis=2) * (named != NONE)
    best = votes.argmax(axis=1)
    rows = np.arange(len(answers))
    winner = np.where(votes[rows, best] >= agreement * views - 1e-9, named[rows, best], NONE)
    is_confirmed = (whole != NONE) & (answers[:, 0] == whole)
    return np.where(is_confirmed | (winner == whole), NONE, winner)


def break_even(accuracies: Sequence[float], gains: Sequence[float]) -> float | None:
    """The accuracy from which on the gain is not negative, interpolated between the accuracies measured.

    Returns:
        The lowest accuracy measured where no gain is negative; None where the last one is, or where no gain is other
        than zero.
    """
    if gains[-1] < 0 or not any(gains):
        return None
    for index in range(len(gains) - 2, -1, -1):
        if gains[index] < 0:
            low, high = gains[index], gains[index + 1]
            return float(accuracies[index] + (accuracies[index + 1] - accuracies[index]) * -low / (high - low))
    return float(accuracies[0])
