from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from compared_scene import GROUPS, NAMES, Told, compared, scene
from torch import Tensor

from mvcseg.errors import ConfigError, DataError, VLMUnavailableError
from mvcseg.vlm import VLM, Price, ReplayVLM, Usage, compare_vlms, correct_labels, read_changes, write_changes
from mvcseg.vlm.compare_table import comparison_table


def test_answers_are_counted_and_judged() -> None:
    result = compared(
        {
            "right": Told("A river.", "The sea."),
            "wrong": Told("The sea.", "A lake."),
            "unsure": Told("A river or a lake.", "The sea."),
        }
    )
    found = [(m.name, m.answered, m.unclear, m.failed, m.right, m.judged) for m in result.models]
    assert found == [("right", 2, 0, 0, 2, 2), ("wrong", 2, 0, 0, 0, 2), ("unsure", 1, 1, 0, 1, 1)]
    assert result.truths == (1, 3)
    assert (result.known, result.right_before) == (2, 1)


def test_regions_of_a_class_that_is_not_offered_are_told_apart() -> None:
    video, labels, truth = scene()
    truth[labels == 3] = 0
    result = compare_vlms(
        video, labels, vlms={"a": Told("The sea.")}, groups=GROUPS, class_names=NAMES, truth=truth, flow=None
    )
    assert (result.truths, result.known, result.not_offered) == ((1, None), 1, 1)
    assert (result.models[0].judged, result.models[0].right) == (1, 0)
    assert "1 are about regions of a class that is not offered" in " ".join(comparison_table(result).split())


def test_consequences_are_those_of_a_correction() -> None:
    video, labels, truth = scene()
    result = compared({"right": Told("A river.", "The sea."), "wrong": Told("The sea.", "A lake.")})
    assert [(m.mended, m.spoilt) for m in result.models] == [(1, 0), (0, 1)]
    is_known = truth != 255
    for model, answers in zip(result.models, (["A river.", "The sea."], ["The sea.", "A lake."]), strict=True):
        correction = correct_labels(
            video, labels, vlm=Told(*answers), groups=GROUPS, class_names=NAMES, flow=None, views=1
        )
        assert model.changes == correction.changes
        before, after = (int(((maps == truth) & is_known).sum()) for maps in (labels, correction.labels))
        assert model.mended_pixels - model.spoilt_pixels == after - before


def test_answers_that_come_in_order_are_asked_for_one_at_a_time() -> None:
    at_once: list[int] = []

    class InOrder(Told):
        in_order = True

        def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
            at_once.append(1)
            time.sleep(0.02)
            answer = super().__call__(images, prompt, choices=choices)
            at_once.pop()
            assert not at_once
            return answer

    (model,) = compared({"a": InOrder("A river.", "The sea.")}, concurrency=2).models
    assert [change.to_name for change in model.changes] == ["river", "sea"]


def test_every_model_is_asked_the_same() -> None:
    one, other = Told("A river."), Told("A lake.")
    result = compared({"one": one, "other": other})
    assert one.seen == other.seen
    assert len(one.seen) == len(result.plan.questions) == 2
    images = [[change.image for change in model.changes] for model in result.models]
    assert images[0] == images[1]


def test_agreement_of_each_pair_is_told() -> None:
    result = compared({"a": Told("A river.", "A lake."), "b": Told("A river."), "c": Told("no idea")})
    assert [(p.first, p.second, p.equal, p.both) for p in result.pairs] == [
        ("a", "b", 1, 2),
        ("a", "c", 0, 0),
        ("b", "c", 0, 0),
    ]


def test_tokens_cost_and_calls_are_those_of_this_run(tmp_path: Path) -> None:
    prices = {"paid": Price(input=2.0, output=10.0), "silent": Price(1, 1)}

    def models() -> dict[str, VLM]:
        return {"paid": Told("A river.", tokens=(1000, 20), identity="m1"), "silent": Told("A lake.", identity="m2")}

    first = compared(models(), prices=prices, cache=tmp_path).models
    assert [(m.calls, m.kept) for m in first] == [(2, 0), (2, 0)]
    assert first[0].usage == Usage(requests=2, prompt_tokens=2000, completion_tokens=40)
    assert first[0].cost == pytest.approx((2000 * 2 + 40 * 10) / 1e6)
    assert first[0].seconds > 0
    assert (first[1].usage, first[1].cost) == (None, None)  # its price is known, its tokens are not

    asked_again = models()
    second = compared(asked_again, prices=prices, cache=tmp_path).models
    assert [(m.calls, m.kept, m.seconds, m.cost) for m in second] == [(0, 2, 0, 0), (0, 2, 0, 0)]
    assert [m.changes for m in second] == [m.changes for m in first]
    assert {told.calls for told in asked_again.values() if isinstance(told, Told)} == {0}


