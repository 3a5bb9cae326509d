from __future__ import annotations

import json
from pathlib import Path

from mvcseg.data.vspw_classes import VSPW_CLASSES, VSPW_COLOURS


def test_there_are_124_distinct_names_with_a_colour_each() -> None:
    assert len(set(VSPW_CLASSES)) == len(VSPW_CLASSES) == len(VSPW_COLOURS) == 124
    assert {len(colour) for colour in VSPW_COLOURS} == {3}
    assert all(0 <= channel <= 255 for colour in VSPW_COLOURS for channel in colour)


def test_ids_of_the_water_classes() -> None:
    assert VSPW_CLASSES[35:40] == ("sea", "river", "lake", "waterfall", "water")
    assert (VSPW_CLASSES[0], VSPW_CLASSES[123]) == ("wall", "train")


def test_names_and_colours_are_those_of_the_data_set(shared_data: Path) -> None:
    categories = json.loads((shared_data / "vspw_meta" / "categories.json").read_text())
    entries = {entry["train_id"]: entry for entry in categories if entry["train_id"] != 255}
    assert [entries[index]["name"] for index in range(124)] == list(VSPW_CLASSES)
    assert [tuple(entries[index]["color"]) for index in range(124)] == list(VSPW_COLOURS)
