"""Label maps of a source that may have no end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mvcseg.causal_prediction import is_causal, predict_causally
from mvcseg.data import read_classes, read_label_map
from mvcseg.errors import ConfigError, DataError, ShapeError
from mvcseg.ops.resize import resize_frames
from mvcseg.tta import View

NAMES = ["low", "middle", "high"]


class Running(nn.Module):
    """Class of a pixel: how many of the frames so far are bright there, at most two."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Dropout()
        self.modes: list[bool] = []
        self.sizes: list[tuple[int, ...]] = []

    def stream_causal(
        self, frames: Iterable[Tensor], *, state: Any = None, output_size: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        assert not torch.is_grad_enabled()
        total: Tensor | None = None
        for frame in frames:
            self.modes.append(self.training or self.inside.training)
            self.sizes.append(tuple(frame.shape))
            bright = (frame[0] > 127).long()
            total = bright if total is None else total + bright
            labels = total.clamp_max(2).to(torch.uint8)[None, None]
            assert output_size is not None
            yield nn.functional.interpolate(labels, size=output_size)[0, 0]


def make_frames(count: int = 4) -> Tensor:
    return torch.randint(0, 256, (count, 3, 12, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def expected_labels(frames: Tensor) -> Tensor:
    return (frames[:, 0] > 127).long().cumsum(dim=0).clamp_max(2).to(torch.uint8)


def run(out: Path, frames: Iterable[Tensor], **options: Any) -> int:
    return predict_causally(
        frames, options.pop("segmenter", None) or Running(), out=out, **{"class_names": NAMES, **options}
    )


def maps(folder: Path) -> Tensor:
    return torch.stack([read_label_map(path) for path in sorted(folder.glob("*.png"))])


def test_every_frame_gets_the_label_map_of_itself_and_those_before(tmp_path: Path) -> None:
    frames = make_frames()
    assert run(tmp_path, frames) == 4
    assert sorted(path.name for path in (tmp_path / "stdin").iterdir()) == [f"{index:08d}.png" for index in range(4)]
    assert torch.equal(maps(tmp_path / "stdin"), expected_labels(frames))
    assert read_classes(tmp_path) == NAMES


def test_a_label_map_is_there_before_the_next_frame_is_asked_for(tmp_path: Path) -> None:
    frames = make_frames()

    def camera() -> Iterator[Tensor]:
        for index, frame in enumerate(frames):
            assert len(list((tmp_path / "door").glob("*.png"))) == index
            yield frame

    assert run(tmp_path, camera(), name="door") == 4


def test_a_source_that_breaks_off_leaves_what_came_before(tmp_path: Path) -> None:
    frames = make_frames()

    def broken() -> Iterator[Tensor]:
        yield from frames[:3]
        raise DataError("stdin: broken after 3 frames (cut short)")

    with pytest.raises(DataError, match="broken after 3 frames"):
        run(tmp_path, broken())
    assert torch.equal(maps(tmp_path / "stdin"), expected_labels(frames[:3]))
    assert not [path for path in (tmp_path / "stdin").iterdir() if "part" in path.name]


def test_a_folder_with_label_maps_is_refused_unread_and_untouched(tmp_path: Path) -> None:
    run(tmp_path, make_frames(2))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def unread() -> Iterator[Tensor]:
        raise AssertionError("read")
        yield

    with pytest.raises(DataError, match=r"stdin: holds label maps already.*choose another"):
        run(tmp_path, unread())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_output_folder_of_other_classes_is_refused(tmp_path: Path) -> None:
    run(tmp_path, make_frames(1), name="one")
    with pytest.raises(DataError, match=r"classes\.json: lists other classes"):
        run(tmp_path, make_frames(1), name="two", class_names=["a", "b", "c"])
    with pytest.raises(DataError, match=r"classes\.json: lists other classes"):
        run(tmp_path, make_frames(1), name="two", raw_ids=True)
    assert read_classes(tmp_path) == NAMES
    assert run(tmp_path, make_frames(1), name="two") == 1


def test_raw_ids_are_one_higher(tmp_path: Path) -> None:
    frames = make_frames()
    run(tmp_path, frames, raw_ids=True)
    assert torch.equal(maps(tmp_path / "stdin"), expected_labels(frames) + 1)
    with pytest.raises(DataError, match="hold raw ids"):
        read_classes(tmp_path)


@pytest.mark.parametrize(
    ("short_side", "long_side", "seen"),
    [(None, None, (12, 20)), (24, None, (24, 40)), (24, 30, (18, 30)), (12, None, (12, 20)), (6, 1333, (6, 10))],
)
def test_the_model_sees_the_size_asked_for_and_labels_keep_the_frames(
    short_side: int | None, long_side: int | None, seen: tuple[int, int], tmp_path: Path
) -> None:
    model = Running()
    run(tmp_path, make_frames(), segmenter=model, short_side=short_side, long_side=long_side)
    assert model.sizes == [(3, *seen)] * 4
    assert maps(tmp_path / "stdin").shape == (4, 12, 20)


def test_a_model_sees_frames_resized_as_a_view_is(tmp_path: Path) -> None:
    frames = make_frames()
    run(tmp_path, frames, short_side=24)
    resized = expected_labels(resize_frames(frames, size=View(2.0).size_of((12, 20))))
    assert torch.equal(maps(tmp_path / "stdin"), resized[:, ::2, ::2])


def test_a_module_labels_in_eval_mode_and_returns_to_its_own(tmp_path: Path) -> None:
    model = Running()
    model.eval()
    model.inside.train()
    run(tmp_path / "a", make_frames(), segmenter=model)
    assert model.modes == [False] * 4
    assert (model.training, model.inside.training) == (False, True)
    with pytest.raises(ShapeError):
        run(tmp_path / "b", [make_frames()[0], make_frames()[1, :, :8]], segmenter=model.train())
    assert model.training
    assert torch.is_grad_enabled()


def test_a_frame_of_another_size_is_named(tmp_path: Path) -> None:
    frames = make_frames()
    with pytest.raises(ShapeError, match=r"frames: expected \(12, 20\) pixels as the first, got \(8, 20\)"):
        run(tmp_path, [frames[0], frames[1], frames[2, :, :8]])
    assert len(maps(tmp_path / "stdin")) == 2


def test_bad_arguments_are_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="class_names: expected 3 as the segmenter has, got 2"):
        run(tmp_path, make_frames(), class_names=NAMES[:2])
    many = Running()
    many.num_classes = 255
    with pytest.raises(ConfigError, match="raw_ids: expected at most 254 classes"):
        run(tmp_path, make_frames(), segmenter=many, class_names=["x"] * 255, raw_ids=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="short_side: expected an integer of at least 1"):
        run(tmp_path, make_frames(), short_side=0)


def test_a_source_without_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="camera: expected at least one frame, got none"):
        run(tmp_path, [], name="camera")


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/stdin: cannot be written: Not a directory"):
        run(tmp_path / "file", make_frames())


def test_a_refiner_needs_the_whole_video() -> None:
    model = Running()
    assert is_causal(model)
    model.refiner = None
    assert is_causal(model)
    model.refiner = nn.Identity()
    assert not is_causal(model)
    assert not is_causal(nn.Identity())
    assert not is_causal(object())
