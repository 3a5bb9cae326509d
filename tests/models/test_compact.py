"""The compact segmenter meets the protocol's laws and is temporal."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mvcseg import IMAGENET_MEAN
from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.models.compact import CompactSegmenter
from mvcseg.ops import score_windows


def awake(num_classes: int = 5, *, width: int = 8, depth: int = 1) -> CompactSegmenter:
    """A small model whose attention does something: as made, attention is the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = CompactSegmenter(num_classes, width=width, depth=depth)
        for mix in model.mixing:
            nn.init.normal_(mix.out.weight, std=0.3)
    return model.eval()


@settings(max_examples=12, deadline=None)
@given(batch=st.integers(1, 2), length=st.integers(1, 4), height=st.integers(32, 50), width=st.integers(32, 50))
def test_logits_have_the_size_of_the_frames(batch: int, length: int, height: int, width: int) -> None:
    with torch.inference_mode():
        logits = awake()(torch.rand(batch, length, 3, height, width))
    assert logits.shape == (batch, length, 5, height, width)
    assert logits.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("classes", "size"), [(1, (32, 32)), (5, (33, 50)), (12, (61, 47)), (124, (40, 53))])
def test_own_labels_are_the_largest_logits(
    monkeypatch: pytest.MonkeyPatch, classes: int, size: tuple[int, int], dtype: torch.dtype, generator: torch.Generator
) -> None:
    monkeypatch.setattr(score_windows, "_CPU_VALUES", 1 << 14)
    model = awake(classes).to(dtype)
    frames = torch.rand(2, 3, 3, *size, generator=generator).to(dtype)
    labels = model.clip_labels(frames, output_size=size)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), model(frames).argmax(dim=2))


def test_own_labels_under_autocast_are_those_of_its_logits(generator: torch.Generator) -> None:
    model, frames = awake(), torch.rand(1, 2, 3, 33, 50, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        labels = model.clip_labels(frames, output_size=(33, 50))
        assert torch.equal(labels.long(), model(frames).argmax(dim=2))


def test_own_labels_of_broken_weights_are_refused() -> None:
    model = awake()
    with torch.no_grad():
        model.classifier.bias[2] = torch.nan  # type: ignore[index]
    with pytest.raises(DataError, match="expected numbers, got NaN in the logits"):
        model.clip_labels(torch.rand(1, 2, 3, 32, 32), output_size=(32, 32))
    with pytest.raises(ShapeError, match="frames"):
        model.clip_labels(torch.rand(1, 2, 3, 31, 32), output_size=(31, 32))


def test_padding_is_the_mean_colour(generator: torch.Generator) -> None:
    frames = torch.rand(1, 2, 3, 33, 50, generator=generator)
    padded = torch.tensor(IMAGENET_MEAN).view(1, 1, 3, 1, 1).repeat(1, 2, 1, 40, 56)
    padded[..., :33, :50] = frames
    model = awake()
    torch.testing.assert_close(model(frames), model(padded)[..., :33, :50])


def test_frames_learn_from_each_other(generator: torch.Generator) -> None:
    frames = torch.rand(1, 4, 3, 32, 40, generator=generator)
    changed = frames.clone()
    changed[:, 3] = 1 - changed[:, 3]
    model = awake()
    assert (model(frames)[:, 0] - model(changed)[:, 0]).abs().max() > 1e-3
    # Reversed time gives reversed logits: frames count by their distance only.
    torch.testing.assert_close(model(frames.flip(1)), model(frames).flip(1), rtol=1e-4, atol=1e-5)


def test_nearer_frames_weigh_more(generator: torch.Generator) -> None:
    frames = torch.rand(1, 8, 3, 32, 40, generator=generator)
    model = awake()
    nn.init.zeros_(model.mixing[0].to_qkv.weight[: 2 * 4 * model.width])  # every pair of frames alike but for distance
    moved = []
    for other in (1, 7):
        changed = frames.clone()
        changed[:, other] = 1 - changed[:, other]
        with torch.no_grad():
            moved.append(float((model(frames)[:, 0] - model(changed)[:, 0]).abs().mean()))
    assert moved[0] > 2 * moved[1] > 0


@pytest.mark.parametrize("training", [False, True])
def test_batch_items_are_independent_and_nothing_is_remembered(generator: torch.Generator, training: bool) -> None:
    first, second = torch.rand(2, 1, 3, 3, 32, 40, generator=generator)
    model = awake().train(training)
    alone = model(first)
    together = model(torch.cat((first, second)))
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(model(first), alone)


def test_every_weight_learns(generator: torch.Generator) -> None:
    model = awake().train()
    model(torch.rand(1, 3, 3, 32, 40, generator=generator)).square().mean().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_the_default_fits_in_three_megabytes() -> None:
    count = sum(weight.numel() for weight in CompactSegmenter(124).state_dict().values())
    assert 4 * count < 3e6


def test_normalisation_is_not_saved() -> None:
    names = CompactSegmenter(3, width=8).state_dict().keys()
    assert "mean" not in names
    assert "std" not in names


def test_bfloat16_agrees_roughly(generator: torch.Generator) -> None:
    frames, model = torch.rand(1, 2, 3, 32, 40, generator=generator), awake()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        halved = model(frames).float()
    with torch.no_grad():
        assert (halved - model(frames)).abs().max() < 0.2


def test_the_architecture_makes_the_model_again() -> None:
    model = CompactSegmenter(6, width=24, depth=3, heads=2)
    again = CompactSegmenter(**model.architecture)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in again.state_dict().items()}


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (torch.rand(1, 2, 3, 31, 40), ShapeError, "h, w >= 32"),
        (torch.rand(1, 0, 3, 32, 40), ShapeError, "t >= 1"),
        (torch.rand(2, 3, 32, 40), ShapeError, "b t 3 h w"),
        (torch.zeros(1, 2, 3, 32, 40, dtype=torch.uint8), DTypeError, "divide uint8 frames by 255"),
    ],
)
def test_wrong_frames_are_refused(frames: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        awake()(frames)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"width": 12}, "width: expected a multiple of 8, got 12"),
        ({"heads": 3}, "heads: expected a divisor of 4 \\* width = 64, got 3"),
        ({"depth": 0}, "depth: expected an integer of at least 1"),
        ({"num_classes": 256}, "num_classes"),
    ],
)
def test_wrong_numbers_are_refused(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CompactSegmenter(**{"num_classes": 3, **numbers})
