"""What a vision-language model changed, as the list that a page shows: the largest changes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, TypeAlias

from mvcseg.report.text import counted, frame_range, printable, where

OUTCOMES = {
    "confirmed": "confirmed",
    "unclear": "unclear, kept",
    "failed": "no answer, kept",
    "skipped": "not asked, kept",
}
"""What a page says of a region that kept its class, by the status in its row."""
MOST_VIEWS = 12
"""Views listed of a region."""
LONGEST = 400
"""Characters shown of a question, an answer or a reason."""
IN_SIGHT = 6
"""Changed regions that are not folded away."""
MOST = 300
"""Regions listed of those changed and of those kept; of more only the number is said."""
MANY = 50
"""Regions folded away from which they are shortened to ``FEW_VIEWS`` views and ``SHORT`` characters a text."""
FEW_VIEWS, SHORT = 3, 120
ROW_BYTES, VIEW_BYTES, NAME_BYTES = 1100, 500, 150
"""At least what a page needs around the texts of a region, of a view and of a class."""

Row: TypeAlias = Mapping[str, Any]
"""One region as the template shows it."""


def change_list(
    videos: Sequence[tuple[str, Sequence[Mapping[str, object]]]],
    *,
    class_names: Sequence[str],
    colours: Sequence[str],
    max_bytes: int = 1_000_000,
) -> dict[str, object]:
    """Changed and kept regions of all videos, by falling number of pixels changed, and of pixels.

    Where there are many, those folded away are shortened, and of what then exceeds ``max_bytes`` only the number is
    said; a quarter is left to those that kept their class.

    Args:
        videos: name and rows of each video, rows as `PageVideo.changes` describes them.
        class_names: name of each class.
        colours: ``#rrggbb`` of each class.
        max_bytes: bound on what the list takes of a page.

    Returns:
        ``summary`` and ``groups``: heading, rows, whether they are folded away, how many are left out.

    Raises:
        ConfigError: a row has no range of frames.
    """
    rows = [
        _row(row, index, name if len(videos) > 1 else "", class_names, colours)
        for index, (name, changes) in enumerate(videos)
        for row in changes
    ]
    rows.sort(key=lambda row: (-int(str(row["changed_pixels"])), -int(str(row["pixels"]))))
    changed = [row for row in rows if row["applied"]]
    kept = [row for row in rows if not row["applied"]]
    more = changed[IN_SIGHT:]
    short = _shortened if len(more) + len(kept) > MANY else dict
    in_sight = _within(changed[:IN_SIGHT], max_bytes * 3 // 4)
    left = max_bytes - _num_bytes(in_sight)
    more_listed = _within(map(short, more[:MOST]), left - max_bytes // 4)
    kept_listed = _within(map(short, kept[:MOST]), left - _num_bytes(more_listed))
    return {
        "summary": _summary(rows),
        "groups": [
            _group("", in_sight, changed[:IN_SIGHT]),
            _group(f"{counted(len(more), 'more region', 'more regions')} changed, in fewer pixels", more_listed, more),
            _group(
                f"{counted(len(kept), 'region')} that kept {'its' if len(kept) == 1 else 'their'} class",
                kept_listed,
                kept,
            ),
        ],
    }


def _group(heading: str, listed: Sequence[Row], rows: Sequence[Row]) -> dict[str, object]:
    return {"heading": heading, "rows": listed, "left_out": len(rows) - len(listed)}


def _within(rows: Iterable[Row], max_bytes: int) -> list[Row]:
    """The first rows, as many as fit."""
    listed: list[Row] = []
    for row in rows:
        max_bytes -= _num_bytes([row])
        if max_bytes < 0:
            break
        listed.append(row)
    return listed


def _shortened(row: Row) -> dict[str, Any]:
    """A region with fewer views and words."""
    views = [
        {**view, "words": _words(view["words"], SHORT), "reason": _words(view["reason"], SHORT)}
        for view in row["answers"][:FEW_VIEWS]
    ]
    return {**row, "answers": views, **{key: _words(row[key], SHORT) for key in ("question", "answer", "reason")}}


def _num_bytes(rows: Iterable[Row]) -> int:
    """What regions take of a page, at most."""
    total = 0
    for row in rows:
        views, names = row["answers"], [name for name, _ in row["before"]]
        once = [row[key] for key in ("where", "question", "answer", "reason", "to_name", "effect")]
        told = [view[key] for view in views for key in ("name", "words", "reason")]
        texts = [*once, *names, *told, *[row["text"]] * (1 + len(views))]
        total += ROW_BYTES + VIEW_BYTES * len(views) + NAME_BYTES * len(names)
        total += sum(len(escape(printable(text)).encode()) for text in texts)
    return total


def _summary(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    changed = [row for row in rows if row["applied"]]
    pixels = sum(int(str(row["changed_pixels"])) for row in changed)
    kept = Counter(str(row["outcome"]) for row in rows if not row["applied"])
    parts = [f"{number:,} {outcome}" for outcome, number in kept.items()]
    total = f": {counted(pixels, 'pixel')}" if pixels else ""
    return f"{counted(len(changed), 'region')} changed{total}{'; ' if parts else ''}{'; '.join(parts)}."


def _row(
    change: Mapping[str, object], video: int, video_name: str, class_names: Sequence[str], colours: Sequence[str]
) -> dict[str, object]:
    """One region as the template shows it."""
    first, last = frame_range(change.get("frames"), "changes")
    before, after = (_class_of(change.get(key), class_names, colours) for key in ("from", "to"))
    box, status = change.get("region"), str(change.get("status") or "")
    is_applied = status == "changed" if status else bool(after[0]) and after != before
    size = change.get("pixels")
    pixels = size if isinstance(size, int) else 0
    changed = _changed_pixels(change, pixels) if is_applied else 0
    frames = where(first, last)
    return {
        "video": video,
        "first": first,
        "last": last,
        "where": f"{video_name}, {frames[0].lower()}{frames[1:]}" if video_name else frames,
        "text": f"{frames}: {_verdict(status, before[0], after[0])}",
        "box": ",".join(str(int(side)) for side in box) if isinstance(box, Sequence) and len(box) == 4 else "",
        "pixels": pixels,
        "changed_pixels": changed,
        "size": f"{changed:,} of {counted(pixels, 'pixel')} changed" if is_applied else counted(pixels, "pixel"),
        "effect": _effect(change),
        "before": _before(change.get("shares"), class_names, colours) or [before],
        "to_name": after[0],
        "to_colour": after[1],
        "applied": is_applied,
        "outcome": OUTCOMES.get(status, "kept"),
        "answers": _answers(change.get("answers"), first, class_names, colours),
        **{key: _words(change.get(key)) for key in ("question", "answer", "reason")},
    }


def _shares(value: object) -> list[tuple[int, int]]:
    """The classes of a region and their pixels, as far as the row says."""
    pairs = value if isinstance(value, (list, tuple)) else []
    return [
        (each[0], each[1])
        for each in pairs
        if isinstance(each, (list, tuple)) and len(each) == 2 and all(isinstance(number, int) for number in each)
    ]


def _changed_pixels(change: Mapping[str, object], pixels: int) -> int:
    """Pixels that had another class than the one the region was given; all of them where the row does not say."""
    shares, to_class = _shares(change.get("shares")), change.get("to_class")
    if not shares or not isinstance(to_class, int):
        return pixels
    return sum(number for index, number in shares if index != to_class)


def _effect(change: Mapping[str, object]) -> str:
    fixed, broken = change.get("fixed"), change.get("broken")
    if not isinstance(fixed, int) or not isinstance(broken, int):
        return ""
    return f"{counted(fixed, 'pixel')} from wrong to right, {broken:,} from right to wrong"


def _before(value: object, class_names: Sequence[str], colours: Sequence[str]) -> list[tuple[str, str]]:
    """Name and colour of the classes a region had, most pixels first."""
    return [_class_of(index, class_names, colours) for index, _ in _shares(value)]


def _verdict(status: str, before: str, after: str) -> str:
    return f"{before} became {after}" if status == "changed" and after else f"{before}, {OUTCOMES.get(status, 'kept')}"


def _answers(value: object, first: int, class_names: Sequence[str], colours: Sequence[str]) -> list[dict[str, object]]:
    """What each view of a region was answered: the class it names, and the words where they are not just its name."""
    views = [view for view in value if isinstance(view, Mapping)] if isinstance(value, (list, tuple)) else []
    shown: list[dict[str, object]] = []
    for view in views[:MOST_VIEWS]:
        frame = view["frame"] if isinstance(view.get("frame"), int) else first
        name, colour = _class_of(view.get("to"), class_names, colours)
        words = _words(view.get("answer"))
        is_just_the_name = words.strip(" .").casefold() == name.casefold()
        shown.append(
            {
                "frame": frame,
                "where": where(frame, frame),
                "name": name,
                "colour": colour,
                "words": "" if name and is_just_the_name else words or ("" if name else "no answer"),
                "reason": _words(view.get("reason")),
            }
        )
    return shown


def _words(value: object, longest: int = LONGEST) -> str:
    """Text of somebody else's, on one line and not too long."""
    text = printable("" if value is None else value)
    return text if len(text) <= longest else text[:longest] + " …"


def _class_of(value: object, class_names: Sequence[str], colours: Sequence[str]) -> tuple[str, str]:
    """Name and colour of a class given by id or name."""
    if isinstance(value, int) and 0 <= value < len(class_names):
        return class_names[value], colours[value]
    if value in class_names:
        return str(value), colours[list(class_names).index(str(value))]
    return _words(value), "transparent"
