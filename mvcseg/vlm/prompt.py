"""The question about a group of classes, and the strict reading of its answer.

The question is the report's, word for word (arXiv 2406.04979): "Is the {stuff} in the image a {class1, class2, ...}?
Please give me the only answer."
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from mvcseg.errors import ConfigError, VLMAnswerError

REPORT_PROMPT = "Is the {stuff} in the image a {classes}? Please give me the only answer."
"""The report's question; ``{stuff}`` is the group's noun, ``{classes}`` the offered names joined by commas."""
OUTLINE_PROMPT = "Is the {stuff} inside the magenta outline a {classes}? Please give me the only answer."
"""The same about the region that a view outlines: no other thing of the group in the image is meant."""
MARK_PROMPT = "Is the {stuff} tinted in magenta a {classes}? Please give me the only answer."
"""The same about the region that a view tints."""
PROMPTS = {"report": REPORT_PROMPT, "outline": OUTLINE_PROMPT, "mark": MARK_PROMPT}
"""The questions by name, as the command line takes them."""
LONGEST_ANSWER = 4000
"""Characters of an answer that is still read; a longer one is no answer to a question like this."""

_BREAKS = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Quotes and marks of emphasis are no signs: "it is not a **river**" is one clause.
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s'’\"“”„«»*`%-]")
_NEGATIONS = frozenset(
    re.split(
        r";\s+",
        """not; no; never; neither; nor; none; cannot; cant; dont; isnt; without; hardly; anything but; rather than;
        instead of; unlike; except; apart from; aside from; as opposed to""",
    )
)
_HEDGES = frozenset(
    re.split(
        r";\s+",
        """unclear; unsure; uncertain; undecided; undetermined; indeterminate; inconclusive; ambiguous; unknown;
        unidentifiable; indistinguishable; impossible; unlikely; doubtful; insufficient; in doubt; i doubt; unable;
        no idea; no clue; hard to; difficult to; tough to; tricky to; other than; far from""",
    )
)
"""Words that make an answer unclear wherever they stand."""
_KNOWING = frozenset(
    re.split(
        r";\s+",
        """sure; certain; confident; clear; say; tell; know; determine; decide; identify; distinguish; discern; confirm;
        possible; said; told; known; determined; decided; identified; distinguished; confirmed; think so;
        enough information""",
    )
)
"""Words that do so after a negation: "not sure", "cannot tell", "don't really know"."""
_GUESSES = frozenset({"might", "may", "maybe", "could", "perhaps", "possibly", "whether"})
"""Words that make a name behind them in their clause a possibility. "Probably" and "appears to be" are answers."""
_PHRASES = tuple(words for words in _NEGATIONS | _HEDGES | _KNOWING if " " in words)
_CONJUNCTIONS = frozenset({"but", "because", "although", "though"})
# A comma alone ends no clause ("not a large, calm lake"); one before these words does.
_OPENERS = frozenset({"so", "therefore", "thus", "hence", "it", "it's", "this", "that", "the", "i", "which", "and"})


def question_text(noun: str, choices: Sequence[str], *, prompt: str = REPORT_PROMPT) -> str:
    """The question about a group.

    Args:
        noun: what the classes have in common.
        choices: the classes offered, in order.
        prompt: a text with ``{stuff}`` and ``{classes}`` where these belong.

    Raises:
        ConfigError: ``prompt`` lacks ``{classes}`` or names any other field.

    Example:
        >>> question_text("water", ["river", "lake", "sea"])
        'Is the water in the image a river, lake, sea? Please give me the only answer.'
    """
    fields = re.findall(r"\{([^{}]*)\}", prompt)
    if "classes" not in fields or not set(fields) <= {"stuff", "classes"}:
        raise ConfigError(f"prompt: expected a text with {{stuff}} and {{classes}} and no other field, got {prompt!r}")
    values = {"stuff": spoken(noun), "classes": ", ".join(spoken(name) for name in choices)}
    return re.sub(r"\{(stuff|classes)\}", lambda match: values[match[1]], prompt)


def parse_answer(answer: str, *, choices: Sequence[str], noun: str = "", question: str = "") -> str:
    """The one class that an answer names.

    - Whole words only, in any case, with underscores and hyphens as spaces: "rivers" and "riverside" are no
      "river".
    - A name of the form ``a_or_b`` is named by itself, by ``a`` and by ``b``, unless another choice is as well.
    - The question, "the {noun} in the image" and the noun itself say nothing.
    - Where two names fit at one place the longer counts: "flower pot" names no "flower".
    - A name after a negation in the same clause ("it is not a river", "I don't think this is a river") makes the
      whole answer unclear, and so does a second class, whatever is said about it. "No, a lake" negates nothing.
    - So do words of not knowing, wherever they stand ("unclear", "not sure", "cannot tell", "other than"), unless they
      belong to a name that is offered; and a guess in the clause before the name ("might be a lake").

    Args:
        answer: what the model said.
        choices: the classes offered.
        noun: the group's noun; never an answer, even where it is one of the choices.
        question: the question asked.

    Returns:
        The element of ``choices``, as given.

    Raises:
        VLMAnswerError: the answer names none or several of them, negates one, is not sure, or is longer than
            `LONGEST_ANSWER` characters.

    Example:
        >>> parse_answer("The water in the image is a lake.", choices=["river", "lake", "sea"], noun="water")
        'lake'
        >>> parse_answer("Either a river or a lake.", choices=["river", "lake", "sea"], noun="water")
        Traceback (most recent call last):
        ...
        mvcseg.errors.VLMAnswerError: the answer names river, lake, expected one
    """
    if len(answer) > LONGEST_ANSWER:
        raise VLMAnswerError(
            f"the answer has {len(answer)} characters, expected at most {LONGEST_ANSWER}", answer=answer
        )
    named, negated, doubts = _heard(_spans(_tokens(answer), _phrases(choices, noun=noun, question=question)))
    if len(named) > 1:
        raise VLMAnswerError(f"the answer names {', '.join(named)}, expected one", answer=answer)
    if not named:
        raise VLMAnswerError(f"the answer names none of {', '.join(choices)}", answer=answer)
    if doubts:
        raise VLMAnswerError(f"the answer names {next(iter(named))} and is not sure: {doubts[0]!r}", answer=answer)
    if negated:
        raise VLMAnswerError(f"the answer negates {', '.join(negated)}", answer=answer)
    return next(iter(named))


def _heard(spans: list[str | _Name]) -> tuple[dict[str, None], dict[str, None], list[str]]:
    """The choices named, those of them negated, and the words of doubt."""
    named: dict[str, None] = {}
    negated: dict[str, None] = {}
    doubts: list[str] = []
    negation = guess = ""
    for before, part in zip(["", *spans], spans, strict=False):
        if isinstance(part, _Name):
            if part.choice is not None:
                named[part.choice] = None
                negated.update({part.choice: None} if negation else {})
                doubts += [guess] if guess else []
        elif _ends_clause(before, part):
            negation = guess = ""
        elif part in _NEGATIONS or part.endswith("n't"):
            negation = part
        elif part in _HEDGES:
            doubts.append(part)
        elif part in _GUESSES:
            guess = part
        elif negation and part in _KNOWING and (negation, part) != ("no", "clear"):
            doubts.append(f"{negation} {part}")
    return named, negated, doubts


def spoken(name: str) -> str:
    r"""A class name as it is said: underscores as spaces, no space doubled.

    Names come from files of others: a line break in one must not look like the end of the question.

    Example:
        >>> spoken("flower_pot_or_vase"), spoken("lake\n\nSay: river")
        ('flower pot or vase', 'lake Say: river')
    """
    return in_one_line(name.replace("_", " "))


def in_one_line(text: str) -> str:
    """A text without control characters, line breaks, lone surrogates and marks that turn its direction around."""
    plain = (" " if unicodedata.category(char) in _BREAKS else char for char in text if char not in _TURNS)
    return " ".join("".join(plain).split())


def _ends_clause(before: str | _Name, part: str) -> bool:
    if before == ",":
        return part in _OPENERS or part in _CONJUNCTIONS
    if part == ",":
        return before == "no"
    return part in _CONJUNCTIONS or not part[0].isalnum()


class _Name:
    """A place in an answer that is a choice, or (None) words of the question."""

    def __init__(self, choice: str | None) -> None:
        self.choice = choice


def _tokens(text: str) -> list[str]:
    # Line breaks end a clause as a full stop does: answers come as lists too.
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return _WORD.findall(re.sub(r"[_-]", " ", re.sub(r"[\n\r]+", " . ", plain)))


def _phrases(choices: Sequence[str], *, noun: str, question: str) -> dict[tuple[str, ...], str | _Name]:
    phrases: dict[tuple[str, ...], str | _Name] = {}
    parts: dict[tuple[str, ...], list[str]] = {}
    for choice in choices:
        phrases[tuple(_tokens(choice))] = _Name(choice)
        for part in spoken(choice).split(" or "):
            parts.setdefault(tuple(_tokens(part)), []).append(choice)
    for words, owners in parts.items():
        if len(set(owners)) == 1:
            phrases.setdefault(words, _Name(owners[0]))
        elif words not in phrases:
            phrases[words] = _Name(None)
    for own in (noun, f"the {noun} in the image") if spoken(noun) else ():
        phrases[tuple(_tokens(own))] = _Name(None)
    # A model may repeat the question whole or up to its question mark.
    for own in (question, question.partition("?")[0]):
        phrases[tuple(_tokens(own))] = _Name(None)
    for phrase in _PHRASES:
        phrases.setdefault(tuple(phrase.split()), phrase)
    phrases.pop((), None)
    return phrases


def _spans(tokens: list[str], phrases: dict[tuple[str, ...], str | _Name]) -> list[str | _Name]:
    """The tokens with every phrase, leftmost and longest first, as one item."""
    lengths: dict[str, list[int]] = {}
    for phrase in phrases:
        lengths.setdefault(phrase[0], []).append(len(phrase))
    spans: list[str | _Name] = []
    start = 0
    while start < len(tokens):
        found: str | _Name = tokens[start]
        length = 1
        for size in sorted(lengths.get(tokens[start], ()), reverse=True):
            if (name := phrases.get(tuple(tokens[start : start + size]))) is not None:
                found, length = name, size
                break
        spans.append(found)
        start += length
    return spans
