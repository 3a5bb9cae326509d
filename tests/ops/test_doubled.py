"""Windows of doubled maps hold the very values of the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mvcseg.ops import score_windows
from mvcseg.ops.doubled import doubled, doubled_windows
from mvcseg.ops.score_windows import best_classes
from mvcseg.ops.workspace import Workspace


def drawn(classes: int, size: tuple[int, int], *, dtype: torch.dtype, levels: int = 0) -> tuple[Tensor, nn.Conv2d]:
    """Maps of two frames, channels-last, and a classifier; of few levels, so that classes tie."""
    generator = torch.Generator().manual_seed(classes)
    maps = torch.randn(2, 6, *size, generator=generator)
    classify = nn.Conv2d(6, classes, kernel_size=1)
    weight = torch.randn(classes, 6, 1, 1, generator=generator)
    classify.weight.data = weight.round() if levels else weight
    classify.bias.data = torch.zeros(classes)  # type: ignore[union-attr]
    maps = (maps * levels).round() / levels if levels else maps
    return maps.to(dtype).contiguous(memory_format=torch.channels_last), classify.to(dtype).requires_grad_(False)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_window_is_that_part_of_the_whole(layout: torch.memory_format, dtype: torch.dtype) -> None:
    logits = torch.randn(1, 7, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    logits = logits.contiguous(memory_format=layout)
    whole, window = doubled(logits)[0].permute(1, 2, 0), doubled_windows(logits, nn.Identity())
    for top in range(10):
        for bottom in range(top + 1, 11):
            left, right = min(top, 7), min(bottom + 1, 12)
            part = window((top, bottom), (left, right))
            assert torch.equal(part, whole[top:bottom, left:right])


@pytest.mark.parametrize("pixels", [1, 7, 100, 10_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("classes", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("levels", [0, 1])
def test_labels_are_the_largest_of_the_doubled_logits(
    monkeypatch: pytest.MonkeyPatch, classes: int, dtype: torch.dtype, pixels: int, levels: int
) -> None:
    maps, classify = drawn(classes, (11, 19), dtype=dtype, levels=levels)
    monkeypatch.setattr(score_windows, "_CPU_VALUES", pixels * classes)
    whole = doubled(classify(maps))
    windows = [doubled_windows(one, classify) for one in torch.split(maps, 1)]
    for size in [(22, 38), (21, 37), (17, 38), (1, 1)]:
        labels, is_number = best_classes(
            windows, size=size, output_size=size, num_classes=classes, memory=Workspace(maps)
        )
        assert labels.dtype == torch.uint8
        assert torch.equal(labels.long(), whole[..., : size[0], : size[1]].argmax(dim=1))
        assert bool(is_number)
    ties = (whole == whole.amax(dim=1, keepdim=True)).sum(dim=1) > 1
    assert bool(ties.any()) or not levels or classes == 1


@pytest.mark.parametrize("row", [0, 4, 8])
def test_a_nan_is_told_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    monkeypatch.setattr(score_windows, "_CPU_VALUES", 4 * 4 * 3)
    logits = torch.zeros(2, 3, 9, 6)
    windows = [doubled_windows(one, nn.Identity()) for one in torch.split(logits, 1)]
    size = (18, 12)
    logits[1, 2, row, 3] = torch.nan
    assert not best_classes(windows, size=size, output_size=size, num_classes=3, memory=Workspace(logits))[1]
    logits[1, 2, row, 3] = torch.inf
    labels, is_number = best_classes(windows, size=size, output_size=size, num_classes=3, memory=Workspace(logits))
    assert bool(is_number)
    assert torch.equal(labels.long(), doubled(logits).argmax(dim=1))
