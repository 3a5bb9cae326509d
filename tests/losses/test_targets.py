"""Targets of label maps, of instances and of overlapping masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from mvcseg.errors import DataError, DTypeError, ShapeError
from mvcseg.losses.targets import Targets, targets_of_instances, targets_of_labels, targets_of_masks

T, H, W = 3, 5, 7


def labelled() -> Tensor:
    labels = torch.randint(0, 4, (T, H, W), generator=torch.Generator().manual_seed(0)) * 10
    labels[labels == 20] = 255
    labels[0][labels[0] == 30] = 0
    return labels


def test_every_class_present_is_a_target_where_it_is_present() -> None:
    targets = targets_of_labels(labelled())
    assert targets.class_ids.tolist() == [0, 10, 30]
    assert targets.is_present.tolist() == [[True] * 3, [True] * 3, [False, True, True]]
    assert len(targets) == 3
    assert targets.num_frames == T


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_integer_dtype_are_read(dtype: torch.dtype) -> None:
    labels = labelled()
    assert targets_of_labels(labels.to(dtype)).class_ids.tolist() == [0, 10, 30]


def test_another_label_can_be_the_one_to_ignore() -> None:
    assert targets_of_labels(torch.tensor([[[0, 7, -1]]]), ignore=-1).class_ids.tolist() == [0, 7]
    assert targets_of_labels(torch.tensor([[[0, 7, 255]]]), ignore=0).class_ids.tolist() == [7, 255]


def test_a_void_clip_has_no_targets() -> None:
    targets = targets_of_labels(torch.full((T, H, W), 255, dtype=torch.uint8))
    assert len(targets) == 0
    assert targets.is_present.shape == (0, T)
    assert targets.at(0, torch.empty(0, dtype=torch.int64), torch.rand(4, 2)).shape == (0, 4)


def test_instances_of_one_class_are_targets_of_their_own() -> None:
    labels = torch.tensor([[[3, 3, 0, 255]], [[3, 5, 0, 0]]])
    instances = torch.tensor([[[1, 2, 0, 9]], [[2, 1, 0, 0]]])
    targets = targets_of_instances(labels, instances)
    assert targets.class_ids.tolist() == [0, 3, 3, 5]
    assert targets.is_present.tolist() == [[True, True], [True, False], [True, True], [False, True]]
    centres = torch.tensor([[0.125, 0.5], [0.375, 0.5], [0.625, 0.5], [0.875, 0.5]])
    assert targets.at(0, torch.arange(4), centres).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0] * 4]


def test_one_instance_a_class_is_the_same_as_none() -> None:
    labels = labelled()
    plain, numbered = targets_of_labels(labels), targets_of_instances(labels, torch.full_like(labels, 8))
    points = torch.rand(20, 2)
    assert torch.equal(plain.class_ids, numbered.class_ids)
    assert torch.equal(plain.is_present, numbered.is_present)
    assert torch.equal(plain.at(None, torch.arange(3), points), numbered.at(None, torch.arange(3), points))


def reference(masks: Tensor, frame: int | None, points: Tensor, covered: tuple[int, int]) -> Tensor:
    """``grid_sample`` of float masks ``(M, T, H, W)`` padded to the covered area; ``points`` ``(M, P, 2)``."""
    padded = functional.pad(masks.double(), (0, covered[1] - W, 0, covered[0] - H))
    tall = padded.flatten(1, 2) if frame is None else padded[:, frame]
    grid = (2 * points - 1).unsqueeze(1)
    return functional.grid_sample(tall.unsqueeze(1), grid, align_corners=False)[:, 0, 0]


@pytest.mark.parametrize("covered", [None, (H, W), (8, 8)])
@pytest.mark.parametrize("frame", [None, 0, 2])
@pytest.mark.parametrize("is_dense", [False, True])
def test_values_are_those_of_grid_sample_on_the_padded_masks(
    is_dense: bool, frame: int | None, covered: tuple[int, int] | None
) -> None:
    labels = labelled()
    masks = torch.stack([labels == value for value in (0, 10, 30)])
    if is_dense:
        masks[1] |= torch.rand(T, H, W, generator=torch.Generator().manual_seed(5)) < 0.3  # overlaps
        targets = targets_of_masks(masks, torch.tensor([0, 10, 30]))
    else:
        targets = targets_of_labels(labels)
    rows = torch.tensor([2, 0, 1, 2])
    points = torch.rand(4, 50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(6)) * 1.4 - 0.2
    got = targets.at(frame, rows, points, covered=covered)
    assert torch.allclose(got, reference(masks[rows], frame, points, covered or (H, W)), atol=1e-9)
    shared = targets.at(frame, rows, points[0], covered=covered)
    expected = reference(masks[rows], frame, points[:1].expand(4, -1, -1), covered or (H, W))
    assert torch.allclose(shared, expected, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), tall=st.booleans())
def test_values_of_all_targets_add_up_to_one_inside_fully_labelled_frames(seed: int, tall: bool) -> None:
    random = np.random.default_rng(seed)
    targets = targets_of_labels(torch.from_numpy(random.integers(0, 5, (T, H, W))))
    inside = torch.from_numpy(random.uniform(0.5 / H, 1 - 0.5 / H, (30, 2)))
    total = targets.at(None if tall else 1, torch.arange(len(targets)), inside).sum(dim=0)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-9)


class Largest(TorchDispatchMode):
    """Notes the most elements that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_masks_of_a_label_map_are_never_made() -> None:
    labels = torch.arange(2 * 60 * 80).view(2, 60, 80) % 100
    with Largest() as largest:
        targets = targets_of_labels(labels)
        targets.at(None, torch.arange(100), torch.rand(50, 2))
    assert 0 < largest.elements <= labels.numel()  # 100 masks would have 100 times as many


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: targets_of_labels(torch.zeros(H, W, dtype=torch.uint8)), ShapeError, "labels: expected"),
        (lambda: targets_of_labels(torch.zeros(T, H, W)), DTypeError, "labels: expected an integer"),
        (lambda: targets_of_labels(labelled() - 1), DataError, "labels: expected values of 0 to 255, got -1"),
        (lambda: targets_of_labels(labelled() + 400), DataError, "labels: expected values of 0 to 255"),
        (lambda: targets_of_instances(labelled(), labelled()[:2]), ShapeError, "instances: expected"),
        (lambda: targets_of_instances(labelled(), labelled().float()), DTypeError, "instances: expected an integer"),
        (lambda: targets_of_instances(labelled(), labelled() - 1), DataError, "instances: expected values of 0"),
        (lambda: targets_of_instances(labelled() - 1, labelled()), DataError, "labels: expected values of 0 to 255"),
        (lambda: of_masks(masks=torch.ones(2, T, H, W)), DTypeError, "masks: expected bool"),
        (lambda: of_masks(class_ids=torch.tensor([1, 2, 3])), ShapeError, "class_ids: expected"),
        (lambda: of_masks(class_ids=torch.tensor([1.0, 2.0])), DTypeError, "class_ids: expected an integer"),
        (lambda: of_masks(class_ids=torch.tensor([1, -2])), DataError, "class_ids: expected values of at least 0"),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[], Targets], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def of_masks(*, masks: Tensor | None = None, class_ids: Tensor | None = None) -> Targets:
    return targets_of_masks(
        torch.ones(2, T, H, W, dtype=torch.bool) if masks is None else masks,
        torch.tensor([1, 2]) if class_ids is None else class_ids,
    )
