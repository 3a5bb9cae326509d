"""Answers as JSON that a schema confines to the choices, for servers that can do that.

The field is ``response_format`` of type ``json_schema``, which OpenAI, vLLM, llama.cpp, Ollama and LM Studio know. Some
servers refuse it, some accept and ignore it, so an answer in plain words is an answer too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from mvcseg.errors import VLMAnswerError
from mvcseg.vlm.prompt import parse_answer

_WAYS_OUT = ("unclear", "none of these", "cannot tell", "no answer")
_SCHEMA_WORDS = re.compile(r"response.?format|json.?schema|\bschema\b|structured|\bguided|grammar", re.IGNORECASE)
_REFUSALS = (400, 404, 405, 415, 422, 500, 501)


def choice_format(choices: Sequence[str]) -> dict[str, Any]:
    """The request's field that confines the answer to ``{"answer": one of the choices}``, or a word for none of them.

    Example:
        >>> schema = choice_format(["river", "lake"])["response_format"]["json_schema"]["schema"]
        >>> schema["properties"]["answer"]["enum"]
        ['river', 'lake', 'unclear']
    """
    answer = {
        "type": "string",
        "description": "the only one that fits, or that none or several do",
        "enum": list(dict.fromkeys([*choices, way_out(choices)])),
    }
    schema = {
        "type": "object",
        "properties": {"answer": answer},
        "required": ["answer"],
        "additionalProperties": False,
    }
    form = {"name": "answer", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def way_out(choices: Sequence[str]) -> str:
    """A word for an undecided model that names none of the choices, so that it is read as unclear."""
    for word in _WAYS_OUT:
        try:
            parse_answer(word, choices=choices)
        except VLMAnswerError:
            return word
    return _WAYS_OUT[-1]


def answer_in(text: str) -> str:
    """What the model said: the one field of a JSON object, or the text itself where it is none.

    Raises:
        VLMAnswerError: the text is an object of another form, or breaks off.

    Example:
        >>> answer_in('{"answer": "lake"}'), answer_in("It is a lake.")
        ('lake', 'It is a lake.')
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        fields = json.loads(text, object_pairs_hook=list)  # as pairs, a field given twice is seen
    except (ValueError, RecursionError):
        raise VLMAnswerError("the answer is JSON that breaks off or is none", answer=text) from None
    if len(fields) != 1 or fields[0][0] != "answer" or not isinstance(fields[0][1], str):
        raise VLMAnswerError('the answer is JSON, but not {"answer": a text}', answer=text)
    said: str = fields[0][1]
    return said


def names_schema(message: str) -> bool:
    """Whether an error's text is about answers in a given form."""
    return _SCHEMA_WORDS.search(message) is not None


class SchemaSupport:
    """What a client found out about its server: whether it takes schemas.

    Errors are told apart by what comes of the same question without a schema, never by their wording alone: one
    that has another cause fails again, and is shown as it is. Threads may find out the same thing at once.
    """

    def __init__(self) -> None:
        self.is_proven = False
        self.is_refused = False

    def may_be_refused(self, status: int, message: str) -> bool:
        """Whether an error may mean that the server takes no schema, so that asking without one is worth a try.

        From a server that has answered by a schema only an error that speaks of it may. 500 is what older releases of
        llama.cpp answered.
        """
        return status in _REFUSALS and (not self.is_proven or names_schema(message))
