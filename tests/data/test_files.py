"""Writing aside: complete files under final names, or none."""

from __future__ import annotations

import os
import resource
import signal
import threading
from pathlib import Path

import pytest

from mvcseg.data.files import read_json, read_text, remove_stale_parts, shown, write_aside, write_json, write_text
from mvcseg.errors import DataError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    with write_aside(target) as part:
        part.write_text("whole")
        assert not target.exists()
        assert part.parent == target.parent
        assert part.name.startswith(".")
        assert part.suffix == ".txt"
    assert target.read_text() == "whole"
    assert names(target.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_block_leaves_the_older_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with write_aside(target) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "x"


def test_the_longest_and_non_utf8_names_can_be_written(tmp_path: Path) -> None:
    for name in (b"x" * 251 + b".txt", b"\xff\xfe caf\xe9.txt"):
        path = tmp_path / os.fsdecode(name)
        write_text(path, "x")
        assert path.read_text() == "x"


def test_a_folder_of_that_name_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a file name to write to, got a folder or device"):
        write_text(tmp_path, "x")


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(DataError, match="/dev/null: expected a file name"):
        write_text("/dev/null", "x")
    assert not Path("/dev/null").is_file()


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(DataError, match=r"f/a\.txt: cannot be written"):
        write_text(tmp_path / "f" / "a.txt", "x")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=r"a\.txt: cannot be written: Permission denied"):
        write_text(tmp_path / "a.txt", "x")


def test_a_read_only_file_system_is_named() -> None:
    with pytest.raises(DataError, match=r"/proc/mvcseg/a\.txt: cannot be written: "):
        write_text("/proc/mvcseg/a.txt", "x")


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    # A limit on file sizes fails where a full disk does: in the middle of a write.
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with pytest.raises(DataError, match=r"a\.txt: cannot be written: File too large"):
            write_text(tmp_path / "a.txt", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert names(tmp_path) == []


def test_an_error_about_another_file_is_not_taken_for_this_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), write_aside(tmp_path / "a.txt"):
        (tmp_path / "other").read_text()


def test_of_many_writers_one_wins_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    texts = [str(number) * 50_000 for number in range(8)]
    threads = [threading.Thread(target=write_text, args=(target, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_text() in texts
    assert names(tmp_path) == ["a.txt"]


def test_parts_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:  # dies inside the block, as a killed run does
        with write_aside(tmp_path / "dead.txt") as part:
            part.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert [name[:6] for name in names(tmp_path)] == [".part-"]
    with write_aside(tmp_path / "alive.txt") as part:
        part.write_text("x")
        remove_stale_parts(tmp_path)
        assert list(tmp_path.iterdir()) == [part]


def test_json_is_ascii_and_comes_back(tmp_path: Path) -> None:
    value = {"name": "caf\u00e9 \udcff", "n": [1, 2.5, None]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_bytes().isascii()


def test_unreadable_text_and_json_are_named(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"ok \xff")
    (tmp_path / "half.json").write_text('{"a": ')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, match in {
        "none": "none: cannot be read: No such file",
        "bytes": "bytes: expected UTF-8 text, got byte 0xff",
        "half.json": r"half\.json: expected JSON, got ",
        "deep.json": r"deep\.json: expected JSON, got ",
    }.items():
        with pytest.raises(DataError, match=match):
            read_json(tmp_path / name)
    (tmp_path / "mark").write_bytes(b"\xef\xbb\xbfx")
    assert read_text(tmp_path / "mark") == "x"


def test_shown_paths_are_one_printable_line() -> None:
    assert shown("a b/\u00e9.png") == "a b/\u00e9.png"
    assert shown("a\nb\udcff\x1b[31m") == "a\\nb\\udcff\\x1b[31m"