def test_usage_of_earlier_work_is_not_counted() -> None:
    told = Told("A river.", tokens=(1000, 20))
    compared({"paid": told})
    (model,) = compared({"paid": told}).models
    assert model.usage == Usage(requests=2, prompt_tokens=2000, completion_tokens=40)


def test_models_never_share_answers(tmp_path: Path) -> None:
    result = compared({"one": Told("A river."), "other": Told("A lake.")}, cache=tmp_path)
    assert [model.changes[0].to_name for model in result.models] == ["river", "lake"]
    (model,) = compared({"one": Told("The sea.", identity="another model now")}, cache=tmp_path).models
    assert (model.changes[0].to_name, model.kept) == ("sea", 0)


def test_answers_are_kept_in_no_folder_but_the_one_given(tmp_path: Path) -> None:
    told = Told("A river.")
    for name in ("../../x", "/x", "..", "con"):
        with pytest.raises(ConfigError, match="name: expected"):
            compared({"a": told, name: told}, cache=tmp_path / "kept" / "here")
    assert (told.calls, list(tmp_path.iterdir())) == (0, [])
    assert compared({"../../x": told}).models[0].answered == 2


def test_one_model_under_two_names_is_asked_twice(tmp_path: Path) -> None:
    result = compared({name: Told("A river.", identity="the same") for name in ("one", "other")}, cache=tmp_path)
    assert [(model.calls, model.kept) for model in result.models] == [(2, 0), (2, 0)]


def test_answers_recorded_in_order_are_one_for_each_region(tmp_path: Path) -> None:
    told = Told("A river.", "A river.", "A river.", "The sea.")
    result = compared({"in order": ReplayVLM(["A river.", "The sea."]), "asked": told}, views=3)
    assert [[change.to_name for change in model.changes] for model in result.models] == [["river", "sea"]] * 2
    assert [(model.kept, model.calls) for model in result.models] == [(2, 0), (0, 4)]  # the sea is confirmed at once


def test_recorded_answers_are_no_calls(tmp_path: Path) -> None:
    result = compared({"model": Told("A river.", "The sea.")})
    write_changes(tmp_path / "log.json", result.models[0].changes)
    assert read_changes(tmp_path / "log.json") == result.models[0].changes
    (again,) = compared({"recorded": ReplayVLM(tmp_path / "log.json")}, cache=tmp_path / "kept").models
    assert again.changes == result.models[0].changes
    assert (again.calls, again.kept, again.seconds, again.usage) == (0, 2, 0.0, None)
    assert not (tmp_path / "kept").exists()


def test_model_that_fails_is_a_row_and_no_end() -> None:
    result = compared(
        {
            "gone": Told(VLMUnavailableError("nobody is there")),
            "half": Told(RuntimeError("out of memory"), "The sea."),
            "good": Told("A river."),
        }
    )
    found = [(m.answered, m.failed, m.trouble) for m in result.models]
    assert found == [(0, 2, "nobody is there"), (1, 1, "RuntimeError: out of memory"), (2, 0, "")]


def test_without_truth_nothing_is_judged() -> None:
    result = compared({"a": Told("A river.")}, with_truth=False)
    assert (result.truths, result.known, result.right_before) == ((None, None), 0, 0)
    (model,) = result.models
    assert (model.judged, model.right, model.mended, model.mended_pixels) == (0, 0, 0, 0)
    assert "right" not in comparison_table(result)


def test_questions_beyond_the_bound_are_left_out() -> None:
    result = compared({"a": Told("A river.")}, max_questions=1)
    (model,) = result.models
    assert (len(model.changes), len(result.plan.skipped), model.failed) == (1, 1, 0)
    assert "1 left out" in comparison_table(result)


def test_progress_names_the_model() -> None:
    told: list[tuple[str, int, int]] = []
    compared(
        {"a": Told("A river."), "b": Told("A lake.")},
        progress=lambda name, done, total: told.append((name, done, total)),
    )
    assert told == [("a", 1, 2), ("a", 2, 2), ("b", 1, 2), ("b", 2, 2)]


def test_several_calls_at_once_change_nothing() -> None:
    one = compared({"a": ReplayVLM({_QUESTION: "A river."})})
    many = compared({"a": ReplayVLM({_QUESTION: "A river."})}, concurrency=3)
    assert one.models == many.models


_QUESTION = "Is the water in the image a river, lake, sea? Please give me the only answer."


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="vlms: expected at least one"):
        compared({})
    with pytest.raises(ConfigError, match="prices: expected names of vlms, got 'b'"):
        compared({"a": Told("A river.")}, prices={"b": Price(1, 1)})
    with pytest.raises(ConfigError, match="agreement"):
        compared({"a": Told("A river.")}, agreement=0)
    video, labels, truth = scene()
    with pytest.raises(DataError, match="truth: frame 0"):
        compare_vlms(
            video, labels, vlms={"a": Told("x")}, groups=GROUPS, class_names=NAMES, truth=truth[:, 1:], flow=None
        )
