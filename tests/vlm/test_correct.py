from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError, VLMAnswerError
from mvcseg.vlm import (
    CachedVLM,
    Change,
    Group,
    ReplayVLM,
    ViewAnswer,
    correct_labels,
    images_digest,
    write_changes,
)
from mvcseg.vlm.questions import view_image
from mvcseg.vlm.views import marked_crop, outlined_crop

NAMES = ["sky", "river", "lake", "sea", "grass", "sand"]
WATER, GROUND = Group("water", (1, 2, 3)), Group("ground", (4, 5))
QUESTION = "Is the water in the image a river, lake, sea? Please give me the only answer."


def scene(*, frames: int = 4) -> tuple[Tensor, Tensor]:
    """Random pixels, a little brighter each frame; a river on the left, sand on the right, sky between."""
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 200, (1, 3, 12, 20), generator=generator) + torch.arange(frames)[:, None, None, None]
    video = video.to(torch.uint8)
    labels = torch.zeros(frames, 12, 20, dtype=torch.uint8)
    labels[:, 2:, :8] = 1
    labels[:, 6:, 12:] = 5
    return video, labels


def correct(video: Any, labels: Any, vlm: Any, **options: Any) -> Any:
    return correct_labels(video, labels, **{"vlm": vlm, "groups": [WATER, GROUND], "class_names": NAMES, **options})


class ByColour:
    """Names a class by the image's mean colour: depends on nothing but the image, and takes its time."""

    identity = "by colour"

    def __init__(self, *, pause: float = 0.0) -> None:
        self.images: list[Tensor] = []
        self.most_at_once = self._now = 0
        self._pause, self._lock = pause, threading.Lock()

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        with self._lock:
            self.images += images
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        mean = int(images[0].float().mean())
        time.sleep(self._pause * (mean % 5))
        with self._lock:
            self._now -= 1
        return f"It is a {choices[mean % len(choices)]}."


class Lazy:
    """A stored video read slice by slice."""

    def __init__(self, stored: Tensor) -> None:
        self.stored, self.longest = stored, 0

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: slice) -> Tensor:
        part = self.stored[index]
        self.longest = max(self.longest, len(part))
        return part


def test_hand_case_region_takes_the_class_named() -> None:
    video, labels = scene()
    kept = labels.clone()
    result = correct(video, labels, ReplayVLM({QUESTION: "The water in the image is a lake."}), groups=[WATER])
    expected = labels.clone()
    expected[labels == 1] = 2
    assert torch.equal(result.labels, expected)
    assert torch.equal(labels, kept)
    shown = [answer.frame for answer in result.changes[0].answers]
    assert len(set(shown)) == 3
    assert result.changes == (
        Change(
            status="changed",
            reason="",
            frames=(0, 3),
            region=(0, 2, 8, 12),
            pixels=320,
            key_frame=0,
            group="water",
            from_class=1,
            from_name="river",
            shares=((1, 320),),
            to_class=2,
            to_name="lake",
            question=QUESTION,
            answer="The water in the image is a lake.",
            image=images_digest([outlined_crop(video[0], labels[0] == 1)]),
            answers=tuple(
                ViewAnswer(
                    frame=frame,
                    image=images_digest([outlined_crop(video[frame], labels[frame] == 1)]),
                    answer="The water in the image is a lake.",
                    to_class=2,
                    to_name="lake",
                )
                for frame in (0, shown[1], shown[2])
            ),
        ),
    )


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ("A river.", "confirmed", ""),
        ("river or lake", "unclear", "the answer names river, lake, expected one"),
        ("I cannot tell", "unclear", "the answer names none of river, lake, sea"),
        ("Not a river", "unclear", "the answer negates river"),
        ("", "unclear", "the answer names none of river, lake, sea"),
    ],
)
def test_answer_that_changes_nothing_is_recorded_with_the_reason(answer: str, status: str, reason: str) -> None:
    video, labels = scene()
    result = correct(video, labels, ReplayVLM([answer]), groups=[WATER])
    assert torch.equal(result.labels, labels)
    (change,) = result.changes
    assert (change.status, change.reason, change.answer) == (status, reason, answer)
    assert change.to_class == (1 if status == "confirmed" else None)
    assert result.count(change.status) == 1


