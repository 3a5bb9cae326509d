from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcseg.errors import ConfigError, DataError
from mvcseg.vlm import Group, confusion_groups, read_groups, write_groups
from mvcseg.vlm.group_file import told_without_truth
from mvcseg.vlm.prompt import OUTLINE_PROMPT

NAMES = ["sky", "river", "lake", "sea", "other_construction", "on", "7", "lake"]


def written(folder: Path, text: str) -> Path:
    path = folder / "groups.yaml"
    path.write_text(text)
    return path


def test_classes_are_given_by_name_or_id(tmp_path: Path) -> None:
    path = written(tmp_path, "- noun: water\n  classes: [river, 2]\n- {noun: thing, classes: [on, '7', 0]}\n")
    assert read_groups(path, class_names=NAMES) == (Group("water", (1, 2)), Group("thing", (5, 6, 0)))


def test_json_of_earlier_releases_is_read(tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_text(json.dumps([{"noun": "water", "classes": ["river", 2]}], indent=1))
    assert read_groups(path, class_names=NAMES) == (Group("water", (1, 2)),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noun: water\nclasses: [river, sea]\n", "line 1: expected a list of entries such as - {noun"),
        ("[]", "line 1: expected a list of entries .* got an empty list"),
        ("- water\n", "line 1: expected an entry such as"),
        ("- noun: water\n  class: [river]\n", "line 2: expected the keys noun, classes, got 'class'"),
        ("- noun: water\n", "line 1: classes: expected a list .* got none"),
        ("- classes: [river, sea]\n", "line 1: expected 'noun'"),
        ("- noun: [a]\n  classes: [river, sea]\n", "line 1: noun: expected a text, got a list of 1"),
        ("- noun: water\n  classes: river\n", "line 2: classes: expected a list of names of classes or ids, got 'riv"),
        (
            "- noun: water\n  classes:\n  - river\n  - pond\n",
            "line 4: expected the name of a class or an id, got 'pond'",
        ),
        ("- noun: water\n  classes: [river, lake]\n", "line 2: 'lake' is the name of several classes.*2, 7"),
        ("- noun: water\n  classes: [river, 8]\n", "line 2: expected an id from 0 to 7, got 8"),
        ("- noun: water\n  classes: [river, -1]\n", "line 2: expected an id from 0 to 7, got -1"),
        ("- noun: water\n  classes: [river, 1.5]\n", "line 2: expected the name of a class or an id, got 1.5"),
        ("- noun: water\n  classes: [river, true]\n", "line 2: expected the name of a class or an id, got True"),
        ("- noun: a\n  classes: [sky, sea]\n- noun: water\n  classes: [river]\n", "line 3: .*at least two"),
        ("- noun: river\n  classes: [river, sea]\n", "line 1: .*at least two classes to choose from"),
        ("- noun: _\n  classes: [river, sea]\n", "line 1: noun: expected a word"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"groups.yaml, {message}"):
        read_groups(written(tmp_path, text), class_names=NAMES)


def test_written_groups_are_read_back(tmp_path: Path) -> None:
    groups = (Group("body of water: large", (1, 7, 3)), Group("on", (4, 5, 6)))
    write_groups(tmp_path / "g.yaml", groups, class_names=NAMES)
    assert read_groups(tmp_path / "g.yaml", class_names=NAMES) == groups
    text = (tmp_path / "g.yaml").read_text()
    assert "classes: [river, 7, sea]" in text  # two classes are called lake
    assert "other_construction" in text


@pytest.mark.parametrize("name", ["no", "On", "YES", "y", "null", "7", "1.5", "2024-01-01", "a: b", "- a", "é"])
def test_names_that_other_readers_take_for_something_else_are_quoted(tmp_path: Path, name: str) -> None:
    names = ["sea", "lake", name]
    write_groups(tmp_path / "g.yaml", [Group("water", (0, 1, 2))], class_names=names)
    (entry,) = yaml.safe_load((tmp_path / "g.yaml").read_text(encoding="utf-8"))
    assert entry["classes"] == names


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.text(min_size=1).filter(lambda name: name.strip(" _\t\n\r")), min_size=3, max_size=5, unique=True),
    st.text(min_size=1),
)
def test_any_names_are_written_so_that_they_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], noun: str
) -> None:
    try:
        group = Group(noun, (0, 1, 2))
        group.answers(names)
    except ConfigError:
        return
    path = tmp_path_factory.mktemp("groups") / "g.yaml"
    matrix = torch.full((len(names), len(names)), 3)
    write_groups(path, [group], class_names=names, matrix=matrix)
    assert read_groups(path, class_names=names) == (group,)
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))  # and any other reader of YAML reads the same
    assert [(entry["noun"], entry["classes"]) for entry in entries] == [(noun, names[:3])]


