from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.metrics import MeanIoU, VideoConsistency
from mvcseg.ops import confusion


def iou_by_sets(pred: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """IoU of each class from its definition: labelled pixels of the class against predicted ones."""
    scores = np.full(num_classes, np.nan)
    for k in range(num_classes):
        true, given = labels == k, (pred == k) & (labels != 255)
        if true.any():
            scores[k] = (true & given).sum() / (true | given).sum()
    return scores


def random_maps(generator: torch.Generator, *, num_classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    pred = torch.randint(0, num_classes, (6, 8, 12), generator=generator)
    labels = torch.randint(0, num_classes - 1, (6, 8, 12), generator=generator)  # the last class is absent
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return pred, labels


def test_hand_case(device: torch.device) -> None:
    miou = MeanIoU(num_classes=3)
    labels = torch.tensor([[0, 0, 0, 1], [1, 1, 255, 255]], device=device)
    pred = torch.tensor([[0, 0, 1, 1], [1, 0, 0, 2]], device=device)
    miou.update(pred, labels)
    assert miou.per_class()[:2].tolist() == [2 / 4, 2 / 4]
    assert miou.compute() == 0.5


def test_equals_the_definition_by_sets(generator: torch.Generator) -> None:
    pred, labels = random_maps(generator)
    miou = MeanIoU(5)
    miou.update(pred, labels)
    expected = iou_by_sets(pred.numpy(), labels.numpy(), 5)
    assert np.allclose(miou.per_class().numpy(), expected, rtol=0, atol=1e-12, equal_nan=True)
    assert abs(miou.compute() - np.nanmean(expected)) < 1e-12


def test_vspw_one_confusion_matrix_over_everything() -> None:
    """Not the mean of the videos' scores: class 0 has 1 hit of 1, then 1 of 3."""
    miou = MeanIoU(num_classes=2)
    miou.update(torch.tensor([0]), torch.tensor([0]))
    miou.update(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 0]))
    assert miou.compute() == 2 / 4


def test_vspw_mean_over_classes_present_in_ground_truth() -> None:
    miou = MeanIoU(num_classes=3)
    miou.update(torch.tensor([0, 2, 1]), torch.tensor([0, 0, 1]))
    assert miou.per_class()[:2].tolist() == [0.5, 1.0]
    assert miou.per_class()[2].isnan()  # predicted, never labelled: no score of its own, a miss of class 0
    assert miou.compute() == 0.75


def test_vspw_void_pixels_are_not_counted() -> None:
    miou = MeanIoU(num_classes=2)
    miou.update(torch.tensor([0, 1, 1]), torch.tensor([0, 255, 255]))
    assert miou.compute() == 1.0


@pytest.mark.parametrize("value", [255, 124, 200, -1, 1000])
def test_vspw_prediction_outside_the_classes_is_a_miss_of_its_true_class_only(value: int) -> None:
    """The script adds 124 * label + 255 and so charges a pixel of class label + 2."""
    miou = MeanIoU(num_classes=124)
    miou.update(torch.tensor([7, value, 9, 8]), torch.tensor([7, 7, 9, 8]))
    scores = miou.per_class()
    assert scores[[7, 8, 9]].tolist() == [0.5, 1.0, 1.0]
    assert miou.predicted_outside == 1


def test_prediction_outside_the_classes_on_an_ignored_pixel_costs_nothing() -> None:
    miou = MeanIoU(num_classes=2)
    miou.update(torch.tensor([0, 255]), torch.tensor([0, 255]))
    assert miou.compute() == 1.0
    assert miou.predicted_outside == 0


def test_perfect_prediction_scores_one(generator: torch.Generator) -> None:
    _, labels = random_maps(generator)
    miou = MeanIoU(5)
    miou.update(labels.to(torch.uint8), labels)
    assert miou.compute() == 1.0


def test_order_and_batching_do_not_matter(generator: torch.Generator) -> None:
    pred, labels = random_maps(generator)
    whole, parts = MeanIoU(5), MeanIoU(5)
    whole.update(pred, labels)
    for t in reversed(range(len(pred))):
        parts.update(pred[t], labels[t])
    assert torch.equal(whole.state, parts.state)
    assert whole.compute() == parts.compute()


