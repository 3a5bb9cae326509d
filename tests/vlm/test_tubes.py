from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from tube_scenes import GROUPS, Pixel, blank, label_videos, pixels_of, scene, shift, tubes_of

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.vlm.areas import areas, frame_of, mask_of
from mvcseg.vlm.tubes import Tube, find_tubes


@settings(max_examples=30, deadline=None)
@given(label_videos())
def test_every_pixel_asked_about_is_in_exactly_one_tube_and_the_numbers_are_those_of_its_pixels(
    labels: torch.Tensor,
) -> None:
    tubes = tubes_of(labels)
    together = [pixel for tube in tubes for pixel in pixels_of(labels, tube)]
    asked = {(t, y, x) for t, y, x in torch.stack([labels == c for c in GROUPS]).any(dim=0).nonzero().tolist()}
    assert len(together) == len(set(together))
    assert set(together) == asked
    for tube in tubes:
        pixels = sorted(pixels_of(labels, tube))
        per_frame = Counter(t for t, _, _ in pixels)
        assert {labels[pixel].item() for pixel in pixels} <= {c for c, group in GROUPS.items() if group == tube.group}
        assert tube.pixels == len(pixels)
        assert dict(tube.shares) == Counter(labels[pixel].item() for pixel in pixels)
        assert list(tube.shares) == sorted(tube.shares, key=lambda share: (-share[1], share[0]))
        assert tube.frames == (pixels[0][0], pixels[-1][0])
        assert tube.box == box(pixels)
        assert tube.key_frame == min(per_frame, key=lambda t: (-per_frame[t], t))
        assert list(tube.seen) == list(tube.parts) == sorted(per_frame)
        for t, seen in tube.seen.items():
            assert (seen.pixels, seen.box) == (per_frame[t], box([pixel for pixel in pixels if pixel[0] == t]))
    assert [tube.pixels for tube in tubes] == sorted((tube.pixels for tube in tubes), reverse=True)


def box(pixels: list[Pixel]) -> tuple[int, int, int, int]:
    rows, columns = [y for _, y, _ in pixels], [x for _, _, x in pixels]
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


def test_sharpness_is_the_variance_of_the_laplacian_over_the_tube() -> None:
    video, labels = scene(width=64)[None].repeat(2, 1, 1, 1), torch.zeros(2, 48, 64, dtype=torch.uint8)
    video[1] = torch.nn.functional.avg_pool2d(video[0].float(), 5, stride=1, padding=2).to(torch.uint8)
    labels[:, 10:20, 10:30], labels[:, 10:20, 40:44] = 1, 2
    labels[0, 12, 15] = 2
    tubes = tubes_at(video, labels)
    assert [len(tube.parts[0]) for tube in tubes] == [1, 1, 1]
    for t in (0, 1):
        red, green, blue = video[t].double().numpy()
        grey = np.rint(0.299 * red + 0.587 * green + 0.114 * blue)
        padded = np.pad(grey, 1, mode="reflect")
        edges = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * grey
        for tube in tubes:
            if t in tube.parts:
                mask = mask_of(areas(frame_of(labels, t), classes=GROUPS), tube.parts[t])
                # OpenCV's grey is rounded in fixed point: now and then it is 1 off.
                assert tube.seen[t].sharpness == pytest.approx(edges[mask].var(), rel=0.02)
    assert tubes[0].seen[1].sharpness < 0.2 * tubes[0].seen[0].sharpness


def tubes_at(video: torch.Tensor, labels: torch.Tensor) -> tuple[Tube, ...]:
    return find_tubes(video, labels, group_of=GROUPS, min_area=0, flow=None).large


