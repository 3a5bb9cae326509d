from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mvcseg import IMAGENET_MEAN, IMAGENET_STD, PerFrame
from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.segmenter import Video, device_of


def identity(value: Tensor) -> Tensor:
    return value


def test_frames_are_normalised_before_the_net() -> None:
    seen: list[Tensor] = []

    def net(images: Tensor) -> Tensor:
        seen.append(images)
        return images

    segmenter = PerFrame(net, num_classes=3, logits_of=identity, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    colour = torch.tensor(IMAGENET_MEAN).view(1, 1, 3, 1, 1).expand(2, 4, 3, 32, 40)
    segmenter(colour)
    assert seen[0].shape == (8, 3, 32, 40)
    assert seen[0].abs().max() == 0


def test_without_mean_and_std_frames_pass_unchanged() -> None:
    frames = torch.rand(2, 4, 3, 32, 40)
    assert torch.equal(PerFrame(identity, num_classes=3, logits_of=identity)(frames), frames)


def test_smaller_logits_are_resized_to_the_frames() -> None:
    segmenter = PerFrame(nn.AvgPool2d(4), num_classes=3, logits_of=identity)
    frames = torch.rand(1, 2, 3, 32, 40)
    expected = nn.functional.interpolate(
        nn.functional.avg_pool2d(frames[0], 4), size=(32, 40), mode="bilinear", align_corners=False
    )
    assert torch.equal(segmenter(frames)[0], expected)


def test_padding_lies_right_and_bottom_and_shows_the_mean() -> None:
    seen: list[Tensor] = []

    def net(images: Tensor) -> Tensor:
        seen.append(images)
        return images

    segmenter = PerFrame(net, num_classes=3, logits_of=identity, mean=IMAGENET_MEAN, std=IMAGENET_STD, multiple_of=32)
    frames = torch.rand(1, 1, 3, 33, 40)
    logits = segmenter(frames)
    assert seen[0].shape == (1, 3, 64, 64)
    assert seen[0][..., 33:, :].abs().max() == 0
    assert seen[0][..., 40:].abs().max() == 0
    assert logits.shape == (1, 1, 3, 33, 40)
    assert torch.equal(logits[0], seen[0][..., :33, :40])


def test_logits_of_picks_them_out_of_what_the_net_returns() -> None:
    segmenter = PerFrame(lambda x: {"out": x, "aux": 0}, num_classes=3, logits_of=lambda out: out["out"])
    frames = torch.rand(1, 2, 3, 32, 40)
    assert torch.equal(segmenter(frames), frames)


def test_frames_are_independent_of_their_neighbours() -> None:
    segmenter = PerFrame(nn.Conv2d(3, 5, 3, padding=1), num_classes=5, logits_of=identity).eval()
    frames = torch.rand(2, 3, 3, 32, 40)
    whole, alone = segmenter(frames), segmenter(frames[1:, 2:])
    assert torch.allclose(whole[1:, 2:], alone, atol=1e-6)


def test_a_net_with_another_number_of_classes_is_named() -> None:
    segmenter = PerFrame(identity, num_classes=4, logits_of=identity)
    with pytest.raises(ShapeError, match=r"net: expected logits \(2 4 h w\), got \(2, 3, 32, 32\)"):
        segmenter(torch.rand(1, 2, 3, 32, 32))


def test_logits_of_that_gives_no_tensor_is_named() -> None:
    segmenter = PerFrame(lambda x: {"out": x}, num_classes=3, logits_of=identity)
    with pytest.raises(DTypeError, match="logits_of: expected it to return a tensor, got dict"):
        segmenter(torch.rand(1, 2, 3, 32, 32))


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ShapeError, match="no empty axis"):
        PerFrame(identity, num_classes=3, logits_of=identity)(torch.rand(0, 1, 3, 8, 8))


def test_bytes_are_refused_with_the_fix() -> None:
    with pytest.raises(DTypeError, match="divide uint8 frames by 255"):
        PerFrame(identity, num_classes=3, logits_of=identity)(torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8))


def test_mean_and_std_go_together() -> None:
    with pytest.raises(ConfigError, match="expected both or neither"):
        PerFrame(identity, num_classes=3, logits_of=identity, mean=IMAGENET_MEAN)
    with pytest.raises(ConfigError, match="std above 0"):
        PerFrame(identity, num_classes=3, logits_of=identity, mean=IMAGENET_MEAN, std=(1.0, 0.0, 1.0))


def test_normalisation_is_no_part_of_the_state_dict() -> None:
    net = nn.Conv2d(3, 5, 1)
    segmenter = PerFrame(net, num_classes=5, logits_of=identity, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert sorted(segmenter.state_dict()) == ["net.bias", "net.weight"]


def test_a_tensor_and_anything_with_slices_is_a_video() -> None:
    class Lazy:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: slice, /) -> Tensor:
            return torch.zeros(1, 3, 2, 2, dtype=torch.uint8)

    assert isinstance(torch.zeros(1, 3, 2, 2), Video)
    assert isinstance(Lazy(), Video)
    assert not isinstance(3, Video)


def test_device_is_that_of_the_first_parameter() -> None:
    assert device_of(nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert device_of(identity) is None
    assert device_of(nn.Identity(), torch.device("cpu")) == torch.device("cpu")
