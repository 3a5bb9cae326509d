from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvcseg.errors import VLMAnswerError
from mvcseg.vlm import parse_answer
from mvcseg.vlm.structured import SchemaSupport, answer_in, choice_format, names_schema, way_out

CHOICES = ("river", "lake", "sea")


def schema(choices: tuple[str, ...]) -> dict[str, object]:
    (field,) = choice_format(choices).values()
    assert (field["type"], field["json_schema"]["strict"]) == ("json_schema", True)
    form: dict[str, object] = field["json_schema"]["schema"]
    return form


def test_schema_admits_each_choice_and_a_way_out_and_nothing_else() -> None:
    form = schema(CHOICES)
    assert (form["type"], form["required"], form["additionalProperties"]) == ("object", ["answer"], False)
    (field,) = form["properties"].values()  # type: ignore[attr-defined]
    assert (field["type"], field["enum"]) == ("string", ["river", "lake", "sea", "unclear"])


def test_name_given_twice_is_listed_once() -> None:
    assert schema(("lake", "lake"))["properties"]["answer"]["enum"] == ["lake", "unclear"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("choices", "word"),
    [
        (CHOICES, "unclear"),
        (("unclear", "lake"), "none of these"),
        (("Unclear", "these", "lake"), "none of these"),
        (("unclear", "none_of_these", "lake"), "cannot tell"),
        (("unclear", "none", "cannot", "lake"), "no answer"),
    ],
)
def test_way_out_names_no_choice(choices: tuple[str, ...], word: str) -> None:
    assert way_out(choices) == word
    with pytest.raises(VLMAnswerError):
        parse_answer(way_out(choices), choices=choices)


@given(st.text(max_size=30))
def test_field_comes_back_as_it_was_written(said: str) -> None:
    assert answer_in(json.dumps({"answer": said})) == said
    assert answer_in("\n " + json.dumps({"answer": said}, indent=2)) == said


@pytest.mark.parametrize(
    "text", ["", "lake", "The water is a lake.", '"lake"', "[1]", "null", "```json\n{}```", "Ein {See}"]
)
def test_text_that_is_no_object_is_passed_on(text: str) -> None:
    assert answer_in(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"answer": null}',
        '{"answer": ["lake"]}',
        '{"answer": {"answer": "lake"}}',
        '{"Answer": "lake"}',
        '{"answer": null, "river": 0.9}',
        '{"answer": "lake", "confidence": 0.9}',
        '{"answer": "lake", "answer": "river"}',
        '{"answers": "lake"}',
    ],
)
def test_object_of_another_form_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(VLMAnswerError, match=r"not \{.answer.: a text\}") as caught:
        answer_in(text)
    assert caught.value.answer == text


@pytest.mark.parametrize(
    "text", ['{"answer": "sea', '{"answer": "lake"} {"answer": "sea"}', "{lake}", '{"a":' * 99_999]
)
def test_object_that_breaks_off_is_refused(text: str) -> None:
    with pytest.raises(VLMAnswerError, match="breaks off"):
        answer_in(text)


@pytest.mark.parametrize(
    "message",
    [
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
        'response_format type must be one of "text" or "json_object", but got: json_schema',
        "This model does not support structured outputs",
        "Failed to parse grammar",
        "guided decoding is off",
        "Structured Outputs are not available for this model",
        "Invalid schema: enum has too many values",
    ],
)
def test_messages_about_schemas_are_known(message: str) -> None:
    assert names_schema(message)


@pytest.mark.parametrize("message", ["", "no such model", "image too large", "too many tokens", "You are misguided"])
def test_other_messages_are_not(message: str) -> None:
    assert not names_schema(message)


def test_only_refusals_may_be_about_the_schema() -> None:
    support = SchemaSupport()
    for status in (400, 404, 422, 500, 501):
        assert support.may_be_refused(status, "Bad Request")
    for status in (401, 403, 408, 429, 503):
        assert not support.may_be_refused(status, "Bad Request: response_format")


def test_server_that_took_a_schema_refuses_one_only_by_name() -> None:
    support = SchemaSupport()
    support.is_proven = True
    assert not support.may_be_refused(400, "image too large")
    assert support.may_be_refused(400, "Invalid schema for response_format")
