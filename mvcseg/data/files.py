"""Files that appear under their final name only when they are complete."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mvcseg.errors import DataError

_PART = re.compile(r"\.part-(?P<host>[0-9a-z]+)-(?P<process>[0-9]+)-[0-9a-f]+(\.[^.]*)?")


def shown(path: str | os.PathLike[str]) -> str:
    """A path as one printable line of text: bytes that are no UTF-8 and control characters appear as escapes."""
    text = os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@contextmanager
def write_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to; the file takes its final name, complete and on the disk, when the block ends well.

    The temporary file is hidden, lies in the final file's folder (made if missing) and has its suffix, with
    a name no other writer uses. Any exception, Ctrl-C included, removes it and leaves an older file
    of the final name as it was. Of several writers at once the last to end wins whole.

    Args:
        path: the final name; a link is followed.

    Yields:
        The temporary path. The block creates the file.

    Raises:
        DataError: the file cannot be written (full disk, read-only folder, a folder of that name); names the
            path and the reason.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with write_aside(folder / "scores.txt") as part:
        ...     _ = part.write_text("0.5")
        >>> [entry.name for entry in folder.iterdir()]
        ['scores.txt']
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(_part_name(target.suffix))
    try:
        # A device or folder must not be replaced by a file: `--out /dev/null` as root would remove it.
        if target.exists() and not target.is_file():
            raise DataError(f"{shown(path)}: expected a file name to write to, got a folder or device")
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        descriptor = os.open(part, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(target)
    except OSError as error:
        if isinstance(error.filename, (str, bytes)) and os.fsdecode(error.filename) not in _ours(part, target):
            raise
        raise DataError(f"{shown(path)}: cannot be written: {error.strerror or error}") from error
    finally:
        # A part that cannot even be looked for (a file stands where its folder should be) must not hide the error.
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file aside, then give it its name.

    Raises:
        DataError: it cannot be written.
    """
    with write_aside(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file (indented, ASCII, final newline) aside, then give it its name.

    Raises:
        DataError: it cannot be written.
    """
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file (a byte order mark is dropped).

    Raises:
        DataError: it is missing, unreadable or no UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(path)}: expected UTF-8 text, got byte {error.object[error.start]:#04x}") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value of a JSON file.

    Raises:
        DataError: it is missing, unreadable or no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown(path)}: expected JSON, got {error}") from error


def remove_stale_parts(folder: str | os.PathLike[str]) -> None:
    """Remove what killed processes of this machine left behind in ``folder``; parts of living ones stay.

    Raises:
        DataError: the folder cannot be read or changed.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            match = _PART.fullmatch(name)
            if match and match["host"] == _host() and not _is_alive(int(match["process"])):
                Path(folder, name).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot be tidied: {error.strerror or error}") from error


def _part_name(suffix: str) -> str:
    # Short whatever the final name's length, so that the longest legal name can be written too.
    return f".part-{_host()}-{os.getpid()}-{secrets.token_hex(6)}{suffix[:32]}"


def _host() -> str:
    return re.sub(r"[^0-9a-z]", "", socket.gethostname().lower())[:32] or "localhost"


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # there os.kill ends the process it asks about
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _ours(part: Path, target: Path) -> set[str]:
    # An error about another file (a frame being read while a video is written) is not about this one.
    return {str(part), str(target), *(str(parent) for parent in target.parents)}
