from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvcseg.data.class_list import class_names_of, read_class_list
from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import DataError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_names_follow_the_raw_values_and_void_is_no_class(tmp_path: Path) -> None:
    path = write(tmp_path / "list.json", '{"sea": "2", "others": "0", "wall": "1", "flussbrücke": 3}')
    assert read_class_list(path) == ("wall", "sea", "flussbrücke")


def test_void_need_not_be_listed(tmp_path: Path) -> None:
    assert read_class_list(write(tmp_path / "list.json", '{"b": "2", "a": "1"}')) == ("a", "b")


def test_classes_json_is_a_class_list(tmp_path: Path) -> None:
    path = write(tmp_path / "classes.json", json.dumps({"classes": [{"id": 1, "name": "b"}, {"id": 0, "name": "a"}]}))
    assert read_class_list(path) == ("a", "b")


def test_plain_text_is_one_name_a_line(tmp_path: Path) -> None:
    assert read_class_list(write(tmp_path / "list.txt", "\ufeffroad\r\n\r\n sky  \ntall grass")) == (
        "road",
        "sky",
        "tall grass",
    )


def test_vspw_list_gives_the_124_names(shared_data: Path) -> None:
    assert read_class_list(shared_data / "vspw_meta" / "label_num_dic_final.json") == VSPW_CLASSES


def test_data_set_without_list_has_the_classes_of_vspw(tmp_path: Path) -> None:
    assert class_names_of(tmp_path) == VSPW_CLASSES
    write(tmp_path / "label_num_dic_final.json", '{"a": "1"}')
    assert class_names_of(tmp_path) == ("a",)
    assert class_names_of(tmp_path, classes=write(tmp_path / "other.txt", "b\nc")) == ("b", "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": "1", ', "expected JSON"),
        ("{" + '"a":{' * 100_000, "expected JSON"),
        ('{"a": "1", "a": "2"}', "expected every class once, got a twice"),
        ('{"a": "1", "b": "1"}', "expected every value once, got 1 for a, b"),
        ('{"a": "0", "b": "0", "c": "1"}', "expected every value once, got 0 for a, b"),
        ('{"a": "1", "b": "4"}', "expected the values 1 to 4, missing 2, 3"),
        ('{"a": "-1"}', r"expected a raw mask value from 0 \(void\) to 254 for a, got -1"),
        ('{"a": "one"}', "for a, got one"),
        ('{"a": 1.0}', "for a, got 1.0"),
        ('{"a": true}', "for a, got True"),
        ('{"a": "²"}', "for a, got ²"),
        ('{"a": null}', "for a, got None"),
        ('{"a": {"b": 1}}', "for a, got {'b': 1}"),
        ('{"a": "255"}', "for a, got 255"),
        ("{}", "expected 1 to 254 classes, got 0"),
        ('{"others": "0"}', "expected 1 to 254 classes, got 0"),
        ('{"classes": [{"id": 3, "name": "a"}]}', "expected the ids 0 to K-1"),
        ("", "expected 1 to 254 classes, got 0"),
        ("a\nb\na\n", "expected every class once, got a twice"),
        ("\n".join(f"class {index}" for index in range(255)), "expected 1 to 254 classes, got 255"),
    ],
)
def test_broken_list_names_the_file_and_the_fault(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "broken list", text)
    with pytest.raises(DataError, match=f"broken list: .*{message}"):
        read_class_list(path)


def test_missing_or_binary_list_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        class_names_of(tmp_path, classes=tmp_path / "none.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(DataError, match="binary: expected UTF-8"):
        read_class_list(tmp_path / "binary")


def test_a_plain_list_in_the_folder_is_the_data_sets(tmp_path: Path) -> None:
    assert class_names_of(tmp_path) == VSPW_CLASSES
    write(tmp_path / "classes.txt", "road\nsky\n")
    assert class_names_of(tmp_path) == ("road", "sky")
    write(tmp_path / "label_num_dic_final.json", '{"others": "0", "road": "1", "sky": "2"}')
    assert class_names_of(tmp_path) == ("road", "sky")
    write(tmp_path / "classes.txt", "sky\nroad\n")
    with pytest.raises(DataError, match=r"classes\.txt: names other classes than label_num_dic_final\.json"):
        class_names_of(tmp_path)
