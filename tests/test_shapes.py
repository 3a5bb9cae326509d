from __future__ import annotations

import numpy as np
import pytest
import torch

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.shapes import check_float, check_integer, check_num_classes, check_positive, check_shapes


def test_letters_bind_sizes() -> None:
    assert check_shapes(x=(torch.zeros(2, 3, 5), "b 3 w")) == {"b": 2, "w": 5}


def test_a_letter_must_agree_across_arguments() -> None:
    frames, labels = torch.zeros(2, 8, 3, 4, 6), torch.zeros(2, 7, 4, 6)
    with pytest.raises(ShapeError, match=r"labels: expected \(b t h w\) with t=8 from frames, got \(2, 7, 4, 6\)"):
        check_shapes(frames=(frames, "b t 3 h w"), labels=(labels, "b t h w"))


def test_a_letter_must_agree_within_an_argument() -> None:
    with pytest.raises(ShapeError, match=r"x: expected \(n n\) with n=2, got \(2, 3\)"):
        check_shapes(x=(torch.zeros(2, 3), "n n"))


def test_a_literal_size_is_demanded() -> None:
    with pytest.raises(ShapeError, match=r"frames: expected \(t 3 h w\), got \(5, 4, 2, 2\)"):
        check_shapes(frames=(torch.zeros(5, 4, 2, 2), "t 3 h w"))


def test_the_number_of_axes_is_demanded() -> None:
    with pytest.raises(ShapeError, match=r"expected \(h w\), got \(2,\)"):
        check_shapes(labels=(torch.zeros(2), "h w"))


def test_something_else_than_a_tensor_is_refused() -> None:
    with pytest.raises(DTypeError, match=r"frames: expected a torch.Tensor .* got list"):
        check_shapes(frames=([1, 2], "n"))  # type: ignore[arg-type]


def test_integer_frames_are_told_to_be_divided() -> None:
    with pytest.raises(DTypeError, match="divide uint8 frames by 255"):
        check_float(frames=torch.zeros(1, dtype=torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_labels_of_no_integer_dtype_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(DTypeError, match="labels: expected an integer tensor"):
        check_integer(labels=torch.zeros(1, dtype=dtype))


@pytest.mark.parametrize("count", [0, 256, -1, 1.5, True])
def test_numbers_of_classes_outside_a_byte_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="num_classes: expected an integer from 1 to 255"):
        check_num_classes(count)


@pytest.mark.parametrize("value", [0, -3, 1.0, True])
def test_only_integers_of_at_least_one_are_positive(value: int) -> None:
    with pytest.raises(ConfigError, match="steps: expected an integer of at least 1"):
        check_positive(steps=value)


def test_integers_of_numpy_count_as_integers() -> None:
    check_positive(steps=np.int64(3))
    assert check_num_classes(np.int32(7)) == 7
