"""Overlays: the mix by hand, lines where classes meet, 255 untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.report import overlay
from mvcseg.report.overlay import LINE_STRENGTH

COLOURS = torch.tensor([[200, 0, 100], [10, 10, 30], [250, 250, 200]], dtype=torch.uint8)


def frames_of(t: int = 2, h: int = 5, w: int = 7) -> torch.Tensor:
    return torch.randint(0, 256, (t, 3, h, w), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def labels_of(t: int = 2, h: int = 5, w: int = 7) -> torch.Tensor:
    return torch.randint(0, 3, (t, h, w), generator=torch.Generator().manual_seed(2))


def test_a_pixel_inside_a_class_is_the_mean_of_frame_and_colour() -> None:
    frame = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    out = overlay(frame, torch.zeros(2, 2, dtype=torch.int64), colours=COLOURS)
    assert out[:, 0, 0].tolist() == [150, 50, 100]


def reference(frame: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float) -> np.ndarray:
    """One frame in floating point, pixel by pixel, from the docstring."""
    out = frame.astype(float).copy()
    height, width = labels.shape
    luma = colours.astype(float) @ [0.299, 0.587, 0.114]
    for y in range(height):
        for x in range(width):
            own = labels[y, x]
            if own == 255:
                continue
            out[:, y, x] = (1 - opacity) * frame[:, y, x] + opacity * colours[own]
            near = [labels[y, x + 1]] if x + 1 < width else []
            near += [labels[y + 1, x]] if y + 1 < height else []
            other = next((each for each in near if each not in (own, 255)), None)
            if other is not None:
                grey = 0 if luma[own] + luma[other] > 200 else 255
                share = opacity * LINE_STRENGTH
                out[:, y, x] = (1 - share) * np.round(out[:, y, x]) + share * grey
    return out


@given(seed=st.integers(0, 1000), opacity=st.floats(0, 1), ignored=st.booleans())
@settings(max_examples=30, deadline=None)
def test_it_agrees_with_a_loop_over_pixels(seed: int, opacity: float, ignored: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    frame = torch.randint(0, 256, (3, 4, 6), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 4 if ignored else 3, (4, 6), generator=generator)
    labels[labels == 3] = 255
    got = overlay(frame, labels, colours=COLOURS, opacity=opacity).numpy().astype(float)
    assert np.abs(got - reference(frame.numpy(), labels.numpy(), COLOURS.numpy(), opacity)).max() <= 2.5


def test_opacity_zero_gives_the_frames_back(device: torch.device) -> None:
    frames = frames_of().to(device)
    assert torch.equal(overlay(frames, labels_of().to(device), colours=COLOURS, opacity=0), frames)


def test_ignored_pixels_keep_the_frame_and_draw_no_line() -> None:
    frames, labels = frames_of(h=6, w=8), torch.zeros(2, 6, 8, dtype=torch.uint8)
    labels[:, 2:4, 3:6] = 255
    out = overlay(frames, labels, colours=COLOURS, opacity=1)
    ignored = (labels == 255)[:, None].expand_as(frames)
    assert torch.equal(out[ignored], frames[ignored])
    assert torch.equal(out[~ignored], COLOURS[0][None, :, None, None].expand_as(frames)[~ignored])


def test_look_alike_classes_are_parted_by_a_line() -> None:
    colours = torch.tensor([[90, 90, 90], [91, 91, 91]], dtype=torch.uint8)
    labels = torch.zeros(4, 6, dtype=torch.int64)
    labels[:, 3:] = 1
    out = overlay(torch.full((3, 4, 6), 90, dtype=torch.uint8), labels, colours=colours)[0]
    line = out[:, 2].float()
    assert (line - out[:, 1].float()).abs().min() > 40
    assert (out[:, [0, 1, 3, 4, 5]].float() - 90).abs().max() <= 1


def test_a_line_between_light_classes_is_dark_and_between_dark_ones_light() -> None:
    colours = torch.tensor([[250, 250, 250], [240, 240, 240], [5, 5, 5], [15, 15, 15]], dtype=torch.uint8)
    labels = torch.tensor([[0, 1, 1, 2, 3, 3]]).expand(3, 6)
    out = overlay(torch.zeros(3, 3, 6, dtype=torch.uint8), labels, colours=colours, opacity=1)[0, 1]
    assert out[0] < 128  # 0 beside 1
    assert out[3] > 128  # 2 beside 3


def test_lines_grow_with_the_frame() -> None:
    labels = torch.zeros(960, 20, dtype=torch.int64)
    labels[480:] = 1
    wide = torch.zeros(960, 960, dtype=torch.int64)
    wide[480:] = 1
    colours = torch.tensor([[90, 90, 90], [91, 91, 91]], dtype=torch.uint8)
    rows = [
        int((overlay(torch.full((3, *each.shape), 90, dtype=torch.uint8), each, colours=colours)[0, :, 0] > 100).sum())
        for each in (labels, wide)
    ]
    assert rows == [1, 3]


def test_one_frame_is_a_video_of_one() -> None:
    frames, labels = frames_of(), labels_of()
    assert torch.equal(overlay(frames[0], labels[0], colours=COLOURS), overlay(frames, labels, colours=COLOURS)[0])


def test_label_type_and_colour_array_do_not_matter() -> None:
    frames, labels = frames_of(), labels_of()
    assert torch.equal(
        overlay(frames, labels, colours=COLOURS), overlay(frames, labels.to(torch.uint8), colours=COLOURS.numpy())
    )


def test_an_empty_video_stays_empty() -> None:
    assert overlay(frames_of(t=0), labels_of(t=0), colours=COLOURS).shape == (0, 3, 5, 7)


def test_arguments_are_not_changed() -> None:
    frames, labels = frames_of(), labels_of()
    before = frames.clone(), labels.clone()
    overlay(frames, labels, colours=COLOURS)
    assert torch.equal(frames, before[0])
    assert torch.equal(labels, before[1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"frames": frames_of().float()}, DTypeError, "frames: expected uint8"),
        ({"frames": frames_of()[:, :2]}, ShapeError, "frames"),
        ({"labels": labels_of()[:1]}, ShapeError, "labels"),
        ({"labels": labels_of().float()}, DTypeError, "labels"),
        ({"labels": labels_of() + 1}, ConfigError, r"expected class ids 0\.\.2 or 255 for 3 colours, got 3"),
        ({"labels": labels_of() - 1}, ConfigError, "got -1"),
        ({"colours": COLOURS.int()}, DTypeError, "colours: expected uint8"),
        ({"colours": COLOURS[:, :2]}, ShapeError, "colours"),
        ({"colours": COLOURS[:0]}, ShapeError, "at least one class"),
        ({"opacity": 1.5}, ConfigError, r"opacity: expected a number in \[0, 1\], got 1.5"),
        ({"opacity": float("nan")}, ConfigError, "opacity"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], error: type[Exception], message: str) -> None:
    arguments = {"frames": frames_of(), "labels": labels_of(), "colours": COLOURS, "opacity": 0.5} | change
    with pytest.raises(error, match=message):
        overlay(arguments.pop("frames"), arguments.pop("labels"), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_arrays_come_back_in_their_layout(axes: tuple[int, ...]) -> None:
    frames, labels = frames_of(), labels_of()
    expected = overlay(frames, labels, colours=COLOURS).numpy().transpose(axes)
    whole = overlay(frames.numpy().transpose(axes), labels.numpy(), colours=COLOURS.numpy())
    assert isinstance(whole, np.ndarray)
    np.testing.assert_array_equal(whole, expected)
    single = overlay(frames[0].numpy().transpose([axis - 1 for axis in axes[1:]]), labels[0], colours=COLOURS)
    np.testing.assert_array_equal(single, expected[0])


def test_an_array_can_be_plotted_as_it_is() -> None:
    figures = pytest.importorskip("matplotlib.figure")
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = overlay(frame, labels_of()[0].numpy().astype(np.uint16), colours=COLOURS)
    drawn = figures.Figure().subplots().imshow(picture)
    np.testing.assert_array_equal(drawn.get_array(), picture)


def test_arrays_that_do_not_fit_are_refused() -> None:
    frame = np.zeros((5, 7, 3), dtype=np.uint8)
    with pytest.raises(ShapeError, match=r"frames: expected \(3 h w\) or \(h w 3\)"):
        overlay(frame, np.zeros((7, 5), dtype=np.uint8), colours=COLOURS)
    with pytest.raises(DTypeError, match="frames: expected uint8"):
        overlay(frame / 255, np.zeros((5, 7), dtype=np.uint8), colours=COLOURS)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="labels: expected an integer"):
        overlay(frame, np.zeros((5, 7)), colours=COLOURS)
