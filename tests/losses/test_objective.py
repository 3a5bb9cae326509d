"""The pixel objective within a training step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mvcseg.errors import DataError, DTypeError
from mvcseg.losses import PixelObjective, pixel_cross_entropy
from mvcseg.losses.cross_entropy import counted_weight
from mvcseg.losses.objective import RandomObjective, SizedObjective, with_generators

K = 5


class PixelNet(torch.nn.Module):
    num_classes = K

    def __init__(self) -> None:
        super().__init__()
        self.classes = torch.nn.Parameter(torch.randn(K, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, frames: Tensor) -> Tensor:
        return torch.einsum("kc,btchw->btkhw", self.classes, frames)


def clips() -> tuple[Tensor, Tensor, Tensor]:
    """Frames, labels and weights; the clips have different numbers of labelled pixels, the last none."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, K, (4, 2, 6, 8), generator=generator)
    labels[1, :, :4] = labels[2, 0] = labels[3] = 255
    return torch.rand(4, 2, 3, 6, 8, generator=generator), labels, torch.rand(4, 2, 6, 8, generator=generator)


def loss_and_gradient(objective: object, net: PixelNet, *clip: Tensor) -> list[Tensor]:
    loss = objective(net, *clip)  # type: ignore[operator]
    return [loss.detach(), *torch.autograd.grad(loss, list(net.parameters()))]


@pytest.mark.parametrize("parts", [[[0], [1], [2], [3]], [[0, 3], [1, 2]], [[0], [1, 2, 3]]])
@pytest.mark.parametrize("class_weight", [None, [1.0, 2.0, 0.5, 3.0, 0.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_mean_of_a_steps_parts_is_the_loss_of_all_clips_at_once(
    parts: list[list[int]], class_weight: list[float] | None, smoothing: float, is_weighted: bool
) -> None:
    frames, labels, weight = clips()
    clip = (frames, labels, weight) if is_weighted else (frames, labels)
    net, objective = PixelNet(), PixelObjective(class_weight=class_weight, label_smoothing=smoothing)
    whole = loss_and_gradient(objective, net, *clip)
    size = torch.stack([objective.size(*(each[part] for each in clip[1:])) for part in parts]).mean(dim=0)
    within = objective.for_step(size=size, progress=0.0)
    pieces = [loss_and_gradient(within, net, *(each[part] for each in clip)) for part in parts]
    for got, expected in zip(zip(*pieces, strict=True), whole, strict=True):
        assert torch.allclose(torch.stack(got).mean(dim=0), expected, rtol=1e-6, atol=1e-7)


def test_without_a_size_parts_of_different_size_do_not_have_that_mean() -> None:
    frames, labels, _ = clips()
    net, objective = PixelNet(), PixelObjective()
    parts = [objective(net, frames[n : n + 1], labels[n : n + 1]).item() for n in range(4)]
    assert sum(parts) / 4 != pytest.approx(objective(net, frames, labels).item(), rel=1e-2)


def test_the_size_is_the_sum_of_the_weights_of_labelled_pixels() -> None:
    labels = torch.tensor([[[[0, 1], [255, 1]]]], dtype=torch.uint8)
    weight = torch.tensor([[[[0.5, 0.25], [1.0, 1.0]]]])
    assert PixelObjective().size(labels).item() == 3
    assert PixelObjective().size(labels, weight).item() == 1.75
    assert PixelObjective(class_weight=[2.0, 4.0]).size(labels, weight).item() == 6.0
    assert counted_weight(labels, class_weight=torch.tensor([2.0, 4.0])).tolist() == [[[[2, 4], [0, 4]]]]


def test_a_size_of_zero_divides_nothing() -> None:
    frames, labels, _ = clips()
    objective = PixelObjective().for_step(size=torch.zeros(()), progress=0.0)
    assert objective(PixelNet(), frames[3:], labels[3:]).item() == 0


def test_a_divisor_stands_for_the_sum_of_weights() -> None:
    logits, labels = torch.zeros(1, 1, 4, 2, 2), torch.tensor([[[[0, 1], [255, 3]]]])
    loss = pixel_cross_entropy(logits, labels, divisor=torch.tensor(6.0))
    assert loss.item() == pytest.approx(pixel_cross_entropy(logits, labels).item() / 2)


def test_the_pixel_objective_has_a_size_and_draws_nothing() -> None:
    objective = PixelObjective()
    assert isinstance(objective, SizedObjective)
    assert not isinstance(objective, RandomObjective)
    assert with_generators(objective, [torch.Generator()]) is objective
    assert objective.for_step(size=torch.ones(()), progress=0.5) is not objective


def test_labels_that_have_no_class_weight_are_refused_with_the_logits() -> None:
    frames, labels, _ = clips()
    objective = PixelObjective(class_weight=[1.0] * K)
    labels[0, 0, 0, 0] = K
    assert objective.size(labels).isfinite()
    with pytest.raises(DataError, match="labels: expected classes"):
        objective(PixelNet(), frames, labels)
    with pytest.raises(DTypeError, match="labels: expected an integer"):
        objective.size(labels.float())
