"""Flicker: by hand, against the definition in loops, and its laws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.flow import FarnebackFlow
from mvcseg.report.flicker import PAIRS_AT_ONCE, flicker

H, W = 9, 13


def still(source: Tensor, target: Tensor) -> Tensor:
    return torch.zeros(len(source), 2, *source.shape[2:])


def black(length: int, *, h: int = H, w: int = W) -> Tensor:
    return torch.zeros(length, 3, h, w, dtype=torch.uint8)


def in_loops(labels: Tensor, motion: Tensor) -> Tensor:
    """The definition read aloud, pixel by pixel, for flows of whole pixels."""
    length, height, width = labels.shape
    out = torch.zeros(length, height, width, dtype=torch.bool)
    for t in range(1, length):
        came_from = torch.full((height, width), 255)
        for y in range(height):
            for x in range(width):
                dx, dy = motion[t - 1, :, y, x].tolist()
                if 0 <= x + dx < width and 0 <= y + dy < height:
                    came_from[y, x] = labels[t - 1, int(y + dy), int(x + dx)]
        for y in range(height):
            for x in range(width):
                near = came_from[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                known = came_from[y, x] != 255 and labels[t, y, x] != 255
                out[t, y, x] = bool(known) and not bool((near == labels[t, y, x]).any())
    return out


def test_what_appears_out_of_nowhere_flickers_and_so_does_its_end() -> None:
    labels = torch.zeros(3, H, W, dtype=torch.int64)
    labels[1, 3:6, 4:8] = 1
    found = flicker(black(3), labels, flow=still)
    assert not found[0].any()
    assert (found[1] == (labels[1] == 1)).all()
    # back to class 0: the rim of the square has class 0 beside it in the frame before
    expected = torch.zeros(H, W, dtype=torch.bool)
    expected[4, 5:7] = True
    assert (found[2] == expected).all()


def test_a_border_that_is_off_by_one_pixel_does_not_flicker_and_by_two_does() -> None:
    labels = torch.zeros(2, H, W, dtype=torch.uint8)
    labels[0, :, 6:], labels[1, :, 5:] = 1, 1
    assert not flicker(black(2), labels, flow=still).any()
    labels[1, :, 4:] = 1
    assert flicker(black(2), labels, flow=still)[1].sum(dim=0).nonzero().flatten().tolist() == [4]


def test_labels_that_move_as_the_flow_says_do_not_flicker() -> None:
    labels = torch.zeros(4, H, W, dtype=torch.uint8)
    for t in range(4):
        labels[t, 2:5, 2 + 2 * t : 5 + 2 * t] = 3

    def right_by_two(source: Tensor, target: Tensor) -> Tensor:
        motion = still(source, target)
        motion[:, 0] = -2  # from each frame to the one before
        return motion

    assert not flicker(black(4), labels, flow=right_by_two).any()
    assert flicker(black(4), labels, flow=still).any()


def test_where_nothing_is_known_nothing_flickers() -> None:
    labels = torch.zeros(2, H, W, dtype=torch.uint8)
    labels[1] = 1
    labels[0, :2], labels[1, -2:] = 255, 255
    found = flicker(black(2), labels, flow=still)
    assert found[1, 2:-2].all()
    assert not found[1, :2].any()
    assert not found[1, -2:].any()

    def from_outside(source: Tensor, target: Tensor) -> Tensor:
        return torch.full((len(source), 2, H, W), 100.0)

    assert not flicker(black(2), labels, flow=from_outside).any()


def test_it_is_the_definition_pixel_by_pixel() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 6, (4, H, W), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    motion = torch.randint(-3, 4, (3, 2, H, W), generator=generator).float()
    calls = iter(motion.split(3))
    found = flicker(black(4), labels, flow=lambda source, target: next(calls))
    assert (found == in_loops(labels, motion)).all()
    assert 0.05 < found[1:].float().mean() < 0.95


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_any_integers_will_do(dtype: torch.dtype) -> None:
    labels = torch.randint(0, 4, (3, H, W), generator=torch.Generator().manual_seed(0))
    assert (flicker(black(3), labels.to(dtype), flow=still) == flicker(black(3), labels, flow=still)).all()


def test_names_of_classes_do_not_matter() -> None:
    labels = torch.randint(0, 4, (3, H, W), generator=torch.Generator().manual_seed(0))
    renamed = torch.tensor([7, 2, 9, 4])[labels]
    assert (flicker(black(3), renamed, flow=still) == flicker(black(3), labels, flow=still)).all()


def test_the_flow_leads_from_each_frame_to_the_one_before() -> None:
    frames = black(3)
    frames[:] = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None, None]
    seen = []

    def remember(source: Tensor, target: Tensor) -> Tensor:
        seen.append((source[:, 0, 0, 0].tolist(), target[:, 0, 0, 0].tolist()))
        return still(source, target)

    flicker(frames, torch.zeros(3, H, W, dtype=torch.uint8), flow=remember)
    assert [(pytest.approx(source), pytest.approx(target)) for source, target in seen] == [([0.2, 1], [0, 0.2])]


def test_a_real_flow_finds_the_square_that_flashes_on_a_moving_ground() -> None:
    ground = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(1))
    wide = torch.nn.functional.interpolate(ground, size=(48, 80), mode="bicubic").clamp(0, 1)
    frames = torch.stack([(wide[0, :, :, t : t + 64] * 255).to(torch.uint8) for t in range(4)])
    labels = torch.stack([(torch.arange(t, t + 64) // 20)[None].expand(48, 64) for t in range(4)]).clone()
    quiet = flicker(frames, labels, flow=FarnebackFlow())
    labels[2, 10:20, 30:36] = 5
    flashing = flicker(frames, labels, flow=FarnebackFlow())
    assert quiet.float().mean() < 0.02
    assert flashing[2, 10:20, 30:36].all()


def test_a_long_video_is_read_sixteen_frames_at_a_time_and_nothing_is_lost_between() -> None:
    length, slices = 2 * PAIRS_AT_ONCE + 5, []
    labels = torch.zeros(length, H, W, dtype=torch.uint8)
    labels[::2] = 1

    class Lazy:
        def __init__(self, values: Tensor) -> None:
            self.values = values

        def __len__(self) -> int:
            return length

        def __getitem__(self, index: slice) -> Tensor:
            slices.append(len(self.values[index]))
            return self.values[index]

    found = flicker(Lazy(black(length)), Lazy(labels), flow=still)
    assert max(slices) == 16
    assert found.shape == (length, H, W)
    assert found[1:].all()


@pytest.mark.parametrize(("length", "h", "w"), [(0, 4, 4), (1, 4, 4), (2, 1, 1), (3, 1, 7), (3, 2, 2)])
def test_the_smallest_videos_have_a_flicker_too(length: int, h: int, w: int) -> None:
    found = flicker(black(length, h=h, w=w), torch.zeros(length, h, w, dtype=torch.uint8), flow=FarnebackFlow())
    assert len(found) == length
    assert not found.any()


@pytest.mark.parametrize(
    ("frames", "labels", "error", "message"),
    [
        (black(3), torch.zeros(2, H, W, dtype=torch.uint8), ShapeError, "labels: expected 3 label maps"),
        (black(2), torch.zeros(2, H, 5, dtype=torch.uint8), ShapeError, "labels: expected"),
        (black(2)[:, :1], torch.zeros(2, H, W, dtype=torch.uint8), ShapeError, "frames: expected"),
        (black(2).float(), torch.zeros(2, H, W, dtype=torch.uint8), DTypeError, "frames: expected uint8"),
        (black(2), torch.zeros(2, H, W), DTypeError, "labels: expected integer"),
    ],
)
def test_what_does_not_fit_is_refused(frames: Tensor, labels: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        flicker(frames, labels, flow=still)
