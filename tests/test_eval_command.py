from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mvcseg.cli import main
from mvcseg.vlm import Group, read_groups

NAMES = ["sky", "river", "lake"]


def write_maps(folder: Path, maps: NDArray[np.uint8]) -> None:
    folder.mkdir(parents=True)
    for position, label_map in enumerate(maps):
        Image.fromarray(label_map).save(folder / f"{position:08d}.png")


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of one video in ``set``, and in ``pred`` the truth with a third of the river called a lake."""
    truth = np.repeat(np.array([[1, 2, 2, 2, 3, 3]], dtype=np.uint8), 4, axis=0)[None].repeat(3, axis=0)
    write_maps(tmp_path / "set/data/clip/mask", truth)
    (tmp_path / "set/val.txt").write_text("clip\n")
    names = {"others": "0"} | {name: str(index + 1) for index, name in enumerate(NAMES)}
    (tmp_path / "set/label_num_dic_final.json").write_text(json.dumps(names))
    pred = truth - 1
    pred[:, :, 3] = 2
    write_maps(tmp_path / "pred/clip", pred)
    write_maps(tmp_path / "perfect/clip", truth - 1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(pred: str, *more: str) -> int:
    return main(["eval", pred, "--vspw", "set", "--split", "val", *more])


def test_groups_are_proposed_beside_the_scores(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pred", "--json") == 0
    plain = capsys.readouterr()
    assert run("pred", "--json", "--propose-groups", "groups.yaml") == 0
    captured = capsys.readouterr()
    assert captured.out == plain.out  # the results are what they are without
    assert captured.err == "1 group of look-alike classes proposed, to be read and edited: groups.yaml\n"
    assert read_groups("groups.yaml", class_names=NAMES) == (Group("water", (1, 2)),)
    assert "33.3 %  river / lake" in Path("groups.yaml").read_text()


def test_groups_that_somebody_edited_are_kept(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("groups.yaml").write_text("mine")
    assert run("pred", "--propose-groups", "groups.yaml") == 1
    assert "groups.yaml: is there already" in capsys.readouterr().err
    assert Path("groups.yaml").read_text() == "mine"


def test_no_group_is_proposed_where_nothing_is_confused(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("perfect", "--propose-groups", "groups.yaml") == 0
    assert "no two classes with ground truth are confused by 10 % or more" in capsys.readouterr().err
    assert not Path("groups.yaml").exists()


def test_a_class_without_ground_truth_is_named_and_not_proposed(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"others": "0", **{name: str(index + 1) for index, name in enumerate([*NAMES, "sea"])}}
    Path("set/label_num_dic_final.json").write_text(json.dumps(names))
    for path in Path("pred/clip").iterdir():
        label_map = np.array(Image.open(path))
        label_map[:, 2] = 3  # a column of river is called a sea, which is nowhere
        Image.fromarray(label_map).save(path)
    assert run("pred", "--propose-groups", "groups.yaml") == 0
    told = "left out, no ground truth: sea (12 pixels of river called so)"
    assert told in capsys.readouterr().err.splitlines()
    assert f"# {told}" in Path("groups.yaml").read_text().splitlines()
    assert read_groups("groups.yaml", class_names=[*NAMES, "sea"]) == (Group("water", (1, 2)),)

    for path in Path("pred/clip").iterdir():  # and where nothing else is confused
        label_map = np.array(Image.open(path))
        label_map[:, 3] = 1
        Image.fromarray(label_map).save(path)
    assert run("pred", "--propose-groups", "other.yaml") == 0
    assert capsys.readouterr().err.splitlines() == [
        told,
        "no two classes with ground truth are confused by 10 % or more; no groups are proposed",
    ]
    assert not Path("other.yaml").exists()
