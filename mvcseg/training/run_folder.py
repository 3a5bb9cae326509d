"""The folder of a run: its configuration, its log, its checkpoints; whole at every moment, whenever it is killed.

``config.json`` says what runs, ``log.jsonl`` holds one line a step (and one an evaluation), ``checkpoints/step_N`` the
state after N steps. Each checkpoint is written aside and renamed, so a folder of that name is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from mvcseg.data.files import read_text, remove_stale_parts, shown, write_json, write_text
from mvcseg.errors import CheckpointError, ConfigError, DataError
from mvcseg.training.config import TrainConfig, differing_keys, read_config

CONFIG_FILE = "config.json"
LOG_FILE = "log.jsonl"
CHECKPOINTS = "checkpoints"
MODEL_FILE = "model.safetensors"
MODEL_FOLDER = "model"
"""In place of the file, for a segmenter that writes a folder."""
CLIPS_OF_A_STEP = ("batch_size", "gradient_accumulation")
"""Keys that make up the clips of a step together with the number of processes; a checkpoint knows their product."""
NOT_OF_THE_MODEL = (
    *("checkpoint_every", "eval_every", "eval_split", "eval_clip_length"),
    *("picture_every", "tensorboard", "num_workers"),
)
"""Keys that do not change what is trained."""
RESCUES = ("learning_rate", "clip_gradient", "precision")
"""Keys that a run may need changed to go on where its loss became NaN or its memory full."""
MAY_DIFFER = (*CLIPS_OF_A_STEP, *NOT_OF_THE_MODEL, *RESCUES)
"""Keys that may have other values on resuming."""
KEPT_CHECKPOINTS = 2
"""Checkpoints kept; one more than needed, should the disk lose the newest."""


def check_folder(out: Path, config: TrainConfig, *, resume: bool) -> None:
    """Require a folder that a run may write to: a new or empty one, or on resuming one of the same configuration.

    Raises:
        ConfigError: the folder is in use and ``resume`` is off, or its configuration differs; names the keys.
        DataError: it is no folder.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{shown(out)}: expected a folder for the run, got a file")
    used = out.is_dir() and any(not entry.name.startswith(".part-") for entry in out.iterdir())
    if not used:
        return
    if not resume:
        raise ConfigError(
            f"out: {shown(out)} is not empty; resume=True (--resume) goes on with the run in it, "
            "another folder starts a new one"
        )
    file = out / CONFIG_FILE
    if not file.is_file():
        raise ConfigError(f"out: {shown(out)} holds no run to resume ({CONFIG_FILE} is missing); choose another folder")
    differing = {
        key: values for key, values in differing_keys(config, read_config(file)).items() if key not in MAY_DIFFER
    }
    if differing:
        key, (asked, stored) = next(iter(differing.items()))
        more = f" (also {', '.join(list(differing)[1:])})" if len(differing) > 1 else ""
        raise ConfigError(
            f"{key}: expected {stored!r} as the run in {shown(out)} began with, got {asked!r}{more}; "
            f"resume with {shown(file)}, or start in another folder"
        )


def open_folder(out: Path, config: TrainConfig) -> None:
    """Make the folder, remove what a killed run left half-written, and write the configuration.

    Raises:
        DataError: it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_stale_parts(out)
        # First of all: a run killed before it has a configuration leaves a folder that counts as empty.
        changed = differing_keys(config, read_config(out / CONFIG_FILE)) if (out / CONFIG_FILE).is_file() else None
        if changed is None or changed:
            write_json(out / CONFIG_FILE, config.to_dict())
        for key, (now, before) in (changed or {}).items():
            if key in RESCUES:
                print(f"note: {key} is {now} from here on, it was {before}", file=sys.stderr)
        (out / CHECKPOINTS).mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"{shown(out)}: cannot be written: {error.strerror or error}") from error
    for entry in (out / CHECKPOINTS).iterdir():
        if entry.name.startswith("."):
            shutil.rmtree(entry, ignore_errors=True)


def checkpoint_steps(out: Path) -> list[int]:
    """Steps of the complete checkpoints, in rising order."""
    folder = out / CHECKPOINTS
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name[5:]) for name in names if name.startswith("step_") and name[5:].isdecimal())


def way_on(out: Path) -> str:
    """Where a run that was stopped goes on, in words."""
    steps = checkpoint_steps(out)
    if not steps:
        return "no checkpoint was written yet, --resume starts anew"
    return f"the last good checkpoint is {shown(checkpoint_path(out, steps[-1]))}, --resume goes on from it"


def checkpoint_path(out: Path, step: int) -> Path:
    """Folder of the checkpoint after ``step`` steps."""
    return out / CHECKPOINTS / f"step_{step}"


def part_path(out: Path, step: int) -> Path:
    """Folder in which that checkpoint is written before it is complete; the same on every process of the run."""
    return out / CHECKPOINTS / f".step_{step}.part"


def finish_checkpoint(out: Path, step: int) -> None:
    """Put a written checkpoint on the disk, give it its name and remove all but the newest ones.

    Raises:
        CheckpointError: the disk refuses.
    """
    part, final = part_path(out, step), checkpoint_path(out, step)
    try:
        for path in (*part.rglob("*"), part):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if final.exists():
            shutil.rmtree(final)
        part.replace(final)
    except OSError as error:
        raise CheckpointError(f"{shown(final)}: cannot be written ({error.strerror or error})") from error
    for old in checkpoint_steps(out)[:-KEPT_CHECKPOINTS]:
        # Renamed first: a kill in the middle of the removal leaves no folder that looks complete.
        doomed = part_path(out, old)
        checkpoint_path(out, old).replace(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def cut_log(out: Path, *, last_step: int) -> None:
    """Drop the log's lines after ``last_step``, and a line that a kill left unfinished.

    Raises:
        DataError: the log cannot be read or written.
    """
    file = out / LOG_FILE
    if file.is_file():
        lines = read_text(file).splitlines(keepends=True)
        kept = "".join(line for line in lines if _step_of(line) <= last_step)
        if kept != "".join(lines):
            write_text(file, kept)


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a ``log.jsonl``, or of the one in a run's folder.

    Raises:
        DataError: it cannot be read.
    """
    path = Path(path)
    text = read_text(path / LOG_FILE if path.is_dir() else path)
    return [json.loads(line) for line in text.splitlines() if _step_of(line + "\n") != float("inf")]


@contextmanager
def appended_log(out: Path) -> Iterator[Log]:
    """The log, open for more lines.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        file = (out / LOG_FILE).open("ab", buffering=0)
    except OSError as error:
        raise DataError(f"{shown(out / LOG_FILE)}: cannot be written: {error.strerror or error}") from error
    with file:
        yield Log(file)


class Log:
    """Appends JSON lines, each out of the program before the next step begins."""

    def __init__(self, file: FileIO) -> None:
        self._file = file

    def write(self, **values: Any) -> None:
        """One line.

        Raises:
            DataError: the disk refuses.
        """
        line = (json.dumps(values) + "\n").encode()
        try:
            is_whole = self._file.write(line) == len(line)
        except OSError as error:
            raise DataError(f"{shown(str(self._file.name))}: cannot be written: {error.strerror or error}") from error
        if not is_whole:
            raise DataError(f"{shown(str(self._file.name))}: cannot be written: the disk is full")


def _step_of(line: str) -> float:
    """The step of a complete line; infinity for anything else."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else float("inf")
    except (ValueError, TypeError, KeyError):
        return float("inf")