@pytest.mark.parametrize(
    "error",
    [
        VLMAnswerError("busy"),
        ConnectionError("gone"),
        RuntimeError("out of memory"),
        KeyError("x"),
        type("OwnError", (Exception,), {})("odd"),
    ],
)
def test_no_failure_of_the_model_ends_the_run(error: Exception) -> None:
    video, labels = scene()
    calls: list[str] = []

    def fails_once(images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        calls.append(prompt)
        if len(calls) == 1:
            raise error
        return "grass"

    result = correct(video, labels, fails_once)
    assert [change.status for change in result.changes] == ["failed", "changed"]
    assert str(error) in result.changes[0].reason
    assert result.changes[0].answer is None
    expected = labels.clone()
    expected[labels == 5] = 4
    assert torch.equal(result.labels, expected)


def test_no_answer_at_all_is_said_and_one_after_failures_is_taken() -> None:
    def refuses(images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        calls.append(prompt)
        raise RuntimeError("HTTP 400: no pictures")

    calls: list[str] = []
    video, labels = many()
    result = correct(video, labels, refuses)
    assert result.unavailable == "RuntimeError: HTTP 400: no pictures"
    assert torch.equal(result.labels, labels)
    assert (len(calls), result.count("failed")) == (10, 10)
    assert result.count("skipped") == len(result.changes) - 10 > 0

    def answers(images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        calls.append(prompt)
        if len(calls) <= 3:
            raise RuntimeError("HTTP 400: no pictures")
        return choices[0]

    calls = []
    result = correct(video, labels, answers)
    assert result.unavailable == ""
    assert (result.count("failed"), result.count("skipped")) == (3, 0)
    nothing_fits = correct(video, labels, ReplayVLM({"else?": "lake"}))
    assert (nothing_fits.count("failed"), nothing_fits.count("skipped")) == (len(nothing_fits.changes), 0)
    assert nothing_fits.unavailable.startswith("no answer is recorded")


def test_answer_that_is_no_text_and_endless_answers_change_nothing() -> None:
    video, labels = scene()
    result = correct(video, labels, lambda images, prompt, *, choices: None)
    assert [change.reason for change in result.changes] == ["expected the answer as a text, got NoneType"] * 2
    result = correct(video, labels, lambda images, prompt, *, choices: "lake sand " * 100_000)
    assert [change.status for change in result.changes] == ["unclear"] * 2
    assert all(len(change.answer) < 5000 for change in result.changes)
    assert torch.equal(result.labels, labels)


def test_long_reasons_are_cut_to_one_line() -> None:
    def fails(images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        raise VLMAnswerError("two\nlines " + "x" * 10_000)

    reason = correct(*scene(), fails).changes[0].reason
    assert reason.startswith("two lines xxx")
    assert len(reason) <= 301


def test_interruption_is_not_a_failure() -> None:
    def interrupted(images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        raise KeyboardInterrupt

    for concurrency in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            correct(*scene(), interrupted, concurrency=concurrency)


def test_area_that_flickers_takes_one_class_throughout() -> None:
    video, labels = scene()
    labels[1][labels[1] == 1] = 2
    result = correct(video, labels, ReplayVLM(["a river"]), groups=[WATER])
    (change,) = result.changes
    assert (change.status, change.shares, change.from_name) == ("changed", ((1, 240), (2, 80)), "river, lake")
    assert (result.labels[:, 2:, :8] == 1).all()
    unclear = correct(video, labels, ReplayVLM(["hard to say"]), groups=[WATER])
    assert torch.equal(unclear.labels, labels)


def test_river_beside_the_sea_stays_two_regions_with_a_class_each() -> None:
    video, labels = scene()
    labels[:, 2:, 4:8] = 3
    labels[:, 2:, :3] = 2
    labels[:, 2:, 3] = 0
    result = correct(video, labels, ReplayVLM(["sea", "river"]), groups=[WATER])
    assert [change.status for change in result.changes] == ["confirmed", "changed"]
    assert (result.labels[:, 2:, :3] == 1).all()
    assert (result.labels[:, 2:, 4:8] == 3).all()


def test_class_named_like_the_noun_is_asked_about_and_never_offered() -> None:
    video, labels = scene()
    names = ["sky", "water", "lake", "sea", "grass", "sand"]
    seen: list[Sequence[str]] = []

    def answers(images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        seen.append(choices)
        return "The water in the image is a lake."

    result = correct(video, labels, answers, groups=[WATER], class_names=names)
    assert seen == [("lake", "sea")] * 3
    assert (result.changes[0].from_name, result.changes[0].to_name) == ("water", "lake")


def test_class_of_two_groups_is_asked_about_once() -> None:
    video, labels = scene()
    result = correct(video, labels, ReplayVLM(["sea"]), groups=[WATER, Group("liquid", (1, 5))], max_questions=1)
    assert [(change.group, change.from_name) for change in result.changes] == [("water", "river"), ("liquid", "sand")]


def test_outlined_surroundings_or_the_whole_frame_are_shown() -> None:
    video, labels = scene()
    labels[2, 1, :8] = 1  # largest in frame 2
    vlm = ByColour()
    for view in ("outline", "mark", "frame"):
        correct(video, labels, vlm, groups=[WATER], view=view, views=1)
    assert torch.equal(vlm.images[0], outlined_crop(video[2], labels[2] == 1))
    assert torch.equal(vlm.images[1], marked_crop(video[2], labels[2] == 1))
    assert torch.equal(vlm.images[2], video[2])


def test_own_prompt_is_sent_and_understood() -> None:
    result = correct(*scene(), ReplayVLM({"river, lake, sea?": "sea"}), groups=[WATER], prompt="{classes}?")
    assert (result.changes[0].question, result.changes[0].to_name) == ("river, lake, sea?", "sea")


def test_largest_regions_are_asked_about_within_max_questions() -> None:
    video, labels = scene()
    vlm = ByColour()
    result = correct(video, labels, vlm, max_questions=1)
    assert len(vlm.images) == 1
    assert [change.group for change in result.changes] == ["water", "ground"]
    assert (result.changes[1].status, result.changes[1].reason) == ("skipped", "not asked: max_questions is 1")
    nothing = correct(video, labels, vlm, max_questions=0)
    assert nothing.count("skipped") == 2
    assert torch.equal(nothing.labels, labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_labels_keep_their_dtype_and_other_values(dtype: torch.dtype) -> None:
    video, labels = scene()
    labels[:, 0, :] = 255
    result = correct(video, labels.to(dtype), ReplayVLM({QUESTION: "lake"}), groups=[WATER])
    assert result.labels.dtype == dtype
    assert (result.labels[:, 0] == 255).all()
    assert ((result.labels != labels) == (labels == 1)).all()


def test_lazy_video_and_labels_are_read_a_frame_at_a_time() -> None:
    video, labels = scene(frames=6)
    lazy_video, lazy_labels = Lazy(video), Lazy(labels)
    lazily, at_once = correct(lazy_video, lazy_labels, ByColour()), correct(video, labels, ByColour())
    assert torch.equal(lazily.labels, at_once.labels)
    assert lazily.changes == at_once.changes
    assert (lazy_video.longest, lazy_labels.longest) == (1, 1)


def test_nothing_to_ask_gives_a_copy() -> None:
    video, labels = scene()
    for groups in ([], [Group("boat", (2, 3))]):
        result = correct(video, labels, ReplayVLM({}), groups=groups)
        assert result.changes == ()
        assert torch.equal(result.labels, labels)
        assert result.labels.data_ptr() != labels.data_ptr()


def many() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    video = torch.randint(0, 256, (3, 3, 40, 60), dtype=torch.uint8, generator=generator)
    blocks = torch.randint(0, 6, (3, 5, 6), dtype=torch.uint8, generator=generator)
    return video, blocks.repeat_interleave(8, 1).repeat_interleave(10, 2)


def test_result_does_not_depend_on_concurrency_and_keeps_to_it() -> None:
    one, four = ByColour(), ByColour(pause=0.004)
    alone, together = correct(*many(), one), correct(*many(), four, concurrency=4)
    assert torch.equal(alone.labels, together.labels)
    assert alone.changes == together.changes
    assert len(alone.changes) > 10
    assert one.most_at_once == 1
    assert 1 < four.most_at_once <= 4


class InOrder:
    """Recorded answers that take their time, the earlier the more."""

    identity = "in order"
    in_order = True

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        self.count += 1
        number = self.count
        time.sleep(0.002 * (4 - number % 4))
        return choices[number % len(choices)]


def test_answers_that_come_in_order_are_given_to_the_same_tubes_at_any_concurrency(tmp_path: Path) -> None:
    alone = correct(*many(), InOrder())
    for vlm in (InOrder(), CachedVLM(InOrder(), tmp_path)):
        together = correct(*many(), vlm, concurrency=4)
        assert together.changes == alone.changes
        assert torch.equal(together.labels, alone.labels)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_images_are_in_memory_than_calls_under_way(concurrency: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = [0]
    most = [0]
    lock = threading.Lock()

    def counted(*args: Any, **options: Any) -> Tensor:
        image = view_image(*args, **options)
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        weakref.finalize(image, lambda: alive.__setitem__(0, alive[0] - 1))
        return image

    def slow(images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        time.sleep(0.002)
        return choices[0]

    monkeypatch.setattr("mvcseg.vlm.correct.view_image", counted)
    correct(*many(), slow, concurrency=concurrency)
    assert concurrency - 1 <= most[0] <= concurrency
    assert alive[0] == 0


def test_progress_counts_to_the_number_of_questions() -> None:
    calls: list[tuple[int, int]] = []
    correct(*scene(), ByColour(), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]


def test_log_replays_to_the_same_result(tmp_path: Path) -> None:
    first = correct(*many(), ByColour())
    write_changes(tmp_path / "changes.json", first.changes)
    again = correct(*many(), ReplayVLM(tmp_path / "changes.json"))
    assert torch.equal(again.labels, first.labels)
    assert again.changes == first.changes


@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("agreement", [0.6, 1.0])
def test_log_replays_whatever_the_number_of_views_was(views: int, agreement: float, tmp_path: Path) -> None:
    first = correct(*many(), ByColour(), views=views, agreement=agreement)
    write_changes(tmp_path / "changes.json", first.changes)
    again = correct(*many(), ReplayVLM(tmp_path / "changes.json"), agreement=agreement)
    assert again.changes == first.changes


def test_interrupted_run_goes_on_without_asking_twice(tmp_path: Path) -> None:
    class Interrupted(ByColour):
        def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
            if len(self.images) == 5:
                raise KeyboardInterrupt
            return super().__call__(images, prompt, choices=choices)

    first, second = Interrupted(), ByColour()
    with pytest.raises(KeyboardInterrupt):
        correct(*many(), CachedVLM(first, tmp_path))
    resumed = correct(*many(), CachedVLM(second, tmp_path))
    undisturbed = correct(*many(), vlm := ByColour())
    assert torch.equal(resumed.labels, undisturbed.labels)
    assert resumed.changes == undisturbed.changes
    assert len(first.images) == 5
    assert len(first.images) + len(second.images) == len(vlm.images) > 10


def test_second_correction_by_the_same_answers_changes_nothing() -> None:
    video, labels = scene()
    vlm = ReplayVLM({QUESTION: "lake"})
    once = correct(video, labels, vlm, groups=[WATER])
    twice = correct(video, once.labels, vlm, groups=[WATER])
    assert torch.equal(once.labels, twice.labels)
    assert [change.status for change in twice.changes] == ["confirmed"]


def test_broken_frame_of_the_video_is_not_the_models_failure() -> None:
    class Broken(Lazy):
        def __getitem__(self, index: slice) -> Tensor:
            raise DataError("frame 0: truncated")

    video, labels = scene()
    with pytest.raises(DataError, match="truncated"):
        correct(Broken(video), labels, ByColour())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_area": -0.1}, "min_area"),
        ({"min_area": float("nan")}, "min_area"),
        ({"view": "crop"}, "view: expected one of outline, mark, frame"),
        ({"concurrency": 0}, "concurrency"),
        ({"max_questions": -1}, "max_questions"),
        ({"views": 0}, "views"),
        ({"agreement": 0.0}, "agreement: expected a share of the views"),
        ({"agreement": 1.1}, "agreement"),
        ({"agreement": float("nan")}, "agreement"),
        ({"prompt": "What?"}, "prompt"),
        ({"class_names": ["sky", "river"]}, "ids from 0 to 1"),
    ],
)
def test_option_outside_its_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        correct(*scene(), ByColour(), **options)


def test_wrong_videos_and_labels_are_refused() -> None:
    video, labels = scene()
    with pytest.raises(ShapeError, match="expected 4 label maps, one per frame of video, got 3"):
        correct(video, labels[:3], ByColour())
    with pytest.raises(ShapeError, match="video: expected"):
        correct(video[..., :-1], labels, ByColour())
    with pytest.raises(DTypeError, match="expected uint8 frames"):
        correct(video.float() / 255, labels, ByColour())
    with pytest.raises(DTypeError, match="integer tensor"):
        correct(video, labels.float(), ByColour())


def test_recorded_change_is_immutable() -> None:
    change = correct(*scene(), ByColour()).changes[0]
    with pytest.raises(AttributeError):
        change.status = "failed"
    assert replace(change, status="failed").status == "failed"


def test_a_wrong_size_is_refused_even_where_nothing_is_asked() -> None:
    video, labels = scene()
    with pytest.raises(ShapeError, match="video"):
        correct(video, torch.zeros_like(labels)[:, 1:], ReplayVLM([]))