def test_merge_equals_one_pass_and_survives_pickling(generator: torch.Generator) -> None:
    pred, labels = random_maps(generator)
    whole, first, second = MeanIoU(5), MeanIoU(5), MeanIoU(5)
    whole.update(pred, labels)
    first.update(pred[:2], labels[:2])
    second.update(pred[2:], labels[2:])
    first.merge(pickle.loads(pickle.dumps(second)))
    assert torch.equal(first.state, whole.state)


def test_merge_leaves_the_other_untouched() -> None:
    first, second = MeanIoU(2), MeanIoU(2)
    second.update(torch.tensor([1]), torch.tensor([1]))
    before = copy.deepcopy(second.state)
    first.merge(second)
    first.update(torch.tensor([0]), torch.tensor([0]))
    assert torch.equal(second.state, before)


def test_nothing_scored_is_nan() -> None:
    miou = MeanIoU(num_classes=3)
    assert np.isnan(miou.compute())
    miou.update(torch.tensor([0, 1]), torch.tensor([255, 255]))
    assert np.isnan(miou.compute())
    assert miou.per_class().isnan().all()


def test_reset_forgets() -> None:
    miou = MeanIoU(num_classes=2)
    miou.update(torch.tensor([0]), torch.tensor([1]))
    miou.reset()
    assert np.isnan(miou.compute())


def test_different_metrics_do_not_merge() -> None:
    with pytest.raises(ConfigError, match=r"expected MeanIoU\(num_classes=2\) to merge with, got MeanIoU\(num_cl"):
        MeanIoU(2).merge(MeanIoU(3))
    with pytest.raises(ConfigError, match="VideoConsistency"):
        MeanIoU(2).merge(VideoConsistency(8))  # type: ignore[arg-type]


def test_wrong_labels_of_a_device_are_told_when_the_score_is_asked_for() -> None:
    labels = torch.tensor([0, 7, 1])
    counts = confusion._count_on_device(torch.tensor([0, 1, 1]), labels, num_classes=2)
    miou, other = MeanIoU(2), MeanIoU(2)
    miou.update(labels[::2], labels[::2])
    other._keep_for_later(counts.sum(dim=1))
    assert miou.compute() == 1.0
    miou.merge(pickle.loads(pickle.dumps(other)))
    for _ in range(2):
        with pytest.raises(DataError, match="got 7"):
            miou.compute()
    with pytest.raises(DataError, match="got 7"):
        other.per_class()
    with pytest.raises(DataError, match="got 7"):
        _ = other.predicted_outside
    miou.reset()
    miou.update(labels[::2], labels[::2])
    assert miou.compute() == 1.0


@pytest.mark.cuda
def test_on_cuda_updates_wait_for_nothing_and_wrong_labels_are_told_later(generator: torch.Generator) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    pred, labels = random_maps(generator)
    there, here = MeanIoU(5), MeanIoU(5)
    here.update(pred, labels)
    maps = pred.cuda(), labels.cuda()
    there.update(*maps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        there.update(*maps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert there.state.device.type == "cuda"
    assert torch.equal(there.state.cpu(), 2 * here.state)
    there.update(maps[0], torch.full_like(maps[1], 7))
    with pytest.raises(DataError, match="got 7"):
        there.compute()


def test_updates_off_the_cpu_never_wait_for_the_device() -> None:
    """Tensors without values refuse whatever has to look at one, or to bring it to the host."""
    miou, maps = MeanIoU(3), torch.empty(2, 4, 5, dtype=torch.uint8, device="meta")
    for _ in range(2):
        miou.update(maps, maps)
    assert (miou.state.device.type, miou.state.shape) == ("meta", (3, 4))
    assert miou._unchecked is not None
    assert miou._unchecked.device.type == "meta"
    with pytest.raises((RuntimeError, NotImplementedError)):
        miou.compute()


def test_bad_arguments_are_typed_errors_and_change_nothing() -> None:
    miou, ids = MeanIoU(num_classes=3), torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(ShapeError, match="labels"):
        miou.update(ids, ids[:, :3])
    with pytest.raises(DTypeError, match="pred"):
        miou.update(ids.float(), ids)
    with pytest.raises(DataError, match="got 7"):
        miou.update(ids, ids + 7)
    with pytest.raises(ConfigError, match="num_classes"):
        MeanIoU(0)
    assert miou.state.sum() == 0
