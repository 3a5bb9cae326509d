"""What came of asking several models the same questions, and what a model charges."""

from __future__ import annotations

from dataclasses import dataclass

from mvcseg.errors import ConfigError
from mvcseg.vlm.agreement import Agreement
from mvcseg.vlm.changes import Change
from mvcseg.vlm.questions import Plan
from mvcseg.vlm.usage import Usage


@dataclass(frozen=True)
class Price:
    """What a server charges for a million tokens, in any one currency.

    Raises:
        ConfigError: a price is negative or not finite.
    """

    input: float
    output: float

    def __post_init__(self) -> None:
        if not (0 <= self.input < float("inf") and 0 <= self.output < float("inf")):
            raise ConfigError(f"price: expected numbers of at least 0, got {self.input} and {self.output}")

    def of(self, usage: Usage) -> float:
        """The price of so many tokens."""
        return (self.input * usage.prompt_tokens + self.output * usage.completion_tokens) / 1_000_000


@dataclass(frozen=True)
class Compared:
    """What came of asking one model.

    Attributes:
        name: the name it was given.
        changes: one record a question, as `correct_labels` makes them.
        answered: questions answered with one of the classes.
        unclear: questions whose answer names none or several, or whose views disagree.
        failed: questions that got no answer.
        judged: answered questions of which ground truth knows the class.
        right: of these, answered with that class.
        mended: tubes whose main class is wrong and becomes right by following the answers.
        spoilt: tubes whose main class is right and becomes wrong.
        mended_pixels: labelled pixels that become right.
        spoilt_pixels: labelled pixels that become wrong.
        kept: calls that took no model: answers kept on disk, or recorded.
        calls: calls of the model in this run, whatever came of them.
        seconds: how long these took, together; with several at once, longer than the run.
        usage: tokens of these as the model reported them; None where it reports none.
        cost: of these tokens; None without a price or without tokens.
        trouble: why the first question that got no answer got none; empty where all did.
        is_unavailable: whether every call found nobody to ask.
    """

    name: str
    changes: tuple[Change, ...]
    answered: int
    unclear: int
    failed: int
    judged: int
    right: int
    mended: int
    spoilt: int
    mended_pixels: int
    spoilt_pixels: int
    kept: int
    calls: int
    seconds: float
    usage: Usage | None
    cost: float | None
    trouble: str
    is_unavailable: bool


@dataclass(frozen=True)
class Comparison:
    """What came of asking several models the same questions.

    Attributes:
        plan: the questions.
        truths: the true class of each question's tube; None where ground truth does not say, or there is none.
        has_truth: whether ground truth was given.
        not_offered: questions about tubes that truly are of a class that is none of the choices.
        models: one for each model, in the order given.
        pairs: agreement of each two models.
    """

    plan: Plan
    truths: tuple[int | None, ...]
    has_truth: bool
    not_offered: int
    models: tuple[Compared, ...]
    pairs: tuple[Agreement, ...]

    @property
    def known(self) -> int:
        """Questions of which ground truth knows the class."""
        return sum(truth is not None for truth in self.truths)

    @property
    def right_before(self) -> int:
        """Of these, tubes whose main class is that class already."""
        return sum(
            truth is not None and question.tube.shares[0][0] == truth
            for question, truth in zip(self.plan.questions, self.truths, strict=True)
        )
