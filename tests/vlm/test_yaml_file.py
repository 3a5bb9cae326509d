from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvcseg.errors import DataError
from mvcseg.vlm.yaml_file import LARGEST_FILE, Located, read_yaml, text_at


def plain(found: Located) -> object:
    """The value without places."""
    if isinstance(found.value, list):
        return [plain(item) for item in found.value]
    if isinstance(found.value, dict):
        return {key: plain(item) for key, item in found.value.items()}
    return found.value


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_values_are_what_a_reader_takes_them_for(tmp_path: Path) -> None:
    text = "[river, on, no, 2024-01-01, 12:30, <<, 0x1F, 37, -2, '37', 1.5, 2e3, true, ~, null, '', é]"
    assert plain(read_yaml(written(tmp_path, text))) == [
        *("river", "on", "no", "2024-01-01", "12:30", "<<", "0x1F"),
        *(37, -2, "37", 1.5, 2000.0, True, None, None, "", "é"),
    ]


@pytest.mark.parametrize("indent", [None, 1, "\t"])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_json_is_read_too(tmp_path: Path, indent: int | str | None, is_ascii: bool) -> None:
    value = {"a": [1, 2.5, True, None, 'quote " and \\ and \t tab', "wave \U0001f30a / é"], "b": {}}
    assert plain(read_yaml(written(tmp_path, json.dumps(value, indent=indent, ensure_ascii=is_ascii)))) == value


def test_every_value_knows_its_line(tmp_path: Path) -> None:
    found = read_yaml(written(tmp_path, "# a comment\n- noun: water\n  classes:\n    - river\n    - lake\n"))
    assert isinstance(found.value, list)
    entry = found.value[0].value
    assert isinstance(entry, dict)
    assert isinstance(entry["classes"].value, list)
    places = [entry["noun"].place, *(item.place for item in entry["classes"].value)]
    assert [place.removeprefix(str(tmp_path)) for place in places] == [f"/file.yaml, line {line}" for line in (2, 4, 5)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: expected each key once, got 'a' again"),
        ("a: &x [1]\nb: *x\n", "line 2: no YAML that is read here: aliases"),
        ("a: 1\nb: !!python/object/apply:os.system ['ls']\n", "line 2: expected no tag, got .*os.system"),
        ("a: !!binary aGk=", "line 1: expected no tag"),
        ("a: !!int river", "line 1: expected a number, got 'river'"),
        ("- a\n- [b, c\n- d: e\n", "line 3: no YAML that is read here"),
        ("a: 1\n\tb: 2\n", "line 2: no YAML"),
        ("a: 1\n---\nb: 2\n", "line 2: no YAML.*another document"),
        ("a: 1\nb: \x07\n", "line 2: expected text, got the character 0x0007"),
        (b"a: 1\nb: \xff\n", "line 2: expected UTF-8, got byte 0xff"),
        ("1: a\n", "line 1: expected a text as key, got 1"),
        ("? [a]\n: b\n", "line 1: expected a text as key, got a list of 1"),
        ("", "got an empty file"),
        ("# nothing\n", "got an empty file"),
        ('a: "\\ud83c"\n', "line 1: expected a text, got half a character"),
        ("[" * 30_000, "too deep"),
        ("a: " + "b" * LARGEST_FILE, "expected at most 200,000 bytes"),
    ],
)
def test_what_is_not_read_is_named_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"file.yaml.*{message}") as raised:
        read_yaml(written(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_many_aliases_cost_nothing(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    with pytest.raises(DataError, match=r"line 2: .*aliases"):
        read_yaml(written(tmp_path, "\n".join(lines)))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        read_yaml(tmp_path)


def test_text_under_a_key_is_a_text(tmp_path: Path) -> None:
    entry = read_yaml(written(tmp_path, "name: a\nnumber: 3\nempty: ' '\n"))
    assert text_at(entry, "name") == "a"
    assert text_at(entry, "other", default="b") == "b"
    for key, message in (
        ("number", "line 2: number: expected a text, got 3"),
        ("empty", "line 3: empty"),
        ("none", "'none'"),
    ):
        with pytest.raises(DataError, match=message):
            text_at(entry, key)
