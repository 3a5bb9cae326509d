"""Whether a log of corrections fits the predictions of a page, whose it is and what it did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mvcseg.errors import DataError
from mvcseg.reporting.corrections import check_changes, check_class_names, find_correction
from mvcseg.vlm.changes import Change

NAMES = ["sky", "sea", "lake"]
T, H, W = 4, 6, 10


def change(**other: Any) -> Change:
    """The left half of the frames 1 and 2: 48 pixels of sea and 12 of lake became lake."""
    record = Change(
        status="changed", reason="", frames=(1, 2), region=(0, 0, 5, 6), pixels=60, key_frame=1, group="water",
        from_class=1, from_name="sea, lake", shares=((1, 48), (2, 12)), to_class=2, to_name="lake", question="Q?",
        answer="A lake.", image="",
    )  # fmt: skip
    return replace(record, **other)


def before() -> torch.Tensor:
    labels = torch.zeros(T, H, W, dtype=torch.uint8)
    labels[1:3, :, :5] = 1
    labels[1:3, 0, :5] = 2
    labels[1:3, 1, :1] = 2
    return labels


def after() -> torch.Tensor:
    labels = before()
    labels[1:3, :, :5] = 2
    return labels


def test_the_prediction_asked_about_and_the_corrected_one_are_found() -> None:
    others = {"other": torch.zeros(T, H, W, dtype=torch.uint8), "new": after(), "old": before()}
    found = find_correction([change()], others, None, num_classes=3)
    assert (found.of, found.made, found.fixed, found.regions) == (("old",), "new", None, {})
    assert found.sentence() == "The changes lead from old to new."


def test_what_became_right_and_wrong_is_counted_where_there_is_a_true_class() -> None:
    truth = torch.full((T, H, W), 255, dtype=torch.uint8)
    truth[1, 2:4, :5] = 2
    truth[2, 5, 1:4] = 1
    truth[2, 4, :5] = 0
    found = find_correction([change()], {"old": before(), "new": after()}, truth, num_classes=3)
    assert (found.fixed, found.broken) == (10, 3)
    assert found.regions == {0: (10, 3)}
    assert found.effect(0) == {"fixed": 10, "broken": 3}
    assert found.effect(1) == {}
    assert "from old to new: 10 pixels went from wrong to right, 3 from right to wrong." in found.sentence()


def test_a_region_that_cannot_be_told_from_another_has_no_counts() -> None:
    old, new = before(), after()
    old[1:3, 5, 9], new[1:3, 5, 9] = 1, 2
    tiny = change(region=(0, 0, 10, 6), pixels=2, shares=((1, 2),))
    truth = torch.full((T, H, W), 2, dtype=torch.uint8)
    found = find_correction([change(), tiny], {"old": old, "new": new}, truth, num_classes=3)
    assert (found.fixed, found.regions) == (50, {0: (48, 0)})


def test_one_pixel_more_or_another_class_is_not_the_correction() -> None:
    for at, index in (((0, 5, 5), 1), ((1, 5, 0), 0)):
        new = after()
        new[at] = index
        found = find_correction([change()], {"old": before(), "new": new}, None, num_classes=3)
        assert found.made == ""


def test_without_the_corrected_one_the_prediction_is_found_by_its_classes() -> None:
    found = find_correction(
        [change()], {"old": before(), "new": after()[:, :, ::2].repeat(1, 1, 2)}, None, num_classes=3
    )
    assert found.of == ("old",)
    assert found.sentence().startswith("The changes are of old. The pictures show the predictions as given;")
    two = find_correction([change()], {"old": before(), "same": before()}, None, num_classes=3)
    assert two.sentence().startswith("The changes are of one of the predictions.")
    none = find_correction([change()], {"new": after()}, None, num_classes=3)
    assert none.of == ()
    assert none.sentence().startswith("The changes fit none of the predictions")


def test_a_log_that_changed_nothing_leads_nowhere() -> None:
    kept = change(status="confirmed")
    assert find_correction([kept], {"old": before(), "same": before()}, None, num_classes=3).made == ""


@pytest.mark.parametrize("region", [(0, 0, 11, 6), (0, 0, 5, 7), (-1, 0, 5, 6), (4, 0, 3, 6)])
def test_a_region_beyond_the_frames_is_refused(region: tuple[int, int, int, int]) -> None:
    with pytest.raises(DataError, match=r"log\.json: expected regions within frames of 6 x 10 pixels, got"):
        check_changes([change(region=region)], log="log.json", size=(H, W), num_classes=3)


@pytest.mark.parametrize("other", [{"to_class": 3}, {"from_class": -1}, {"shares": ((1, 1), (9, 3))}])
def test_a_class_that_the_predictions_do_not_have_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"log\.json: expected classes 0 to 2, those of the predictions, got"):
        check_changes([change(**other)], log="log.json", size=(H, W), num_classes=3)


def test_classes_of_other_names_are_refused() -> None:
    check_class_names([change(), change(status="unclear", to_class=None, to_name=None)], log="l", class_names=NAMES)
    with pytest.raises(DataError, match="expected classes called sea, pond as in the predictions, got sea, lake"):
        check_class_names([change()], log="log.json", class_names=["sky", "sea", "pond"])
    with pytest.raises(DataError, match="expected classes called lake as in the predictions, got pond"):
        check_class_names([change(to_name="pond")], log="log.json", class_names=NAMES)
