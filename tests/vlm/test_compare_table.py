from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compared_scene import GROUPS, NAMES, Told, compared

from mvcseg.errors import VLMUnavailableError
from mvcseg.vlm import Price, Usage, compare_vlms
from mvcseg.vlm.compare_table import AS_LABELLED, comparison_table, comparison_value


def test_table_fits_80_columns_whatever_the_names_and_numbers() -> None:
    result = compared(
        {
            "a-model-with-a-name-of-fifty-characters-and-some-more": Told("A river.", tokens=(9_999_999, 999_999)),
            "b\n\x1b[31mred": Told(VLMUnavailableError("no " * 300)),
            "c": Told("A river.", "The sea."),
        },
        prices={"a-model-with-a-name-of-fifty-characters-and-some-more": Price(1000.0, 1000.0)},
    )
    text = comparison_table(result)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert AS_LABELLED in text
    lines = {line[:10].strip(): line for line in text.splitlines()}
    assert "1 of 2,  50.0 %" in lines["(labels as"[:10].strip()]


def test_table_says_what_was_free(tmp_path: Path) -> None:
    models = {"a": Told("A river.", identity="m")}
    text = comparison_table(compared(models, cache=tmp_path))
    assert "free" not in text
    text = comparison_table(compared(models, cache=tmp_path))
    assert "Kept and recorded answers were free and took no time" in text
    row = next(line for line in text.splitlines() if line.startswith("a ") and line.endswith(" 2"))
    assert row.split() == ["a", "0", "-", "-", "-", "-", "2"]


def test_value_is_json_with_every_answer() -> None:
    prices = {"a": Price(1, 2)}
    result = compared({"a": Told("A river.", tokens=(10, 5)), "b": Told("who knows")}, prices=prices)
    value = json.loads(json.dumps(comparison_value(result, class_names=NAMES, prices=prices), allow_nan=False))
    assert [(q["from"], q["truth"], q["answers"]) for q in value["questions"]] == [
        ("lake", "river", {"a": "river", "b": None}),
        ("sea", "sea", {"a": "river", "b": None}),
    ]
    a, b = value["models"]
    assert (a["accuracy"], a["prompt_tokens"], a["completion_tokens"], a["price"]) == (
        0.5,
        20,
        10,
        {"input": 1, "output": 2},
    )
    assert a["cost"] == pytest.approx(40e-6)
    assert (b["accuracy"], b["prompt_tokens"], b["cost"], b["unclear"]) == (None, None, None, 2)
    assert value["agreement"] == [{"models": ["a", "b"], "both": 0, "equal": 0, "share": None, "kappa": None}]


def test_nothing_to_ask_about_is_said() -> None:
    video = torch.zeros(2, 3, 8, 12, dtype=torch.uint8)
    labels = torch.zeros(2, 8, 12, dtype=torch.uint8)
    result = compare_vlms(video, labels, vlms={"a": Told("x")}, groups=GROUPS, class_names=NAMES, flow=None)
    assert comparison_table(result) == "0 questions to each model, at most 0 pictures."


def test_answers_that_told_no_tokens_are_counted_and_warned_of() -> None:
    class Forgetful(Told):
        def __call__(self, *asked: Any, **more: Any) -> str:
            answer = super().__call__(*asked, **more)
            if self.calls == 1:
                self.usage = Usage(requests=1, unreported=1)
            return answer

    prices = {"a": Price(1, 1)}
    result = compared({"a": Forgetful("A river.", tokens=(10, 5))}, prices=prices)
    (value,) = comparison_value(result, class_names=NAMES, prices=prices)["models"]
    assert (value["calls"], value["calls_without_tokens"], value["prompt_tokens"]) == (2, 1, 10)
    assert "Not every answer of a said its tokens: tokens and cost are too low." in comparison_table(result)


def test_pairs_that_answered_nothing_together_have_no_line() -> None:
    text = comparison_table(compared({"a": Told("A river."), "b": Told("who knows"), "c": Told("A lake.")}))
    assert "a / c" in text
    assert "a / b" not in text
    assert "Agreement" not in comparison_table(compared({"a": Told("A river."), "b": Told("who knows")}))