def test_tube_is_large_when_all_of_it_together_is_large_in_one_frame() -> None:
    labels = torch.zeros(5, 5, 10, dtype=torch.uint8)
    labels[:, 0, 0] = 1  # 1 pixel of 50 in each frame
    labels[:, 3:, 3:6], labels[:, 4, 6] = 4, 4  # 7 pixels
    labels[2, 3, 6] = 4  # 8, of which
    labels[2, 3:, 5:7] = torch.tensor([[5, 5], [5, 4]])  # 3 flicker
    labels[2, 4, 6] = 5
    labels[2, 4, 5] = 4
    assert sorted((tube.pixels, tube.seen[2].pixels) for tube in tubes_of(labels)) == [(5, 1), (36, 8)]
    for pixels, number in ((1, 2), (2, 1), (8, 1), (9, 0)):
        found = find_tubes(blank(labels), labels, group_of=GROUPS, min_area=pixels / 50, flow=None)
        assert (len(found.large), found.too_small) == (number, 2 - number)


def test_other_groups_and_classes_are_left_alone() -> None:
    labels = torch.tensor([[[1, 1, 0, 4, 255]], [[4, 1, 0, 4, 6]]])
    assert sorted((tube.group, tube.shares) for tube in tubes_of(labels)) == [
        (0, ((1, 1),)),
        (0, ((1, 2),)),
        (1, ((4, 1),)),
        (1, ((4, 2),)),
    ]


def test_wrong_arguments_are_refused() -> None:
    labels = torch.ones(2, 3, 4, dtype=torch.uint8)
    video = blank(labels)

    def find(video: object, labels: object, *, min_area: float = 0, flow: object = None) -> object:
        return find_tubes(video, labels, group_of=GROUPS, min_area=min_area, flow=flow)  # type: ignore[arg-type]

    for min_area in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="min_area: expected a share of the frame"):
            find(video, labels, min_area=min_area)
    with pytest.raises(DTypeError, match="labels: expected an integer tensor"):
        find(video, labels.float())
    with pytest.raises(ShapeError, match=r"labels: expected \(t h w\)"):
        find(video, labels[None])
    with pytest.raises(ShapeError, match="expected 2 label maps"):
        find(video, labels[:1])
    with pytest.raises(DTypeError, match="video: expected uint8"):
        find(video.float(), labels)
    with pytest.raises(ShapeError, match="at least one frame"):
        find(video[:0], labels[:0])
    with pytest.raises(
        ShapeError, match=r"labels: expected \(h w\) = \(3, 5\) as the video's in frame 0, got \(3, 4\)"
    ):
        find(torch.zeros(2, 3, 3, 5, dtype=torch.uint8), labels)
    with pytest.raises(ShapeError, match="flow: expected"):
        find(video, labels, flow=lambda now, before: torch.zeros(1, 2, 3, 5))
    with pytest.raises(DTypeError, match="flow: expected a floating-point"):
        find(video, labels, flow=lambda now, before: torch.zeros(1, 2, 3, 4, dtype=torch.int64))
    with pytest.raises(DTypeError, match=r"flow: expected a torch\.Tensor"):
        find(video, labels, flow=lambda now, before: now.numpy())


class Uneven:
    """Frames that grow."""

    def __init__(self, *sizes: int, axes: tuple[int, ...] = (1,)) -> None:
        self.sizes, self.axes = sizes, axes

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: slice) -> torch.Tensor:
        return torch.ones(*self.axes, 4, self.sizes[index.start], dtype=torch.uint8)


@pytest.mark.parametrize("flow", [None, shift(0)])
def test_frames_of_different_size_are_refused(
    flow: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None,
) -> None:
    with pytest.raises(ShapeError, match=r"labels: expected \(h w\) = \(4, 5\) in frame 1 as before, got \(4, 6\)"):
        find_tubes(Uneven(5, 6, axes=(1, 3)), Uneven(5, 6), group_of=GROUPS, min_area=0, flow=flow)
    with pytest.raises(
        ShapeError, match=r"labels: expected \(h w\) = \(4, 6\) as the video's in frame 1, got \(4, 5\)"
    ):
        find_tubes(Uneven(5, 6, axes=(1, 3)), Uneven(5, 5), group_of=GROUPS, min_area=0, flow=flow)
