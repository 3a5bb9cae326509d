"""The log of a correction: one record for every tube that was, or would have been, asked about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard, get_args

from mvcseg.data.files import read_json, shown, write_json
from mvcseg.errors import DataError

Status: TypeAlias = Literal["changed", "confirmed", "unclear", "failed", "skipped"]


@dataclass(frozen=True)
class ViewAnswer:
    """What was said about one view of a tube.

    Attributes:
        frame: the frame that was shown.
        image: `images_digest` of the picture of it.
        answer: the text that came back, or None.
        to_class: the class it names; None where it names none.
        to_name: that class's name, or None.
        reason: why it names none; empty where it does.
    """

    frame: int
    image: str
    answer: str | None
    to_class: int | None = None
    to_name: str | None = None
    reason: str = ""

    def row(self) -> dict[str, object]:
        """The answer as JSON holds it."""
        return {
            "frame": self.frame,
            "answer": self.answer,
            "to": self.to_name,
            "to_class": self.to_class,
            "reason": self.reason,
            "image": self.image,
        }


@dataclass(frozen=True)
class Change:
    """What became of one tube.

    Attributes:
        status: ``changed``: its pixels have the class that the answers name; ``confirmed``: they all had it before;
            ``unclear``: an answer names none or several of the classes, or the views disagree; ``failed``: an answer
            that was needed did not come; ``skipped``: it was not asked about. Only ``changed`` changes labels.
        reason: why nothing changed; empty for ``changed`` and ``confirmed``.
        frames: first and last frame, from 0, both included.
        region: left, top, right, bottom over all frames in pixels, right and bottom excluded.
        pixels: pixels of the tube, all frames together.
        key_frame: the frame that was shown first.
        group: the group's noun.
        from_class: the class most of the tube had.
        from_name: the names of its classes, most pixels first, joined by commas.
        shares: every class of the tube before and its pixels, most first.
        to_class: the class the answers agree on; None where they do not.
        to_name: its name, or None.
        question: the text sent.
        answer: the first text that came back, or None.
        image: `images_digest` of what was shown first; empty where nothing was.
        answers: one a view asked about, in order; empty in logs of versions that asked one question only.
        video: name of the video; empty where nobody named it.
    """

    status: Status
    reason: str
    frames: tuple[int, int]
    region: tuple[int, int, int, int]
    pixels: int
    key_frame: int
    group: str
    from_class: int
    from_name: str
    shares: tuple[tuple[int, int], ...]
    to_class: int | None
    to_name: str | None
    question: str
    answer: str | None
    image: str
    answers: tuple[ViewAnswer, ...] = ()
    video: str = ""

    def row(self) -> dict[str, object]:
        """The record as JSON holds it and a report shows it: lists for tuples, names under ``from`` and ``to``."""
        return {
            "video": self.video,
            "status": self.status,
            "reason": self.reason,
            "frames": list(self.frames),
            "region": list(self.region),
            "pixels": self.pixels,
            "key_frame": self.key_frame,
            "group": self.group,
            "from": self.from_name,
            "to": self.to_name,
            "from_class": self.from_class,
            "to_class": self.to_class,
            "shares": [list(share) for share in self.shares],
            "question": self.question,
            "answer": self.answer,
            "image": self.image,
            "answers": [answer.row() for answer in self.answers],
        }


def write_changes(path: str | PathLike[str], changes: Iterable[Change]) -> None:
    """Write a log as a JSON list of `Change.row`; `ReplayVLM` can answer from it.

    Raises:
        DataError: the file cannot be written.
    """
    write_json(path, [change.row() for change in changes])


def add_changes(path: str | PathLike[str], changes: Iterable[Change], *, video: str) -> None:
    """Write the log of one video to a file that may hold other videos' already; theirs stay, in front.

    Records in the file that name no video count as this one's: they are replaced, as are its own.

    Args:
        path: the file; it need not be there.
        changes: what became of this video's tubes; each gets its name.
        video: that name.

    Raises:
        DataError: the file is there and no such log, or cannot be written.
    """
    others = changes_of_others(path, video=video)
    write_changes(path, [*others, *(replace(change, video=video) for change in changes)])


def changes_of_others(path: str | PathLike[str], *, video: str) -> tuple[Change, ...]:
    """What a log holds of other videos than this; nothing where there is no such file.

    Raises:
        DataError: the file is no such log.
    """
    return (
        tuple(change for change in read_changes(path) if change.video not in ("", video)) if Path(path).exists() else ()
    )


def changes_of(changes: Iterable[Change], *, video: str) -> tuple[Change, ...]:
    """The records of one video, and those that name none."""
    return tuple(change for change in changes if change.video in ("", video))


def read_changes(path: str | PathLike[str]) -> tuple[Change, ...]:
    """The log that `write_changes` wrote.

    Raises:
        DataError: the file is missing, no JSON, or not such a log; names the row and the key.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise DataError(f"{shown(path)}: expected a JSON list of changes, got {type(rows).__name__}")
    return tuple(_change(row, origin=f"{shown(path)}: row {number}") for number, row in enumerate(rows))


