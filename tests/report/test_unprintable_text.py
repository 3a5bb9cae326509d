"""Text that nobody can print, wherever it enters a page: half surrogates, no UTF-8, control characters."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mvcseg.data import class_colours, write_classes, write_label_map, write_video
from mvcseg.flow import FarnebackFlow
from mvcseg.report import PageVideo, show, write_page
from mvcseg.reporting import report

COLOURS = torch.zeros(3, 3, dtype=torch.uint8)
FRAMES = torch.zeros(2, 3, 8, 12, dtype=torch.uint8)
LABELS = torch.zeros(2, 8, 12, dtype=torch.uint8)
BAD = {
    "no UTF-8": (os.fsdecode(b"enet\xff"), "enet\\udcff"),
    "half a surrogate": ("\ud800bad", "\\ud800bad"),
    "escape": ("a\x1b[31mred", "a\\x1b[31mred"),
    "right to left": ("a\u202egnp.b", "a\\u202egnp.b"),
}


def unprintable(html: str) -> set[str]:
    """Control, format and surrogate characters of the page, but for its line ends and indents."""
    return {char for char in html if unicodedata.category(char) in ("Cc", "Cf", "Cs") and char not in "\n\t"}


def count(html: str, text: str) -> int:
    """Occurrences; JSON doubles a backslash, and a table's first heading starts with a capital."""
    return html.replace("\\\\", "\\").lower().count(text.lower())


def write(folder: Path, text: str) -> str:
    """A page in which every text is ``text``, or has it inside."""
    Image.new("RGB", (12, 8)).save(folder / "1.png")
    view = {"frame": 0, "answer": text, "to": None, "reason": text}
    change = {"frames": [0, 1], "from": text, "to": text + "?", "question": text, "answer": text, "reason": text}
    clip = PageVideo(
        name=text,
        frames=FRAMES,
        predictions={text: LABELS},
        labels=LABELS,
        frame_names=[text, text],
        changes=[change | {"answers": [view]}, change | {"from": 0, "to": text, "status": "changed"}],
    )
    shares = {text: [0.5, 0.25, 1.0]}
    return write_page(
        folder / "page.html",
        title=text,
        videos=[clip, clip],
        class_names=[text, "b", "c"],
        colours=COLOURS,
        scores=[{text: text, text + "mIoU": 0.5, "words": text}],
        class_iou=shares,
        class_steadiness=shares,
        headline=[text],
        worst=[{"video": text, "prediction": text, "frames": (0, 1), "measure": text + i, "score": 0.5} for i in "ab"],
        curves={text: [(0, 1.0), (1, 2.0)]},
        pictures={text: folder / "1.png"},
        notes=[text],
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(("text", "shown"), BAD.values(), ids=BAD)
def test_text_shows_as_escapes_wherever_it_enters(tmp_path: Path, text: str, shown: str) -> None:
    html = write(tmp_path, text)
    assert unprintable(html) == set()
    assert count(html, shown) == count(write(tmp_path, "Wort"), "Wort")
    data = json.loads(html.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])
    assert data["classes"][0]["name"] == data["curves"][0]["name"] == shown
    assert data["videos"][0]["frameNames"] == [shown, shown]
    assert [each["name"] for each in data["videos"][0]["maps"]] == ["ground truth", shown]


def test_lines_become_one(tmp_path: Path) -> None:
    assert "<h1>two lines</h1>" in write(tmp_path, "two\r\nlines")


@pytest.mark.parametrize(("text", "shown"), BAD.values(), ids=BAD)
def test_a_look_has_no_such_text(text: str, shown: str) -> None:
    look = show(FRAMES, {text: LABELS}, class_names=[text])
    assert unprintable(look._repr_html_()) == set()
    assert count(look.html, shown) >= 2


@pytest.mark.parametrize("name", [b"enet\xff", "\u202eenet".encode()])
def test_folders_and_classes_of_such_names_are_reported(tmp_path: Path, name: bytes) -> None:
    names: list[Any] = ["\ud800bad", "sky\x1b"]
    write_video(tmp_path / "clip.mp4", FRAMES.repeat(5, 1, 4, 4), fps=15)
    folder = tmp_path / os.fsdecode(name)
    for index in range(10):
        write_label_map(
            folder / f"{index:08d}.png", torch.zeros(32, 48, dtype=torch.uint8), colours=class_colours(names)
        )
    write_classes(folder, names, class_colours(names))
    path = report(tmp_path / "clip.mp4", [folder], out=tmp_path / "page.html", flow=FarnebackFlow())
    html = path.read_text(encoding="utf-8")
    assert unprintable(html) == set()
    assert "\\ud800bad" in html
