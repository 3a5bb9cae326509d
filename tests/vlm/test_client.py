from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError, VLMAnswerError
from mvcseg.vlm import ReplayVLM, images_digest


def image(value: int = 0) -> torch.Tensor:
    return torch.full((3, 2, 4), value, dtype=torch.uint8)


def test_mapping_answers_its_question_every_time() -> None:
    vlm = ReplayVLM({"a?": "one", "b?": "two"})
    assert [vlm([image()], question) for question in ("a?", "b?", "a?", " a?\n")] == ["one", "two", "one", "one"]


def test_list_of_answers_in_a_mapping_is_used_up_in_order() -> None:
    vlm = ReplayVLM({"a?": ["one", "two"]})
    assert [vlm([], "a?"), vlm([], "a?")] == ["one", "two"]
    with pytest.raises(VLMAnswerError, match=r"'a\?' are used up"):
        vlm([], "a?")


def test_plain_list_answers_whatever_is_asked_in_order() -> None:
    vlm = ReplayVLM(["one", "two"])
    assert [vlm([], "a?", choices=("x",)), vlm([], "b?")] == ["one", "two"]
    with pytest.raises(VLMAnswerError, match="used up"):
        vlm([], "c?")


def test_entry_with_an_image_answers_for_that_image_only() -> None:
    entries = [
        {"question": "a?", "answer": "one", "image": images_digest([image(1)])},
        {"question": "a?", "answer": "two", "image": images_digest([image(2)]), "frames": [0, 3]},
    ]
    vlm = ReplayVLM(entries)
    assert [vlm([image(value)], "a?") for value in (2, 1, 2)] == ["two", "one", "two"]
    with pytest.raises(VLMAnswerError, match="for these images"):
        vlm([image(3)], "a?")


def test_entries_without_images_answer_once_always_or_several_in_order() -> None:
    vlm = ReplayVLM(
        [
            {"question": "a?", "answer": "one"},
            {"question": "b?", "answer": "two"},
            {"question": "b?", "answer": "three"},
        ]
    )
    assert [vlm([], question) for question in ("b?", "a?", "b?", "a?")] == ["two", "one", "three", "one"]


def test_entry_without_an_answer_answers_nothing() -> None:
    with pytest.raises(VLMAnswerError, match=r"no answer is recorded to 'a\?'"):
        ReplayVLM([{"question": "a?", "answer": None}])([], "a?")


def test_unrecorded_question_is_an_error_that_names_it() -> None:
    with pytest.raises(VLMAnswerError, match=r"no answer is recorded to 'b\?'"):
        ReplayVLM({"a?": "one"})([], "b?")


@pytest.mark.parametrize("value", [{"a?": "one"}, [{"question": "a?", "answer": "one"}], ["one"]])
def test_json_file_holds_what_the_argument_may_be(tmp_path: Path, value: object) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(value))
    assert ReplayVLM(path)([], "a?") == "one"
    assert ReplayVLM(str(path))([], "a?") == "one"


@pytest.mark.parametrize(
    "value", [{"a?": 3}, {"a?": [3]}, 3, None, ["one", 2], [{"question": "a?", "answer": 3}], [{"answer": "one"}], [[]]]
)
def test_other_forms_are_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ConfigError, match=r"answers\.json: .*expected"):
        ReplayVLM(path)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json"):
        ReplayVLM(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match=r"broken\.json"):
        ReplayVLM(tmp_path / "broken.json")


def test_digest_tells_pixels_sizes_order_and_number_apart() -> None:
    wide, tall = torch.zeros(3, 2, 4, dtype=torch.uint8), torch.zeros(3, 4, 2, dtype=torch.uint8)
    sets = [[], [wide], [tall], [wide, wide], [wide, image(1)], [image(1), wide]]
    assert len({images_digest(images) for images in sets}) == len(sets)
    strided = torch.arange(24, dtype=torch.uint8).view(3, 4, 2)
    assert images_digest([strided.mT]) == images_digest([strided.mT.contiguous()])


def test_wrong_images_are_refused() -> None:
    with pytest.raises(DTypeError, match="expected uint8"):
        images_digest([image().float()])
    with pytest.raises(ShapeError, match="3 h w"):
        images_digest([image()[None]])
    with pytest.raises(ShapeError, match="at least one pixel"):
        images_digest([image()[:, :0]])