def _change(row: object, *, origin: str) -> Change:
    if not isinstance(row, Mapping):
        raise DataError(f"{origin}: expected an object, got {type(row).__name__}")
    status = row.get("status")
    if not _is_status(status):
        raise DataError(f"{origin}: status: expected one of {', '.join(get_args(Status))}, got {status!r:.80}")
    first, last = _integers(row, "frames", 2, origin=origin)
    left, top, right, bottom = _integers(row, "region", 4, origin=origin)
    shares = row.get("shares")
    if not _is_list(shares):
        raise DataError(f"{origin}: shares: expected a list of (class, pixels), got {shares!r:.80}")
    pairs = [_integers({"shares": share}, "shares", 2, origin=origin) for share in shares]
    answers = row.get("answers", [])
    if not _is_list(answers):
        raise DataError(f"{origin}: answers: expected a list, got {answers!r:.80}")
    return Change(
        status=status,
        reason=_text(row, "reason", origin=origin),
        frames=(first, last),
        region=(left, top, right, bottom),
        pixels=_integer(row, "pixels", origin=origin),
        key_frame=_integer(row, "key_frame", origin=origin),
        group=_text(row, "group", origin=origin),
        from_class=_integer(row, "from_class", origin=origin),
        from_name=_text(row, "from", origin=origin),
        shares=tuple((index, pixels) for index, pixels in pairs),
        to_class=_integer_or_none(row, "to_class", origin=origin),
        to_name=_text_or_none(row, "to", origin=origin),
        question=_text(row, "question", origin=origin),
        answer=_text_or_none(row, "answer", origin=origin),
        image=_text(row, "image", origin=origin),
        answers=tuple(_view_answer(entry, origin=f"{origin}: answer {n}") for n, entry in enumerate(answers)),
        video=_text({"video": "", **row}, "video", origin=origin),
    )


def _view_answer(row: object, *, origin: str) -> ViewAnswer:
    if not isinstance(row, Mapping):
        raise DataError(f"{origin}: expected an object, got {type(row).__name__}")
    return ViewAnswer(
        frame=_integer(row, "frame", origin=origin),
        image=_text(row, "image", origin=origin),
        answer=_text_or_none(row, "answer", origin=origin),
        to_class=_integer_or_none(row, "to_class", origin=origin),
        to_name=_text_or_none(row, "to", origin=origin),
        reason=_text(row, "reason", origin=origin),
    )


def _text(row: Mapping[str, object], key: str, *, origin: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(f"{origin}: {key}: expected a text, got {value!r:.80}")
    return value


def _text_or_none(row: Mapping[str, object], key: str, *, origin: str) -> str | None:
    return None if row.get(key) is None else _text(row, key, origin=origin)


def _integer_or_none(row: Mapping[str, object], key: str, *, origin: str) -> int | None:
    return None if row.get(key) is None else _integer(row, key, origin=origin)


def _integer(row: Mapping[str, object], key: str, *, origin: str) -> int:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{origin}: {key}: expected an integer, got {value!r:.80}")
    return value


def _integers(row: Mapping[str, object], key: str, count: int, *, origin: str) -> Sequence[int]:
    values = row.get(key)
    if (
        not _is_list(values)
        or len(values) != count
        or any(isinstance(v, bool) or not isinstance(v, int) for v in values)
    ):
        raise DataError(f"{origin}: {key}: expected {count} integers, got {values!r:.80}")
    return values


def _is_status(value: object) -> TypeGuard[Status]:
    return isinstance(value, str) and value in get_args(Status)


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)
