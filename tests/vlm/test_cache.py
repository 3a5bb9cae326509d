from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DataError, VLMAnswerError, VLMUnavailableError
from mvcseg.vlm import CachedVLM, ReplayVLM, Usage


class Counting:
    """Answers with how often it was asked."""

    identity = "counting"

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        self.asked += 1
        return f"answer {self.asked}"


def image(value: int = 0) -> Tensor:
    return torch.full((3, 2, 4), value, dtype=torch.uint8)


def test_same_question_is_asked_once_across_runs(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    assert CachedVLM(first, tmp_path)([image()], "a?", choices=("x", "y")) == "answer 1"
    again = CachedVLM(second, tmp_path)
    assert again.kept([image()], "a?", choices=("x", "y")) == "answer 1"
    assert again([image()], "a?", choices=("x", "y")) == "answer 1"
    assert (first.asked, second.asked) == (1, 0)


def test_answers_found_on_disk_are_counted(tmp_path: Path) -> None:
    cached = CachedVLM(Counting(), tmp_path)
    for value in (0, 1, 0, 0):
        cached([image(value)], "a?", choices=("x",))
    assert cached.found == 2


def test_the_same_question_from_several_threads_is_asked_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def slow(images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        asked.append(prompt)
        time.sleep(0.05)
        return f"answer to {prompt}"

    cached = CachedVLM(slow, tmp_path, identity="slow")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda number: cached([image()], f"{number % 2}?", choices=()), range(6)))
    assert answers == ["answer to 0?", "answer to 1?"] * 3
    assert sorted(asked) == ["0?", "1?"]
    assert cached.found == 4


def test_a_failure_is_no_answer_to_those_who_waited_for_it(tmp_path: Path) -> None:
    calls: list[str] = []

    def fails_once(images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        calls.append(prompt)
        time.sleep(0.05)
        if len(calls) == 1:
            raise VLMAnswerError("busy")
        return "one"

    cached = CachedVLM(fails_once, tmp_path, identity="m")
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(cached, [image()], "a?", choices=()) for _ in range(2)]
    outcomes = sorted(str(future.exception() or future.result()) for future in futures)
    assert outcomes == ["busy", "one"]


def test_cost_and_limits_are_those_of_the_model(tmp_path: Path) -> None:
    vlm = Counting()
    assert CachedVLM(vlm, tmp_path).usage is None
    vlm.usage = Usage(requests=2)  # type: ignore[attr-defined]
    assert CachedVLM(vlm, tmp_path).usage == Usage(requests=2)
    assert CachedVLM(ReplayVLM(["one"]), tmp_path).most_views == 1
    assert CachedVLM(vlm, tmp_path).most_views is None


def test_other_image_question_choices_or_model_is_asked_anew(tmp_path: Path) -> None:
    vlm = Counting()
    CachedVLM(vlm, tmp_path)([image()], "a?", choices=("x",))
    CachedVLM(vlm, tmp_path)([image(1)], "a?", choices=("x",))
    CachedVLM(vlm, tmp_path)([image()], "b?", choices=("x",))
    CachedVLM(vlm, tmp_path)([image()], "a?", choices=("y",))
    CachedVLM(vlm, tmp_path, identity="other")([image()], "a?", choices=("x",))
    assert vlm.asked == 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"question": "b?", "answer": "one"}',
        '{"question": "a?", "answer": 3}',
        '{"question": "a?", "undecided": "x"}',
    ],
)
def test_broken_file_counts_as_absent_and_is_replaced(tmp_path: Path, text: str) -> None:
    vlm = Counting()
    cached = CachedVLM(vlm, tmp_path)
    cached([image()], "a?", choices=())
    (path,) = tmp_path.glob("*/*.json")
    path.write_text(text)
    assert cached([image()], "a?", choices=()) == "answer 2"
    assert CachedVLM(vlm, tmp_path).kept([image()], "a?", choices=()) == "answer 2"
    assert len(list(tmp_path.rglob("*.*"))) == 1  # nothing half-written beside it


def test_failure_is_not_kept(tmp_path: Path) -> None:
    def fails(images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        raise VLMAnswerError("busy")

    with pytest.raises(VLMAnswerError, match="busy"):
        CachedVLM(fails, tmp_path, identity="m")([image()], "a?", choices=())
    assert not list(tmp_path.rglob("*.json"))


def test_answer_that_decides_nothing_is_kept_and_is_the_same_error_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def undecided(images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        asked.append(prompt)
        raise VLMAnswerError("undecided: too close", answer="river 50.0%, lake 50.0%")

    caches = [CachedVLM(undecided, tmp_path, identity="m") for _ in range(2)]
    for cached in caches:
        with pytest.raises(VLMAnswerError, match="undecided: too close") as caught:
            cached([image()], "a?", choices=("river", "lake"))
        assert type(caught.value) is VLMAnswerError
        assert caught.value.answer == "river 50.0%, lake 50.0%"
        assert cached.kept([image()], "a?", choices=("river", "lake")) is None
    assert (asked, [cached.found for cached in caches]) == (["a?"], [0, 1])


def test_nobody_there_is_not_kept_whatever_was_said(tmp_path: Path) -> None:
    def gone(images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        raise VLMUnavailableError("the server refused", answer="come back tomorrow")

    with pytest.raises(VLMUnavailableError):
        CachedVLM(gone, tmp_path, identity="m")([image()], "a?", choices=())
    assert not list(tmp_path.rglob("*.json"))


def test_full_disk_does_not_cost_the_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cached = CachedVLM(Counting(), tmp_path / "answers")
    (tmp_path / "answers").rmdir()
    (tmp_path / "answers").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert cached([image()], "a?", choices=()) == "answer 1"
    assert "answer not kept" in caplog.text


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/answers: cannot be used"):
        CachedVLM(Counting(), os.fspath(tmp_path / "file" / "answers"))


def test_model_without_a_name_needs_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="identity: expected"):
        CachedVLM(lambda images, prompt, *, choices: "x", tmp_path)
