"""What a training run's folder has to show: the curves of its log, and pictures of what the model said."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

from mvcseg.data.files import read_text, shown
from mvcseg.errors import DataError

LOG_FILE = "log.jsonl"
"""Name of the log in a run's folder."""
PICTURES = "pictures"
"""Name of the folder in it that holds ``step_N.png``."""
CLEAN, MASKED = "loss_clean", "loss_masked"
NOT_SHOWN = {"seconds", "seconds_left"}
"""Numbers of single steps, of which a curve says nothing."""
NAMES = {
    "loss": "loss",
    CLEAN: "loss of clean clips",
    MASKED: "loss of masked clips",
    "loss_ce": "class loss",
    "loss_mask": "mask loss",
    "loss_dice": "dice loss",
    "loss_contrast": "contrastive loss",
}
"""Words for what a log calls a loss, in the order in which losses are shown."""
PACE_NAMES = {"lr": "learning rate", "images_per_second": "images per second"}
"""Words for what comes last."""

Curves = dict[str, list[tuple[float, float]]]
"""Points ``(step, value)`` by name."""


def run_curves(run: str | os.PathLike[str]) -> Curves:
    """Every number of a run's log against its step: losses, then scores, then learning rate and speed.

    Left out are times of single steps, and the loss of clean clips where none were masked, since it is the loss.

    Args:
        run: folder of a training run. Its last line may be one that is still being written.

    Raises:
        DataError: the log is missing or broken; names the line.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / LOG_FILE).write_text('{"step": 1, "lr": 0.1, "loss": 2.0}' + chr(10))
        >>> run_curves(folder)
        {'loss': [(1.0, 2.0)], 'learning rate': [(1.0, 0.1)]}
    """
    raw = _read_log(Path(run) / LOG_FILE)
    if MASKED not in raw:
        raw.pop(CLEAN, None)
    others = [name for name in raw if name not in NAMES and name not in PACE_NAMES and name not in NOT_SHOWN]
    order = [*NAMES, *others, *PACE_NAMES]
    words: Mapping[str, str] = NAMES | PACE_NAMES
    return {words.get(name, name): raw[name] for name in order if name in raw}


def run_pictures(run: str | os.PathLike[str]) -> dict[int, Path]:
    """A run's pictures by step, in rising order; none where it has drawn none."""
    folder = Path(run) / PICTURES
    found = {}
    for file in folder.glob("step_*.png") if folder.is_dir() else ():
        if match := re.fullmatch(r"step_(\d+)", file.stem):
            found[int(match[1])] = file
    return dict(sorted(found.items()))


def _read_log(path: Path) -> Curves:
    curves: Curves = {}
    # the line after the last newline is empty, or one that a running or killed process has not finished
    for number, line in enumerate(read_text(path).split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
            step, values = _finite(row.pop("step")), _numbers(row)
        # integers too large for a float, and brackets nested too deep, are errors of their own
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise DataError(
                f'{shown(path)}: line {number}: expected {{"step": ..., "loss": ...}}, got {line!r:.80}'
            ) from error
        for key, value in values.items():
            curves.setdefault(key, []).append((step, value))
    return curves


def _finite(value: str | float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"no finite number: {number}")
    return number


def _numbers(row: Mapping[str, object]) -> dict[str, float]:
    """What of a row can be drawn: its finite numbers."""
    return {
        key: float(value)
        for key, value in row.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }
