"""Checks at the public door: axis letters bound across arguments, kinds of dtype, ranges of numbers."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError, ShapeError

MAX_CLASSES = 255
"""Most classes a label map of bytes can hold beside the ignore index 255."""


def check_shapes(**named: tuple[Tensor, str]) -> dict[str, int]:
    """Sizes of the axis letters, which must agree wherever a letter occurs again.

    Args:
        **named: for each argument its tensor and its axes, ``"b t 3 h w"``: a letter (or word) binds a
            size, a number demands it.

    Returns:
        The size bound to every letter.

    Raises:
        DTypeError: a value is not a tensor.
        ShapeError: the number of axes, a literal size or a repeated letter does not fit.

    Example:
        >>> frames, labels = torch.zeros(2, 8, 3, 4, 6), torch.zeros(2, 7, 4, 6)
        >>> check_shapes(frames=(frames, "b t 3 h w"))["t"]
        8
        >>> check_shapes(frames=(frames, "b t 3 h w"), labels=(labels, "b t h w"))
        Traceback (most recent call last):
        ...
        mvcseg.errors.ShapeError: labels: expected (b t h w) with t=8 from frames, got (2, 7, 4, 6)
    """
    sizes: dict[str, int] = {}
    bound_by: dict[str, str] = {}
    for name, (tensor, axes) in named.items():
        _check_tensor(name, tensor, axes=f" ({axes})")
        letters = axes.split()
        got = tuple(tensor.shape)
        if len(letters) != len(got):
            raise ShapeError(f"{name}: expected ({axes}), got {got}")
        for letter, size in zip(letters, got, strict=True):
            if letter.isdigit():
                if size != int(letter):
                    raise ShapeError(f"{name}: expected ({axes}), got {got}")
            elif letter in sizes and sizes[letter] != size:
                origin = f" from {bound_by[letter]}" if bound_by[letter] != name else ""
                raise ShapeError(f"{name}: expected ({axes}) with {letter}={sizes[letter]}{origin}, got {got}")
            else:
                sizes.setdefault(letter, size)
                bound_by.setdefault(letter, name)
    return sizes


def check_float(**named: Tensor) -> None:
    """Require floating-point tensors.

    Raises:
        DTypeError: one is not.
    """
    for name, tensor in named.items():
        _check_tensor(name, tensor)
        if not tensor.is_floating_point():
            hint = "; divide uint8 frames by 255 first" if tensor.dtype == torch.uint8 else ""
            raise DTypeError(f"{name}: expected a floating-point tensor, got {tensor.dtype}{hint}")


def check_integer(**named: Tensor) -> None:
    """Require integer tensors (bool is not one).

    Raises:
        DTypeError: one is not.
    """
    for name, tensor in named.items():
        _check_tensor(name, tensor)
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise DTypeError(f"{name}: expected an integer tensor of class ids, got {tensor.dtype}")


def check_num_classes(num_classes: int) -> int:
    """Require a number of classes that label maps of bytes can hold, 1 to 255.

    Raises:
        ConfigError: it is outside that range or no integer.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, Integral) or not 1 <= num_classes <= MAX_CLASSES:
        raise ConfigError(
            f"num_classes: expected an integer from 1 to {MAX_CLASSES} (labels are bytes, 255 is the ignore "
            f"index), got {num_classes!r}"
        )
    return int(num_classes)


def check_class_count(**named: int) -> None:
    """Require as many names, colours or the like as label maps of bytes can have classes, 1 to 255.

    Raises:
        ConfigError: there are none, or more.
    """
    for name, count in named.items():
        if not 1 <= count <= MAX_CLASSES:
            raise ConfigError(
                f"{name}: expected 1 to {MAX_CLASSES}, one a class (labels are bytes, 255 is the ignore index), "
                f"got {count}"
            )


def check_positive(**named: int) -> None:
    """Require integers of at least 1.

    Raises:
        ConfigError: one is not.
    """
    for name, value in named.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ConfigError(f"{name}: expected an integer of at least 1, got {value!r}")


def _check_tensor(name: str, value: object, *, axes: str = "") -> None:
    if not isinstance(value, Tensor):
        raise DTypeError(f"{name}: expected a torch.Tensor{axes}, got {type(value).__name__}")
