"""Scores window by window are those of the whole frame, and no tensor is as large as them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from largest_tensor import Largest
from torch import Tensor
from torch.nn import functional

from mvcseg.ops import score_windows
from mvcseg.ops.score_windows import best_classes, mirrored, planes, probabilities, rectangles, resizing
from mvcseg.ops.workspace import Workspace

CPU = torch.device("cpu")


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype) * 3


def whole(window: score_windows.Window, size: tuple[int, int]) -> Tensor:
    """``(K, H, W)`` of a window function asked for everything at once; its own memory is used again."""
    return window((0, size[0]), (0, size[1])).permute(2, 0, 1).clone()


@pytest.mark.parametrize("num_classes", [1, 3, 124, 255])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (48, 85), (1, 400), (400, 1)])
@pytest.mark.parametrize("values", [1, 300, 1 << 19])
def test_rectangles_cover_every_pixel_once(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], num_classes: int, values: int
) -> None:
    monkeypatch.setattr(score_windows, "_CPU_VALUES", values)
    seen = torch.zeros(size, dtype=torch.int32)
    for rows, columns in rectangles(size, size=size, num_classes=num_classes, device=CPU):
        part = seen[slice(*rows), slice(*columns)]
        assert part.numel() * num_classes <= max(values, num_classes)
        part += 1
    assert bool((seen == 1).all())


def test_an_accelerator_takes_a_frame_at_once() -> None:
    assert list(rectangles((480, 853), size=(480, 853), num_classes=124, device=torch.device("meta"))) == [
        ((0, 480), (0, 853))
    ]


def test_what_is_read_of_a_large_frame_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_windows, "_CPU_VALUES", 30_000)
    logits = drawn(5, 400, 300)
    with Largest() as seen:
        best_classes([planes(logits)], size=(400, 300), output_size=(40, 30), num_classes=5, memory=Workspace(logits))
    assert seen.values <= 2 * 30_000


sides = st.integers(1, 24)


@settings(max_examples=80, deadline=None)
@given(size=st.tuples(sides, sides), output_size=st.tuples(sides, sides), data=st.data())
def test_a_resized_window_is_that_part_of_the_resized_frame(
    size: tuple[int, int], output_size: tuple[int, int], data: st.DataObject
) -> None:
    scores = drawn(3, *size, dtype=torch.float64)
    expected = functional.interpolate(scores[None], size=output_size, mode="bilinear", align_corners=False)[0]
    window = resizing(size, output_size, Workspace(scores))(planes(scores))
    assert torch.allclose(whole(window, output_size), expected, atol=1e-12)
    top = data.draw(st.integers(0, output_size[0] - 1))
    left = data.draw(st.integers(0, output_size[1] - 1))
    bottom = data.draw(st.integers(top + 1, output_size[0]))
    right = data.draw(st.integers(left + 1, output_size[1]))
    part = window((top, bottom), (left, right)).permute(2, 0, 1).clone()
    assert torch.equal(part, whole(window, output_size)[:, top:bottom, left:right])


@pytest.mark.parametrize("num_classes", [4, 15, 16, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_windows_compose(num_classes: int, dtype: torch.dtype) -> None:
    logits = drawn(num_classes, 6, 9, dtype=dtype)
    memory = Workspace(logits)
    window = resizing((6, 9), (11, 13), memory)(mirrored(probabilities(planes(logits), memory), memory, width=9))
    scores = logits.to(memory.like.dtype).softmax(dim=0).flip(-1)
    expected = functional.interpolate(scores[None], size=(11, 13), mode="bilinear", align_corners=False)[0]
    at_once = whole(window, (11, 13))
    assert at_once.dtype == memory.like.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.allclose(at_once, expected, atol=1e-6)
    assert torch.allclose(window((2, 5), (3, 13)).permute(2, 0, 1), at_once[:, 2:5, 3:], atol=1e-6)


def test_enlarged_and_shrunk_again_in_one_workspace() -> None:
    logits = drawn(20, 5, 7)
    memory = Workspace(logits)
    enlarged = resizing((5, 7), (23, 29), memory)(planes(logits))
    window = resizing((23, 29), (9, 31), memory)(probabilities(enlarged, memory))
    expected = logits[None]
    for size in [(23, 29), (9, 31)]:
        expected = functional.interpolate(expected, size=size, mode="bilinear", align_corners=False)
        expected = expected.softmax(dim=1) if size == (23, 29) else expected
    assert torch.allclose(whole(window, (9, 31)), expected[0], atol=1e-6)


@pytest.mark.parametrize("output_size", [(12, 17), (24, 34), (7, 9), (13, 12)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_labels_do_not_depend_on_how_a_frame_is_cut(
    monkeypatch: pytest.MonkeyPatch, output_size: tuple[int, int], layout: torch.memory_format
) -> None:
    logits = drawn(3, 6, 12, 17).contiguous(memory_format=layout)

    def labels() -> Tensor:
        return best_classes(
            [planes(one) for one in logits],
            size=(12, 17),
            output_size=output_size,
            num_classes=6,
            memory=Workspace(logits),
        )[0]

    at_once = labels()
    scores = logits.softmax(dim=1)
    expected = functional.interpolate(scores, size=output_size, mode="bilinear", align_corners=False).argmax(dim=1)
    assert torch.equal(at_once.long(), expected)
    for values in (1, 40, 333):
        monkeypatch.setattr(score_windows, "_CPU_VALUES", values)
        assert torch.equal(labels(), at_once)


def test_of_equal_scores_the_lowest_class_wins() -> None:
    logits = torch.zeros(1, 4, 5, 6)
    for output_size in [(5, 6), (9, 11)]:
        labels, _ = best_classes(
            [planes(logits[0])], size=(5, 6), output_size=output_size, num_classes=4, memory=Workspace(logits)
        )
        assert not bool(labels.any())


@pytest.mark.parametrize("output_size", [(5, 6), (9, 11), (3, 3)])
def test_a_nan_is_told_at_any_size(output_size: tuple[int, int]) -> None:
    logits = torch.zeros(2, 4, 5, 6)
    for place in [(0, 0, 0), (1, 2, 3), (3, 4, 5)]:
        for value, known in [(-torch.inf, True), (torch.nan, False)]:
            broken = logits.clone()
            broken[(1, *place)] = value
            _, is_number = best_classes(
                [planes(one) for one in broken],
                size=(5, 6),
                output_size=output_size,
                num_classes=4,
                memory=Workspace(broken),
            )
            assert bool(is_number) is known


@pytest.mark.parametrize("height", [40, 80, 160])
def test_no_tensor_grows_with_the_frame_but_the_labels(monkeypatch: pytest.MonkeyPatch, height: int) -> None:
    monkeypatch.setattr(score_windows, "_CPU_VALUES", 1 << 12)
    logits = drawn(60, height // 4, 16)
    enlarged = resizing((height // 4, 16), (height, 64), memory=Workspace(logits))(planes(logits))
    with Largest() as seen:
        labels, _ = best_classes(
            [enlarged], size=(height, 64), output_size=(height + 8, 70), num_classes=60, memory=Workspace(logits)
        )
    assert labels.shape == (1, height + 8, 70)
    assert seen.values <= max(labels.numel(), 2 << 12)


@pytest.mark.parametrize("output_size", [(12, 17), (24, 34), (7, 9)])
def test_devices_agree(device: torch.device, output_size: tuple[int, int]) -> None:
    logits = drawn(3, 6, 12, 17)
    labels = [
        best_classes(
            [planes(one) for one in moved],
            size=(12, 17),
            output_size=output_size,
            num_classes=6,
            memory=Workspace(moved),
        )[0].cpu()
        for moved in (logits, logits.to(device))
    ]
    assert float((labels[0] != labels[1]).double().mean()) < 0.01
