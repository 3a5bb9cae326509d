from __future__ import annotations

import numpy as np
import pytest
import torch

from mvcseg.errors import DataError, DTypeError, ShapeError
from mvcseg.vlm.tube_truth import TubeTruth, tube_truths
from mvcseg.vlm.tubes import find_tubes

GROUP_OF = {1: 0, 2: 0}


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """Labels with one flipping river on the left and a lake on the right, and the truth, half of it unknown."""
    labels = torch.zeros(3, 8, 12, dtype=torch.uint8)
    labels[:, 2:, :5] = 1
    labels[1, 2:, :5] = 2  # the river is called a lake for a frame
    labels[:, 5:, 8:] = 2
    truth = torch.zeros(3, 8, 12, dtype=torch.uint8)
    truth[:, 2:, :5] = 1
    truth[:, 5:, 8:] = 1
    truth[2] = 255
    truth[0, 2, 0] = 3
    return labels, truth


def truths_of(labels: torch.Tensor, truth: torch.Tensor) -> tuple[TubeTruth, ...]:
    video = torch.zeros(3, 3, 8, 12, dtype=torch.uint8)
    tubes = find_tubes(video, labels, group_of=GROUP_OF, min_area=0, flow=None).large
    return tube_truths(labels, truth, tubes, classes=GROUP_OF, num_classes=4)


def test_labelled_pixels_are_counted_by_class_before_and_true_class() -> None:
    river, lake = truths_of(*drawn())
    assert river.counts == {(1, 1): 29, (1, 3): 1, (2, 1): 30}
    assert lake.counts == {(2, 1): 24}


def test_what_following_would_do_is_what_painting_does() -> None:
    labels, truth = drawn()
    video = torch.zeros(3, 3, 8, 12, dtype=torch.uint8)
    tubes = find_tubes(video, labels, group_of=GROUP_OF, min_area=0, flow=None).large
    masks = [labels.clone().fill_(0).bool() for _ in tubes]
    masks[0][:, 2:, :5] = True
    masks[1][:, 5:, 8:] = True
    is_known = truth != 255
    for mask, found in zip(masks, truths_of(labels, truth), strict=True):
        for new_class in (1, 2, 3):
            after = labels.masked_fill(mask, new_class)
            was, is_now = (labels == truth) & is_known, (after == truth) & is_known
            assert found.mended(new_class) == int((is_now & ~was).sum())
            assert found.spoilt(new_class) == int((was & ~is_now).sum())


def test_true_class_is_that_of_more_than_half_and_offered() -> None:
    assert TubeTruth({(1, 2): 6, (1, 1): 5}).class_of([1, 2]) == 2
    assert TubeTruth({(1, 2): 5, (1, 1): 5}).class_of([1, 2]) is None
    assert TubeTruth({(1, 2): 4, (1, 1): 3, (1, 3): 3}).class_of([1, 2, 3]) is None
    assert TubeTruth({(1, 7): 9}).class_of([1, 2]) is None
    assert TubeTruth({(1, 7): 9}).majority == 7
    assert TubeTruth({}).class_of([1, 2]) is None
    assert TubeTruth({(1, 2): 3, (2, 2): 3, (2, 1): 5}).class_of([1, 2]) == 2


def test_truth_that_does_not_fit_is_refused() -> None:
    labels, truth = drawn()
    with pytest.raises(ShapeError, match=r"labels.*3"):
        truths_of(labels, truth[:2])
    with pytest.raises(DataError, match=r"truth: frame 0: expected .8, 12. as the labels, got .8, 11."):
        truths_of(labels, truth[:, :, :11])
    with pytest.raises(DTypeError):
        truths_of(labels, truth.float())
    wrong = truth.clone()
    wrong[1, 0, 0] = 4
    with pytest.raises(DataError, match=r"truth: frame 1: expected classes 0..3 or 255, got 4"):
        truths_of(labels, wrong)


def test_video_is_read_frame_by_frame() -> None:
    labels, truth = drawn()
    asked: list[tuple[int, int]] = []

    class Lazy:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: slice, /) -> torch.Tensor:
            asked.append((index.start, index.stop))
            return truth[index]

    tubes = find_tubes(torch.zeros(3, 3, 8, 12, dtype=torch.uint8), labels, group_of=GROUP_OF, min_area=0, flow=None)
    lazily = tube_truths(labels, Lazy(), tubes.large, classes=GROUP_OF, num_classes=4)
    assert lazily == truths_of(labels, truth)
    assert np.ptp(asked, axis=1).max() == 1