def test_shares_of_confusion_stand_beside_the_classes(tmp_path: Path) -> None:
    matrix = torch.tensor([[900, 0, 0, 0], [0, 60, 30, 10], [0, 20, 70, 10], [10, 10, 10, 180]])
    names = ["sky", "river", "lake", "sea"]
    groups = confusion_groups(matrix, class_names=names)
    assert [group.class_ids for group in groups] == [(1, 2, 3)]
    write_groups(tmp_path / "g.yaml", groups, class_names=names, matrix=matrix)
    text = (tmp_path / "g.yaml").read_text()
    # 50 of river's 100 + 90 - 60, 20 of the same, 20 of lake's 100 + 110 - 70
    assert "  #   38.5 %  river / lake\n  #   15.4 %  river / sea\n  #   14.3 %  lake / sea\n" in text
    assert max(map(len, text.splitlines())) <= 110
    assert read_groups(tmp_path / "g.yaml", class_names=names) == groups


def test_example_is_read() -> None:
    names = ["sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "bicyclist"]
    groups = read_groups(Path(__file__).parents[2] / "examples/groups_camvid.yaml", class_names=names)
    assert [group.noun for group in groups] == ["structure", "ground", "vehicle"]


def test_pairs_of_no_group_are_told_where_they_are_confused_as_much(tmp_path: Path) -> None:
    matrix = torch.eye(4) * 100
    for i, j, count in ((0, 1, 30), (1, 2, 20), (2, 3, 25), (0, 3, 1)):
        matrix[i, j] = matrix[j, i] = count
    names = ["sky", "river", "lake", "sea"]
    groups = confusion_groups(matrix, class_names=names)
    assert [group.class_ids for group in groups] == [(0, 1), (2, 3)]
    write_groups(tmp_path / "g.yaml", groups, class_names=names, matrix=matrix)
    assert "in no group together" not in (tmp_path / "g.yaml").read_text()
    matrix[1, 2] = matrix[2, 1] = 40
    write_groups(tmp_path / "g.yaml", groups, class_names=names, matrix=matrix)
    (line,) = (tmp_path / "g.yaml").read_text().partition("in no group together:\n")[2].splitlines()
    assert line.endswith("%  river / lake")
    assert read_groups(tmp_path / "g.yaml", class_names=names) == groups


def test_nothing_to_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="groups: expected at least one"):
        write_groups(tmp_path / "g.yaml", [], class_names=NAMES)
    with pytest.raises(ConfigError, match="ids from 0 to 7"):
        write_groups(tmp_path / "g.yaml", [Group("water", (1, 9))], class_names=NAMES)
    assert not (tmp_path / "g.yaml").exists()


def test_the_question_quoted_is_the_one_that_is_asked(tmp_path: Path) -> None:
    write_groups(tmp_path / "g.yaml", [Group("water", (0, 1))], class_names=["river", "lake"])
    asked, _ = OUTLINE_PROMPT.replace("{stuff}", "{noun}").split("?")
    assert f'"{asked}?"' in (tmp_path / "g.yaml").read_text()


def test_classes_without_ground_truth_are_told_in_plain_words() -> None:
    matrix = torch.zeros(5, 5)
    matrix[0, 4], matrix[1, 4], matrix[2, 4], matrix[3, 4], matrix[0, 0] = 30247, 20, 10, 5, 1
    names = ["river", "sky\n- noun: x", "sea", "pond", "lake"]
    assert told_without_truth(matrix, class_names=names) == [
        "left out, no ground truth: lake (30,247 pixels of river, 20 of sky?- noun: x, 10 of sea called so)"
    ]
