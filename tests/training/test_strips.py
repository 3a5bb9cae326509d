"""Strips of frames, ground truth and prediction, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mvcseg.data.palette import class_colours
from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.report.overlay import overlay
from mvcseg.report.panels import caption_height
from mvcseg.report.runs import run_pictures
from mvcseg.training.strips import LEGEND_GAP, LEGEND_LINE, OPACITY, strip, strip_path, write_strip

COLOURS = class_colours(5)
GAP, LINE = 4, caption_height(1)


def clip(generator: torch.Generator, *, frames: int = 3, size: tuple[int, int] = (20, 30)) -> list[Tensor]:
    """Frames, labels and predictions."""
    maps = [torch.randint(0, 5, (frames, *size), generator=generator, dtype=torch.uint8) for _ in range(2)]
    return [torch.randint(0, 256, (frames, 3, *size), generator=generator, dtype=torch.uint8), *maps]


def panel(picture: Tensor, row: int, column: int, *, size: tuple[int, int] = (20, 30)) -> Tensor:
    """One of the pictures in a strip."""
    top = GAP + LINE + row * (size[0] + LINE + GAP)
    left = GAP + column * (size[1] + GAP)
    return picture[:, top : top + size[0], left : left + size[1]]


def test_time_runs_to_the_right_and_prediction_lies_below_ground_truth(generator: torch.Generator) -> None:
    frames, labels, predictions = clip(generator)
    picture = strip(frames, labels, predictions, colours=COLOURS)
    assert picture.shape == (3, GAP + 3 * (20 + LINE + GAP), GAP + 3 * (30 + GAP))
    for t in range(3):
        assert torch.equal(panel(picture, 0, t), frames[t])
        for row, maps in ((1, labels), (2, predictions)):
            assert torch.equal(panel(picture, row, t), overlay(frames[t], maps[t], colours=COLOURS, opacity=OPACITY))


def test_fractions_are_shown_as_the_bytes_they_came_from(generator: torch.Generator) -> None:
    frames, labels, predictions = clip(generator)
    expected = strip(frames, labels, predictions, colours=COLOURS)
    assert torch.equal(strip(frames.float() / 255, labels, predictions.long(), colours=COLOURS), expected)
    values = torch.tensor([-1.0, 2.0, 0.999]).view(3, 1, 1, 1).expand(3, 3, 20, 30)
    edges = strip(values, labels, predictions, colours=COLOURS)
    assert [int(panel(edges, 0, t).unique()) for t in range(3)] == [0, 255, 255]


def test_a_large_frame_is_averaged_and_its_maps_taken_at_the_centres(generator: torch.Generator) -> None:
    frames, labels, predictions = clip(generator, frames=1, size=(60, 90))
    picture = strip(frames, labels, predictions, colours=COLOURS, max_side=30)
    small = frames[0].float().unflatten(2, (30, 3)).unflatten(1, (20, 3)).mean(dim=(2, 4)).round().to(torch.uint8)
    assert torch.equal(panel(picture, 0, 0), small)
    for row, maps in ((1, labels), (2, predictions)):
        tinted = overlay(small, maps[0, 1::3, 1::3], colours=COLOURS, opacity=OPACITY)
        assert torch.equal(panel(picture, row, 0), tinted)


def test_a_long_clip_is_shown_from_first_to_last(generator: torch.Generator) -> None:
    frames, labels, predictions = clip(generator, frames=9)
    picture = strip(frames, labels, predictions, colours=COLOURS, max_frames=3)
    assert picture.shape[2] == GAP + 3 * (30 + GAP)
    for column, t in enumerate((0, 4, 8)):
        assert torch.equal(panel(picture, 0, column), frames[t])
        for row, maps in ((1, labels), (2, predictions)):
            tinted = overlay(frames[t], maps[t], colours=COLOURS, opacity=OPACITY)
            assert torch.equal(panel(picture, row, column), tinted)


def test_void_shows_the_frame(generator: torch.Generator) -> None:
    frames, labels, predictions = clip(generator)
    picture = strip(frames, torch.full_like(labels, 255), predictions, colours=COLOURS)
    assert torch.equal(panel(picture, 1, 1), frames[1])


def test_names_stand_below_the_colours_that_occur_the_commonest_first() -> None:
    labels = torch.full((1, 20, 60), 3)
    labels[:, :2] = 1
    names = ["sky", "sea", "hill", "lake", "river"]
    arguments = (torch.zeros(1, 3, 20, 60), labels, torch.where(labels == 1, 255, labels))
    picture = strip(*arguments, colours=COLOURS, class_names=names)
    plain = strip(*arguments, colours=COLOURS)
    assert torch.equal(picture[:, : plain.shape[1]], plain)
    legend = picture[:, plain.shape[1] :]
    # too narrow for two names in one line
    assert legend.shape[1:] == (2 * LEGEND_LINE + LEGEND_GAP, 60 + 2 * GAP)
    for line, row in enumerate((3, 1)):
        square = legend[:, line * LEGEND_LINE + 3 : line * LEGEND_LINE + 12, LEGEND_GAP : LEGEND_GAP + 10]
        assert (square == torch.tensor(COLOURS[row])[:, None, None]).all()
        assert legend[:, line * LEGEND_LINE : (line + 1) * LEGEND_LINE, LEGEND_GAP + 14 :].min() < 100


def test_a_strip_of_nothing_but_void_has_no_names() -> None:
    void = torch.full((1, 20, 60), 255)
    named, plain = (
        strip(torch.zeros(1, 3, 20, 60), void, void, colours=COLOURS, class_names=n) for n in ("abcde", None)
    )
    assert torch.equal(named, plain)


def test_the_file_holds_the_picture_and_nothing_else_is_left(tmp_path: Path, generator: torch.Generator) -> None:
    frames, labels, predictions = clip(generator)
    file = strip_path(tmp_path, step=7)
    write_strip(file, frames, labels, predictions, colours=COLOURS)
    assert list(file.parent.iterdir()) == [file]
    assert run_pictures(tmp_path) == {7: file}
    stored = np.asarray(Image.open(file)).transpose(2, 0, 1)
    assert np.array_equal(stored, strip(frames, labels, predictions, colours=COLOURS).numpy())


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, generator: torch.Generator) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"step_7\.png: cannot be written"):
        write_strip(tmp_path / "file" / "step_7.png", *clip(generator), colours=COLOURS)


def test_what_does_not_fit_is_refused(generator: torch.Generator) -> None:
    frames, labels, predictions = clip(generator)
    with pytest.raises(ShapeError, match=r"predictions: expected \(t h w\) with t=3 from frames"):
        strip(frames, labels, predictions[:2], colours=COLOURS)
    with pytest.raises(DTypeError, match="predictions: expected an integer"):
        strip(frames, labels, predictions.float(), colours=COLOURS)
    with pytest.raises(ConfigError, match=r"labels: expected class ids 0\.\.4 or 255"):
        strip(frames, labels.fill_(7), predictions, colours=COLOURS)
    with pytest.raises(ConfigError, match="class_names: expected 5, one a colour, got 2"):
        strip(*clip(generator), colours=COLOURS, class_names=["sky", "sea"])
    with pytest.raises(ConfigError, match="max_frames: expected an integer of at least 1"):
        strip(*clip(generator), colours=COLOURS, max_frames=0)
    with pytest.raises(ConfigError, match="max_side: expected an integer of at least 1"):
        strip(*clip(generator), colours=COLOURS, max_side=0)
