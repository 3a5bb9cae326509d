"""Event files read back with TensorBoard's own reader."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvcseg.errors import DataError, MissingExtraError
from mvcseg.training.tensorboard import RunWriter

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder: Path) -> accumulator.EventAccumulator:
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return events


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(point.step, round(point.value, 6)) for point in read(folder).Scalars(name)]


def test_numbers_are_curves_and_none_leaves_a_gap(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "events") as writer:
        writer.scalars(1, {"loss": 2.0, "loss_masked": None})
        writer.scalars(2, {"loss": 1.5, "loss_masked": 0.5})
    assert curve(tmp_path / "events", "loss") == [(1, 2.0), (2, 1.5)]
    assert curve(tmp_path / "events", "loss_masked") == [(2, 0.5)]


def test_a_picture_is_shown_as_it_lies_on_the_disk(tmp_path: Path) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels).save(tmp_path / "strip.png")
    with RunWriter(tmp_path / "events") as writer:
        writer.picture(7, tmp_path / "strip.png")
    (shown,) = read(tmp_path / "events").Images("strip")
    assert shown.step == 7
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown.encoded_image_string))), pixels)


def test_a_resumed_run_drops_what_was_taken_after_its_checkpoint(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.scalars(step, {"loss": float(step)})
    with RunWriter(tmp_path, done=2) as writer:
        writer.scalars(3, {"loss": 30.0})
    assert curve(tmp_path, "loss") == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_run_that_starts_anew_before_its_first_checkpoint_drops_everything(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.scalars(step, {"loss": float(step)})
    with RunWriter(tmp_path, done=0) as writer:
        writer.scalars(1, {"loss": 10.0})
    assert curve(tmp_path, "loss") == [(1, 10.0)]


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r'tensorboard is not installed: pip install "mvcseg\[train\]"'):
        RunWriter(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/events: cannot be written"):
        RunWriter(tmp_path / "file" / "events")


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "strip.png").write_bytes(content)
    with RunWriter(tmp_path / "events") as writer, pytest.raises(DataError, match=r"strip\.png: expected a picture"):
        writer.picture(1, tmp_path / "strip.png")
