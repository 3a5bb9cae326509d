"""Correct the class of a region with a vision-language model's answers, recorded earlier; no model is needed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from mvcseg.vlm import Group, ReplayVLM, correct_labels, read_changes, write_changes

CLASS_NAMES = ["sky", "river", "lake", "sea", "grass"]
ANSWERS = {
    "Is the water in the image a river, lake, sea? Please give me the only answer.": [
        "The water in the image is a lake.",  # asked about the largest region first
        "It could be a river or a lake.",  # names two: changes nothing
    ]
}


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (6, 3, 48, 80), dtype=torch.uint8, generator=generator)
    labels = torch.full((6, 48, 80), 4, dtype=torch.uint8)
    labels[:, 20:, 5:40] = 1  # called a river,
    labels[2, 20:, 5:40] = 3  # and for one frame the sea
    labels[:, 30:, 60:75] = 1

    result = correct_labels(
        video, labels, vlm=ReplayVLM(ANSWERS), groups=[Group("water", (1, 2, 3))], class_names=CLASS_NAMES
    )
    for change in result.changes:
        first, last = change.frames
        print(f"frames {first}-{last}: {change.from_name}, {change.status} {change.to_name or ''}")
        print(f"  {change.question}\n  {change.answer} {change.reason and f'[{change.reason}]'}")
    print("classes before", labels.unique().tolist(), "and after", result.labels.unique().tolist())

    # The log is a file of recorded answers itself: it answers the same run again, region by region.
    with tempfile.TemporaryDirectory() as folder:
        write_changes(log := Path(folder) / "changes.json", result.changes)
        again = correct_labels(
            video, labels, vlm=ReplayVLM(log), groups=[Group("water", (1, 2, 3))], class_names=CLASS_NAMES
        )
        print("replayed to the same log:", again.changes == read_changes(log))


if __name__ == "__main__":
    main()
