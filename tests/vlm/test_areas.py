from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.vlm.areas import (
    BOTTOM,
    CLASS,
    EDGES,
    FRAME,
    LEFT,
    NUMBER,
    PIXELS,
    RIGHT,
    SQUARED_EDGES,
    TOP,
    areas,
    frame_of,
    mask_of,
    measured,
)

CLASSES = {1: 0, 2: 0, 4: 1}


def test_areas_are_of_one_class_and_hang_together_at_corners() -> None:
    frame = np.array([[1, 0, 2, 2], [0, 1, 2, 0], [4, 0, 0, 1]], np.uint8)
    found = areas(frame, classes=CLASSES)
    assert found.tolist() == [[1, 0, 2, 2], [0, 1, 2, 0], [3, 0, 0, 4]]
    assert np.argwhere(mask_of(found, [1, 4])).tolist() == [[0, 0], [1, 1], [2, 3]]


def test_classes_beside_each_other_are_two_areas_though_of_one_group() -> None:
    assert areas(np.array([[1, 1, 2, 2]]), classes=CLASSES).tolist() == [[1, 1, 2, 2]]


def test_negative_huge_and_other_labels_are_no_areas() -> None:
    frame = np.array([[-1, 1, 2**40, 255, 3, -(2**40), 0]])
    assert areas(frame, classes=CLASSES).tolist() == [[0, 1, 0, 0, 0, 0, 0]]
    assert not areas(frame, classes={}).any()
    assert areas(np.array([[0, 3]]), classes={0: 0}).tolist() == [[1, 0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(1, 1), (1, 9), (7, 1), (6, 8)]))
def test_measures_are_those_of_the_pixels(seed: int, size: tuple[int, int]) -> None:
    random = np.random.default_rng(seed)
    frame, edges = random.integers(0, 6, size), random.integers(-1020, 1021, size).astype(np.int16)
    found = areas(frame, classes=CLASSES)
    table = measured(found, frame, position=3, edges=edges)
    assert len(table) == found.max()
    for row in table:
        rows, columns = np.nonzero(found == row[NUMBER])
        assert row[FRAME] == 3
        assert (frame[rows, columns] == row[CLASS]).all()
        assert row[PIXELS] == len(rows)
        assert row[[LEFT, TOP, RIGHT, BOTTOM]].tolist() == [
            columns.min(),
            rows.min(),
            columns.max() + 1,
            rows.max() + 1,
        ]
        values = edges[rows, columns].astype(int)
        assert (row[EDGES], row[SQUARED_EDGES]) == (values.sum(), (values**2).sum())
    without = measured(found, frame, position=3, edges=None)
    assert (without[:, :EDGES] == table[:, :EDGES]).all()
    assert not without[:, EDGES:].any()


def test_frame_is_read_alone_and_must_be_integers_of_two_axes() -> None:
    labels = torch.arange(24).view(2, 3, 4)
    assert (frame_of(labels, 1) == labels[1].numpy()).all()
    with pytest.raises(DTypeError, match="integer tensor"):
        frame_of(labels.float(), 0)
    with pytest.raises(ShapeError, match=r"labels: expected \(1 h w\), got \(1, 3, 4, 1\)"):
        frame_of(labels[..., None], 0)
    with pytest.raises(ShapeError, match=r"labels: expected \(1 h w\), got \(0, 3, 4\)"):
        frame_of(labels, 2)
    with pytest.raises(DTypeError, match="slices that are tensors, got list"):
        frame_of([[1, 2]], 0)  # type: ignore[arg-type]
