"""The state of a run on the disk and back, with whatever number of processes, through Accelerate."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mvcseg.data.files import shown
from mvcseg.errors import CheckpointError, ConfigError, MissingExtraError
from mvcseg.training import run_folder
from mvcseg.training.config import TrainConfig


def new_accelerator(*, has_idle_parameters: bool) -> Any:
    """An ``Accelerator`` for the processes that ``torchrun`` or ``accelerate launch`` started, else for this one.

    Args:
        has_idle_parameters: whether some trained parameters may get no gradient in a step.

    Raises:
        MissingExtraError: Accelerate is not installed.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError as error:
        raise MissingExtraError.for_package("accelerate", extra="train") from error
    # Without cpu=True several processes on a machine without accelerator would each think they are alone.
    return Accelerator(
        mixed_precision="no",
        cpu=not torch.accelerator.is_available(),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=has_idle_parameters)],
    )


class StepSize:
    """How many clips a step sees, kept with a checkpoint: whoever resumes may make up the number in another way.

    Args:
        config: of the run.
        processes: that train together.
    """

    def __init__(self, config: TrainConfig, *, processes: int) -> None:
        self.clips = config.batch_size * config.gradient_accumulation * processes
        self._told = f"{config.batch_size} * {config.gradient_accumulation} * {processes}"

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint holds of it."""
        return {"clips": self.clips}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Compare with a checkpoint.

        Raises:
            ConfigError: the numbers differ.
        """
        if state["clips"] != self.clips:
            raise ConfigError(
                f"batch_size: expected batch_size * gradient_accumulation * processes = {state['clips']} as the run "
                f"began with, got {self._told} = {self.clips}"
            )


def save_checkpoint(accelerator: Any, out: Path, *, step: int) -> None:
    """Write a checkpoint aside from all processes, then let the first give it its name.

    Raises:
        CheckpointError: the disk refuses.
    """
    from safetensors import SafetensorError

    part = run_folder.part_path(out, step)
    try:
        if accelerator.is_main_process:
            part.mkdir(exist_ok=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(part))
    except (SafetensorError, OSError, RuntimeError) as error:  # torch and safetensors have errors of their own
        raise CheckpointError(f"{shown(part)}: cannot be written ({str(error).splitlines()[0]})") from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        run_folder.finish_checkpoint(out, step)
    accelerator.wait_for_everyone()


def load_newest(accelerator: Any, out: Path) -> int:
    """Load the newest checkpoint, if any.

    Returns:
        Steps done.

    Raises:
        CheckpointError: it is broken; names it.
        ConfigError: its steps see another number of clips.
    """
    steps = run_folder.checkpoint_steps(out)
    if not steps:
        return 0
    from safetensors import SafetensorError

    folder = run_folder.checkpoint_path(out, steps[-1])
    try:
        accelerator.load_state(str(folder))
    except ConfigError:
        raise
    except (
        *(SafetensorError, OSError, RuntimeError, ValueError, KeyError, EOFError),
        *(pickle.UnpicklingError, AttributeError, IndexError, TypeError),  # what bytes that are no pickle lead to
    ) as error:
        if "loading state_dict" in str(error):  # PyTorch's words for whole tensors that do not fit
            lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
            raise ConfigError(
                f"{shown(folder)}: was trained with another model or other classes ({(lines or ['?'])[0]}); resume on "
                "the data and with the segmenter that the run began with"
            ) from error
        raise CheckpointError(
            f"{shown(folder)}: broken ({str(error).splitlines()[0]}); remove this folder to resume from the one before"
        ) from error
    return steps[-1]


@contextmanager
def random_state_kept() -> Iterator[None]:
    """A block after which every random state of the program is what it was before."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - Accelerate sets this one on loading
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002
