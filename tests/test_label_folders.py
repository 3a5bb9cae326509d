from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mvcseg.data import class_colours, read_classes, write_classes, write_label_map
from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import ConfigError, DataError
from mvcseg.label_folders import check_apart, folder_for_labels, names_of_classes, predicted_labels, write_labels

NAMES = ("sky", "river", "lake")


@dataclass
class Clip:
    """A video's names; its frames are never read here."""

    name: str = "pan"
    frame_names: tuple[str, ...] = ("00000000", "00000001")

    def __len__(self) -> int:
        return len(self.frame_names)

    def __getitem__(self, index: slice, /) -> Tensor:
        raise AssertionError


LABELS = torch.tensor([[[0, 1], [2, 2]], [[1, 1], [0, 255]]], dtype=torch.uint8)


def test_label_maps_read_back_as_written(tmp_path: Path) -> None:
    write_labels(tmp_path, Clip(), LABELS, class_names=NAMES)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["00000000.png", "00000001.png", "classes.json"]
    for folder in (tmp_path, tmp_path / "pan"):
        assert torch.equal(predicted_labels(folder, Clip())[0:2], LABELS)
    assert tuple(read_classes(tmp_path / "classes.json")) == NAMES


def test_folder_of_another_video_is_refused(tmp_path: Path) -> None:
    folder = folder_for_labels(tmp_path, Clip())
    write_label_map(folder / "00000007.png", LABELS[0], colours=class_colours(NAMES))
    with pytest.raises(DataError, match="holds 1 label maps that are no frame of this video, first 00000007"):
        write_labels(tmp_path, Clip(), LABELS, class_names=NAMES)


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/pan: cannot be made"):
        folder_for_labels(tmp_path / "file", Clip())


def test_names_come_from_the_file_else_from_beside_the_predictions_else_are_vspws(tmp_path: Path) -> None:
    assert names_of_classes([tmp_path]) == VSPW_CLASSES
    write_classes(tmp_path, NAMES, class_colours(NAMES))
    assert names_of_classes([tmp_path]) == names_of_classes([tmp_path / "pan"]) == NAMES
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\n")
    assert names_of_classes([tmp_path], classes=tmp_path / "names.txt") == ("one", "two", "three")


def test_predictions_of_other_classes_are_refused(tmp_path: Path) -> None:
    for folder, names in (("a", NAMES), ("b", ("sky", "river", "sea"))):
        write_classes(tmp_path / folder, names, class_colours(names))
    with pytest.raises(ConfigError, match=r"b/classes\.json lists other classes than .*a/classes\.json"):
        names_of_classes([tmp_path / "a", tmp_path / "b"])


def test_folder_that_is_read_is_not_written_to_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "masks" / "pan").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "masks", target_is_directory=True)
    for out, read in (("masks", "masks/pan"), ("masks", "masks"), ("link", "masks/pan"), ("masks/../link", "masks")):
        with pytest.raises(DataError, match=rf"{out}.*: would be written to, and is what is read as .*{read}"):
            check_apart(tmp_path / out, Clip(), read=[tmp_path / read])
    check_apart(tmp_path / "new", Clip(), read=[tmp_path / "masks" / "pan"])
    check_apart(tmp_path / "masks", Clip(name="other"), read=[tmp_path / "masks" / "pan"])


def test_frames_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "pan").mkdir()
    clip = Clip()
    clip.folder = tmp_path / "pan"  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="would be written to"):
        check_apart(tmp_path, clip, read=[])
