"""Labels of doubled logits are the arg-max of the doubled logits, which are never whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mvcseg.ops import doubled_labels as module
from mvcseg.ops.doubled_labels import doubled, doubled_labels


def drawn(classes: int, size: tuple[int, int], *, dtype: torch.dtype, levels: int = 0) -> tuple[Tensor, nn.Conv2d]:
    """Maps of two frames, channels-last, and a classifier; of few levels, so that classes tie."""
    generator = torch.Generator().manual_seed(classes)
    maps = torch.randn(2, 6, *size, generator=generator)
    classify = nn.Conv2d(6, classes, kernel_size=1)
    weight = torch.randn(classes, 6, 1, 1, generator=generator)
    classify.weight.data = weight.round() if levels else weight
    classify.bias.data = torch.zeros(classes)  # type: ignore[union-attr]
    maps = (maps * levels).round() / levels if levels else maps
    return maps.to(dtype).contiguous(memory_format=torch.channels_last), classify.to(dtype)


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("classes", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("levels", [0, 1])
def test_labels_are_the_largest_of_the_doubled_logits(
    monkeypatch: pytest.MonkeyPatch, classes: int, dtype: torch.dtype, rows: int, levels: int
) -> None:
    maps, classify = drawn(classes, (11, 19), dtype=dtype, levels=levels)
    monkeypatch.setattr(module, "_CPU_STRIP", rows * 4 * 19 * classes)
    with torch.no_grad():
        whole = doubled(classify(maps))
    for height, width in [(22, 38), (21, 37), (17, 38), (1, 1)]:
        logits = whole[..., :height, :width]
        labels, is_number = doubled_labels(maps, classify, num_classes=classes, size=(height, width))
        assert labels.dtype == torch.uint8
        assert torch.equal(labels.long(), logits.argmax(dim=1))
        assert bool(is_number)
    ties = (whole == whole.amax(dim=1, keepdim=True)).sum(dim=1) > 1
    assert bool(ties.any()) or not levels or classes == 1


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_either_layout_is_held_to_its_own_doubling(
    monkeypatch: pytest.MonkeyPatch, layout: torch.memory_format
) -> None:
    logits = torch.randn(3, 7, 9, 14, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    monkeypatch.setattr(module, "_CPU_STRIP", 2 * 4 * 14 * 7)
    labels, _ = doubled_labels(logits, nn.Identity(), num_classes=7, size=(17, 28))
    assert torch.equal(labels.long(), doubled(logits)[..., :17, :].argmax(dim=1))


@pytest.mark.parametrize("row", [0, 4, 8])
def test_a_nan_is_told_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    monkeypatch.setattr(module, "_CPU_STRIP", 2 * 4 * 6 * 3)
    logits = torch.zeros(2, 3, 9, 6)
    logits[1, 2, row, 3] = torch.nan
    assert not doubled_labels(logits, nn.Identity(), num_classes=3, size=(18, 12))[1]
    logits[1, 2, row, 3] = torch.inf
    labels, is_number = doubled_labels(logits, nn.Identity(), num_classes=3, size=(18, 12))
    assert bool(is_number)
    assert torch.equal(labels.long(), doubled(logits).argmax(dim=1))


class Largest(TorchDispatchMode):
    """Values of the largest tensor that is made within it."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor) and tensor._base is None:
                self.values = max(self.values, tensor.numel())
        return result


@pytest.mark.parametrize("height", [40, 80, 160])
def test_no_tensor_grows_with_the_rows_but_the_labels(monkeypatch: pytest.MonkeyPatch, height: int) -> None:
    maps, classify = drawn(60, (height, 16), dtype=torch.float32)
    monkeypatch.setattr(module, "_CPU_STRIP", 4 * 4 * 16 * 60)
    with Largest() as seen:
        labels, _ = doubled_labels(maps, classify, num_classes=60, size=(2 * height, 32))
    assert labels.shape == (2, 2 * height, 32)
    assert 2 * labels.numel() < 60 * labels.numel()  # one frame's logits would be the larger by far
    assert seen.values == max(labels.numel(), 2 * (4 + 1) * 32 * 60)
