from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.losses import PixelObjective, pixel_cross_entropy


def example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 8, 12, generator=generator)
    labels = torch.randint(0, 5, (2, 3, 8, 12), generator=generator)
    labels[:, :, :2] = 255
    return logits, labels


def test_uniform_logits_cost_the_log_of_the_number_of_classes() -> None:
    labels = torch.tensor([[[[0, 1], [255, 3]]]])
    loss = pixel_cross_entropy(torch.zeros(1, 1, 4, 2, 2), labels)
    assert loss.item() == pytest.approx(math.log(4), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_equals_pytorchs_mean_with_an_ignore_index(smoothing: float, weighted: bool) -> None:
    logits, labels = example()
    class_weight = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0]) if weighted else None
    expected = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(0, 1), weight=class_weight, ignore_index=255, label_smoothing=smoothing
    )
    loss = pixel_cross_entropy(logits, labels, class_weight=class_weight, label_smoothing=smoothing)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_weight_zero_ignores_a_pixel() -> None:
    logits, labels = example()
    weight = torch.rand(2, 3, 8, 12).round()
    ignored = torch.where(weight == 0, 255, labels)
    assert pixel_cross_entropy(logits, labels, weight=weight).item() == pytest.approx(
        pixel_cross_entropy(logits, ignored).item(), rel=1e-5
    )


def test_a_clip_without_labels_costs_nothing_and_has_a_gradient() -> None:
    logits = torch.randn(1, 1, 4, 2, 2, requires_grad=True)
    loss = pixel_cross_entropy(logits, torch.full((1, 1, 2, 2), 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_integer_dtype_are_read(dtype: torch.dtype) -> None:
    logits, labels = example()
    assert torch.equal(pixel_cross_entropy(logits, labels.to(dtype)), pixel_cross_entropy(logits, labels))


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.zeros(1, 1, 4, 300, 300, dtype=torch.bfloat16)
    loss = pixel_cross_entropy(logits, torch.zeros(1, 1, 300, 300, dtype=torch.uint8))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(4), rel=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    logits, labels = example()
    small, few = logits[:1, :1, :, :3, :4].double().requires_grad_(), labels[:1, :1, :3, :4]
    weight = torch.rand(1, 1, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: pixel_cross_entropy(x, few, weight=weight), small)


@pytest.mark.parametrize("value", [5, -1, 254])
def test_a_label_outside_the_classes_is_named(value: int) -> None:
    logits, labels = example()
    labels[1, 2, 3, 4] = value
    with pytest.raises(DataError, match=rf"labels: expected classes 0..4 or 255, got {value}"):
        pixel_cross_entropy(logits, labels)


def test_bad_arguments_are_refused() -> None:
    logits, labels = example()
    with pytest.raises(ShapeError, match="labels: expected"):
        pixel_cross_entropy(logits, labels[:, :2])
    with pytest.raises(ShapeError, match="class_weight: expected"):
        pixel_cross_entropy(logits, labels, class_weight=torch.ones(4))
    with pytest.raises(ShapeError, match="weight: expected"):
        pixel_cross_entropy(logits, labels, weight=torch.ones(2, 3, 8, 8))
    with pytest.raises(DTypeError, match="labels: expected an integer tensor"):
        pixel_cross_entropy(logits, labels.float())
    with pytest.raises(DTypeError, match="logits: expected a floating-point tensor"):
        pixel_cross_entropy(logits.long(), labels)
    with pytest.raises(ConfigError, match="label_smoothing: expected a share"):
        pixel_cross_entropy(logits, labels, label_smoothing=1.5)


def test_the_objective_is_the_loss_of_the_segmenters_logits() -> None:
    logits, labels = example()

    class Fixed:
        num_classes = 5

        def __call__(self, frames: torch.Tensor, /) -> torch.Tensor:
            return logits

    objective = PixelObjective(class_weight=[1, 2, 3, 4, 5], label_smoothing=0.1)
    expected = pixel_cross_entropy(logits, labels, class_weight=torch.tensor([1.0, 2, 3, 4, 5]), label_smoothing=0.1)
    assert torch.equal(objective(Fixed(), torch.rand(2, 3, 3, 8, 12), labels), expected)
    with pytest.raises(ConfigError, match="class_weight: expected factors"):
        PixelObjective(class_weight=[-1.0])
    with pytest.raises(ConfigError, match="label_smoothing"):
        PixelObjective(label_smoothing=-0.5)
