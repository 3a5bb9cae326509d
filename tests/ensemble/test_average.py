"""The mean of probabilities as a segmenter: hand case, reference, laws and errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mvcseg.ensemble.average import Average
from mvcseg.errors import ConfigError, ShapeError
from mvcseg.segmenter import PerFrame


def segmenter(*, seed: int, num_classes: int = 5) -> PerFrame:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(6, num_classes, 1))
    return PerFrame(net, num_classes=num_classes, logits_of=lambda out: out)


class Constant:
    """No module: the same distribution everywhere."""

    def __init__(self, *probabilities: float) -> None:
        self.logits = torch.tensor(probabilities).log().view(1, 1, -1, 1, 1)
        self.num_classes = len(probabilities)

    def __call__(self, frames: Tensor, /) -> Tensor:
        batch, frames_, _, height, width = frames.shape
        return self.logits.expand(batch, frames_, -1, height, width) + 7


@pytest.fixture
def frames(generator: torch.Generator) -> Tensor:
    return torch.rand(2, 3, 3, 32, 40, generator=generator)


def test_mean_of_two_distributions_by_hand(frames: Tensor) -> None:
    got = Average([Constant(0.8, 0.1, 0.1), Constant(0.2, 0.7, 0.1)])(frames)
    assert got.shape == (2, 3, 3, 32, 40)
    assert got.exp()[0, 0, :, 0, 0].tolist() == pytest.approx([0.5, 0.4, 0.1])


def test_weights_are_normalised(frames: Tensor) -> None:
    got = Average([Constant(0.8, 0.2), Constant(0.2, 0.8)], weights=[3, 1])(frames)
    assert got.exp()[0, 0, :, 0, 0].tolist() == pytest.approx([0.65, 0.35])


def test_average_equals_the_mean_of_softmax(device: torch.device, frames: Tensor) -> None:
    members = [segmenter(seed=seed).eval().to(device) for seed in range(3)]
    frames = frames.to(device)
    expected = torch.stack([member(frames).softmax(dim=2) for member in members]).mean(dim=0)
    got = Average(members).eval()(frames)
    torch.testing.assert_close(got.exp(), expected)
    torch.testing.assert_close(got.exp().sum(dim=2), torch.ones_like(got[:, :, 0]))


def test_average_of_averages_is_the_average_of_all(frames: Tensor) -> None:
    a, b, c = (segmenter(seed=seed).eval() for seed in range(3))
    nested = Average([Average([a, b]), c], weights=[2, 1]).eval()
    torch.testing.assert_close(nested(frames), Average([a, b, c]).eval()(frames))


def test_average_of_one_and_of_equals_keeps_the_distribution(frames: Tensor) -> None:
    one = segmenter(seed=1).eval()
    expected = one(frames).softmax(dim=2)
    for members in ([one], [one, one]):
        torch.testing.assert_close(Average(members).eval()(frames).softmax(dim=2), expected)


def test_segmenter_laws_hold(frames: Tensor) -> None:
    average = Average([segmenter(seed=1), segmenter(seed=2)]).eval()
    assert average.num_classes == 5
    whole = average(frames)
    assert whole.shape == (2, 3, 5, 32, 40)
    torch.testing.assert_close(average(frames[1:]), whole[1:])
    torch.testing.assert_close(average(frames), whole)
    assert average(frames[:, :1, :, :33, :37]).shape == (2, 1, 5, 32, 37)
    assert not hasattr(average, "stream")


def test_modules_become_submodules(frames: Tensor) -> None:
    member = segmenter(seed=1)
    average = Average([member, Constant(0.2, 0.2, 0.2, 0.2, 0.2)])
    assert {id(p) for p in average.parameters()} == {id(p) for p in member.parameters()}
    assert not average.eval().segmenters[0].training
    average.train()
    assert member.training
    average(frames).sum().backward()
    assert all(p.grad is not None for p in member.parameters())


def test_zero_weight_leaves_a_member_out(frames: Tensor) -> None:
    got = Average([Constant(0.9, 0.1), Constant(0.1, 0.9)], weights=[0, 2])(frames)
    assert got.exp()[0, 0, :, 0, 0].tolist() == pytest.approx([0.1, 0.9])


def test_a_class_that_no_member_deems_possible_stays_impossible(frames: Tensor) -> None:
    got = Average([Constant(1.0, 0.0, 0.0), Constant(0.5, 0.5, 0.0)])(frames)[0, 0, :, 0, 0]
    assert got.exp().tolist() == pytest.approx([0.75, 0.25, 0.0])
    assert not got.isnan().any()


def test_half_precision_members_are_averaged_in_float32(frames: Tensor) -> None:
    member = segmenter(seed=1).eval().to(torch.bfloat16)
    assert Average([member])(frames.bfloat16()).dtype == torch.float32


def test_errors_name_the_argument(frames: Tensor) -> None:
    two, three = Constant(0.5, 0.5), Constant(0.5, 0.3, 0.2)
    with pytest.raises(ConfigError, match="segmenters: expected at least one"):
        Average([])
    with pytest.raises(ConfigError, match=r"segmenters: expected one number of classes, got num_classes \[2, 3\]"):
        Average([two, three])
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, math.nan], [1.0, math.inf]):
        with pytest.raises(ConfigError, match="weights: expected 2 finite numbers"):
            Average([two, two], weights=weights)
    three.num_classes = 2
    with pytest.raises(ShapeError, match="segmenters: expected logits of one shape"):
        Average([two, three])(frames)
