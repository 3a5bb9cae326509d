"""What a page says in short, sentence by sentence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mvcseg.metrics import MeanIoU
from mvcseg.reporting.headline import plain_headline, truth_headline
from mvcseg.reporting.scores import VideoScores
from mvcseg.reporting.worst import WorstClip

NAMES = ("sky", "sea")
STAYS = "where the true class stays the same for 8 frames, so does its prediction on"


def scores_of(vc8: float, iou: float) -> VideoScores:
    """Scores with this VC8 and mIoU (two classes of 100 pixels, half of the misses of each)."""
    miou = MeanIoU(2)
    if not math.isnan(iou):
        # both classes have h hits of n pixels: IoU = h / (2 n - h)
        pixels = 1_000_000
        hits = round(2 * pixels * iou / (1 + iou))
        miou.state = torch.tensor([[hits, pixels - hits, 0], [pixels - hits, hits, 0]])
    return VideoScores(miou, {8: vc8, 16: vc8}, torch.tensor([vc8]), torch.tensor([1.0, math.nan]))


def first(**scores: tuple[float, float]) -> str:
    """The paragraph that compares predictions, given VC8 and mIoU of each."""
    said = truth_headline({name: scores_of(*each) for name, each in scores.items()}, class_names=NAMES, worst=[])
    return said[0]


def test_one_prediction_may_be_both_steadier_and_more_accurate() -> None:
    assert first(a=(0.904, 0.58), b=(0.931, 0.612)) == (
        f"b is steadier than a: {STAYS} 93.1% of the pixels (VC8), against 90.4%. "
        "It is also more accurate: mIoU 61.2%, against 58.0%."
    )


def test_or_one_steadier_and_the_other_more_accurate() -> None:
    assert first(a=(0.904, 0.612), b=(0.931, 0.611)) == (
        f"b is steadier than a: {STAYS} 93.1% of the pixels (VC8), against 90.4%. "
        "But a is slightly more accurate than b: mIoU 61.2%, against 61.1%."
    )


def test_what_looks_equal_is_called_equal() -> None:
    assert first(a=(0.93101, 0.5), b=(0.93099, 0.5)) == (
        "Both are equally steady: where the true class stays the same for 8 frames, so do their predictions on 93.1% "
        "of the pixels (VC8). Both are equally accurate: mIoU 50.0%."
    )
    assert first(a=(0.9, 0.5), b=(0.9, 0.6)).endswith("(VC8). b is more accurate than a: mIoU 60.0%, against 50.0%.")
    assert first(a=(0.9, 0.5), b=(0.8, 0.5)).endswith("against 80.0%. Both are equally accurate: mIoU 50.0%.")
    assert first(a=(0.9, 0.5), b=(0.9, 0.5), c=(0.9, 0.5)).startswith("All are equally steady: ")


def test_a_small_lead_is_called_slight() -> None:
    assert first(a=(0.931, 0.5), b=(0.928, 0.3)).startswith("a is slightly steadier than b: ")
    assert first(a=(0.931, 0.5), b=(0.925, 0.3)).startswith("a is steadier than b: ")


def test_three_are_told_in_order_and_many_by_their_range() -> None:
    three = first(a=(0.90, 0.5), b=(0.95, 0.4), c=(0.93, 0.6))
    assert three == (
        f"b is steadier than the other 2: {STAYS} 95.0% of the pixels (VC8), against 93.0% for c and 90.0% for a. "
        "But c is more accurate than the other 2: mIoU 60.0%, against 50.0% for a and 40.0% for b."
    )
    many = first(**{f"model{i}": (0.9 - i / 100, 0.5 - i / 100) for i in range(7)})
    assert "model0 is steadier than the other 6: " in many
    assert "(VC8), against 89.0% to 84.0%. It is also more accurate: mIoU 50.0%, against 49.0% to 44.0%." in many


def test_two_of_three_may_share_the_lead() -> None:
    said = first(a=(0.95, 0.5), b=(0.95, 0.5), c=(0.9, 0.6))
    assert said.startswith("a and b are equally steady, and steadier than c: where the true class")
    assert "so do their predictions on 95.0% of the pixels (VC8), against 90.0%. But c is more accurate" in said


def test_one_prediction_alone_is_not_compared() -> None:
    assert first(a=(0.931, 0.5)) == f"a: {STAYS} 93.1% of the pixels (VC8). Its mIoU is 50.0%."


def test_what_has_no_score_is_not_claimed() -> None:
    assert first(a=(math.nan, 0.5), b=(math.nan, 0.6)) == (
        "Nowhere does the true class stay the same for 8 frames, so there is no score of steadiness. "
        "b is more accurate than a: mIoU 60.0%, against 50.0%."
    )
    nothing = truth_headline({"a": scores_of(0.9, math.nan)}, class_names=NAMES, worst=[])
    assert nothing == [
        f"a: {STAYS} 90.0% of the pixels (VC8). No pixel has a true class, so nothing here says what is right."
    ]


def test_a_short_video_is_called_short() -> None:
    short = replace(scores_of(math.nan, 0.5), clips=torch.empty(0))
    assert truth_headline({"a": short}, class_names=NAMES, worst=[])[0] == (
        "The video is too short for a score of steadiness, which takes more than 8 frames. Its mIoU is 50.0%."
    )


def test_every_prediction_has_a_paragraph_and_its_worst_clip() -> None:
    worst = [WorstClip("b", (30, 37), 0.5), WorstClip("b", (0, 7), 0.6), WorstClip("a", (8, 15), 0.75)]
    said = truth_headline({"a": scores_of(0.9, 0.5), "b": scores_of(0.8, 1.0)}, class_names=NAMES, worst=worst)
    assert len(said) == 4
    assert said[1].startswith("a fails most on sky (IoU 50.0%)")
    assert said[2] == "b is right on every labelled pixel."
    assert said[3] == "Steadiness is worst in frames 31–38 of b (VC8 50.0%) and frames 9–16 of a (VC8 75.0%)."


def plain(*, compensated: bool = True, worst: list[WorstClip] | None = None, **flicker: float) -> list[str]:
    classes = {"a": ("sea", 0.25)} if compensated else {}
    return plain_headline(flicker, flickering_class=classes, worst=worst or [], is_compensated=compensated)


def test_without_ground_truth_it_says_who_flickers_less_and_not_who_is_right() -> None:
    assert plain(a=0.024, b=0.0042, worst=[WorstClip("a", (0, 7), 0.9)]) == [
        "b is steadier than a: 0.42% of its pixels flicker (change class from one frame to the next though nothing "
        "moved there), against 2.4%. Nothing here says which of them is right: there is no ground truth.",
        "a flickers most on sea: 25.0% of its pixels.",
        "Steadiness is worst in frames 1–8 of a (flicker-free pixels 90.0%).",
    ]


def test_without_flow_it_says_that_motion_counts_too() -> None:
    assert plain(compensated=False, a=0.02) == [
        "a: 2.0% of its pixels change class from one frame to the next, be it for motion or not. "
        "Nothing here says whether it is right: there is no ground truth."
    ]


def test_a_single_frame_without_ground_truth_claims_nothing() -> None:
    assert plain(compensated=False, a=math.nan) == ["Nothing here says whether it is right: there is no ground truth."]


@pytest.mark.parametrize(("low", "high", "slight"), [(0.0100, 0.0103, True), (0.010, 0.011, False)])
def test_a_small_difference_of_flicker_is_slight(low: float, high: float, slight: bool) -> None:
    said = plain(a=high, b=low)[0]
    if slight:
        assert said.startswith(("b is slightly steadier", "Both are equally steady"))
    else:
        assert said.startswith("b is steadier than a")
