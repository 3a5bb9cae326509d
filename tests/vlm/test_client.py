from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError, VLMAnswerError
from mvcseg.vlm import PROMPTS, ReplayVLM, images_digest, most_views, question_text
from mvcseg.vlm.client import most_at_once


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


def test_log_answers_view_by_view() -> None:
    views = [{"image": images_digest([image(value)]), "answer": f"say {value}", "frame": value} for value in (1, 2)]
    failed = {"image": images_digest([image(3)]), "answer": None, "frame": 3}
    vlm = ReplayVLM(
        [{"question": "a?", "answer": "say 1", "image": views[0]["image"], "key_frame": 1, "answers": [*views, failed]}]
    )
    assert [vlm([image(value)], "a?") for value in (2, 1)] == ["say 2", "say 1"]
    assert vlm.most_views == 2
    with pytest.raises(VLMAnswerError, match="for these images"):
        vlm([image(3)], "a?")


def test_first_text_of_a_log_is_no_answer_to_the_view_that_failed() -> None:
    failed, said = ({"image": images_digest([image(v)]), "answer": a} for v, a in ((1, None), (2, "a lake")))
    vlm = ReplayVLM([{"question": "a?", "answer": "a lake", "image": failed["image"], "answers": [failed, said]}])
    assert vlm([image(2)], "a?") == "a lake"
    with pytest.raises(VLMAnswerError, match="no answer is recorded for these images"):
        vlm([image(1)], "a?")


def test_answers_for_one_question_a_thing_are_for_one_view_of_it() -> None:
    old_log = [{"question": "a?", "answer": "one", "image": images_digest([image()]), "key_frame": 3}]
    in_order = [{"question": "a?", "answer": "one"}, {"question": "a?", "answer": "two"}]
    for answers in (["one"], {"a?": ["one", "two"]}, old_log, in_order):
        assert most_views(ReplayVLM(answers), 3) == 1
    for answers in ({"a?": "one"}, in_order[:1], [{"question": "a?", "answer": "one", "image": "ab"}]):
        assert most_views(ReplayVLM(answers), 3) == 3
    assert most_views(lambda images, prompt, *, choices: "x", 5) == 5


def test_answers_used_up_in_order_are_asked_for_one_at_a_time() -> None:
    in_order = [{"question": "a?", "answer": "one"}, {"question": "a?", "answer": "two"}]
    for answers in (["one"], {"a?": ["one", "two"]}, in_order):
        assert most_at_once(ReplayVLM(answers), 8) == 1
    for answers in ({"a?": "one"}, in_order[:1]):
        assert most_at_once(ReplayVLM(answers), 8) == 8
    assert most_at_once(lambda images, prompt, *, choices: "x", 8) == 8


@pytest.mark.parametrize("recorded", list(PROMPTS))
@pytest.mark.parametrize("asked", list(PROMPTS))
def test_questions_by_name_are_one_question(recorded: str, asked: str) -> None:
    said, heard = (question_text("water", ["river", "lake"], prompt=PROMPTS[name]) for name in (recorded, asked))
    assert ReplayVLM({said: "a lake"})([], heard) == "a lake"
    with pytest.raises(VLMAnswerError, match="no answer is recorded"):
        ReplayVLM({said: "a lake"})([], heard.replace("lake", "sea"))


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
    "value",
    [
        {"a?": 3},
        {"a?": [3]},
        3,
        None,
        ["one", 2],
        [{"question": "a?", "answer": 3}],
        [{"answer": "one"}],
        [[]],
        [{"question": "a?", "answers": 3}],
        [{"question": "a?", "answers": [3]}],
        [{"question": "a?", "answers": [{}]}],
        [{"question": "a?", "answers": [{"image": "ab", "answer": 3}]}],
    ],
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
