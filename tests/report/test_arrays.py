"""Tensors and arrays, channels before or behind the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.report.arrays import has_channels_last, to_array, to_channels, to_tensor


@pytest.mark.parametrize(
    ("frames", "labels", "last"),
    [
        ((4, 3, 6, 8), (4, 6, 8), False),
        ((4, 6, 8, 3), (4, 6, 8), True),
        ((3, 6, 8), (6, 8), False),
        ((6, 8, 3), (6, 8), True),
        ((3, 3, 8, 3), (3, 8, 3), False),  # three rows, three columns or three frames mislead nobody
        ((3, 3, 8, 3), (3, 3, 8), True),
    ],
)
def test_the_label_maps_tell_where_the_channels_are(
    frames: tuple[int, ...], labels: tuple[int, ...], last: bool
) -> None:
    assert has_channels_last(frames, labels) is last


@pytest.mark.parametrize(
    ("frames", "labels"),
    [((4, 6, 8), (4, 6, 8)), ((4, 4, 6, 8), (4, 6, 8)), ((4, 3, 6, 9), (4, 6, 8)), ((3, 3, 3), (3, 3)), ((), (6, 8))],
)
def test_other_shapes_and_those_that_could_be_both_are_refused(
    frames: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    with pytest.raises(ShapeError, match=r"pictures: expected \((t )?3 h w\) or"):
        has_channels_last(frames, labels, argument="pictures")


def test_there_and_back_gives_the_same_array() -> None:
    array = np.random.default_rng(0).integers(0, 255, (2, 4, 5, 3), dtype=np.uint8)
    tensor = to_channels(to_tensor(array, argument="frames"), are_last=True)
    assert tensor.shape == (2, 3, 4, 5)
    back = to_array(tensor, are_last=True)
    np.testing.assert_array_equal(back, array)
    assert to_array(tensor.contiguous(), are_last=True).flags.c_contiguous


def test_arrays_that_torch_cannot_wrap_are_copied(recwarn: pytest.WarningsRecorder) -> None:
    frozen = np.arange(6, dtype=np.uint8).reshape(2, 3)
    frozen.flags.writeable = False
    assert to_tensor(frozen, argument="labels").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert to_tensor(frozen[:, ::-1], argument="labels").tolist() == [[2, 1, 0], [5, 4, 3]]
    assert to_tensor(frozen.astype(">i4"), argument="labels").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not recwarn.list


@pytest.mark.parametrize(
    ("given", "expected"),
    [(np.uint8, torch.uint8), (np.uint16, torch.int64), (np.uint32, torch.int64), (np.int16, torch.int16)],
)
def test_wide_unsigned_integers_become_signed_ones(given: type, expected: torch.dtype) -> None:
    assert to_tensor(np.zeros(2, dtype=given), argument="labels").dtype == expected


@pytest.mark.parametrize(("values", "got"), [([1, 2], "list"), (None, "NoneType"), (np.array(["a"]), "<U1")])
def test_what_holds_no_numbers_is_refused(values: object, got: str) -> None:
    with pytest.raises(DTypeError, match=f"labels: expected .* got {got}"):
        to_tensor(values, argument="labels")
