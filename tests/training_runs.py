"""What the tests of training runs share: a small data set, tiny models, runs in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mvcseg.masking import PatchMask
from mvcseg.training import TrainConfig, read_log

TINY: dict[str, Any] = {
    "backbone": {"kind": "swin", "width": 8, "depths": [1, 1, 1, 1], "heads": [1, 1, 2, 2], "window": 2},
    "num_queries": 14,
    "has_reid": True,
    "width": 32,
    "encoder_layers": 1,
    "encoder_hidden": 16,
    "decoder_layers": 1,
    "decoder_hidden": 16,
    "tracker_layers": 1,
    "refiner_layers": 1,
    "hidden": 16,
}
"""A CTVIS segmenter; with the parts below the online and the offline model."""
PARTS: dict[str, dict[str, bool]] = {
    "segmenter": {},
    "tracker": {"has_tracker": True},
    "refiner": {"has_tracker": True, "has_refiner": True},
}


def stage_config(stage: str, **changes: Any) -> TrainConfig:
    """A short run of a stage, half of it guided, with MVC."""
    values: dict[str, Any] = {
        "steps": 4,
        "model": {**TINY, **PARTS[stage]},
        "clip_length": 3,
        "sampling": "consecutive",
        "short_sides": (32,),
        "crop_size": None,
        "batch_size": 2,
        "num_points": 48,
        "learning_rate": 1e-4,
        "weight_decay": 0.05,
        "clip_gradient": 0.01,
        "mask": PatchMask(patch_size=8, ratio=0.5),
        "seed": 5,
        "checkpoint_every": 100,
    }
    return TrainConfig(**{**values, **changes})


RUN = """
import sys
from mvcseg.training import read_config, train
train(read_config(sys.argv[1]), root=sys.argv[2], out=sys.argv[3], resume=True)
"""
SPREAD = (
    """
import accelerate
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from mvcseg.training import loop

def spread(**given):
    # Accelerate asks for accelerators before it spreads weights; its code runs on CPUs too once told to
    alone = accelerate.Accelerator(mixed_precision="no", cpu=True)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, cpu_ram_efficient_loading=False, state_dict_type="SHARDED_STATE_DICT"
    )
    AcceleratorState._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    return alone

loop.new_accelerator = spread
"""
    + RUN
)
"""The same with weights spread over the processes."""
TWO_PROCESSES = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--standalone")


def started(config: Path, root: Path, out: Path, *launcher: str, program: str = RUN) -> subprocess.Popen[bytes]:
    """A run in a process of its own, or in those of a launcher."""
    script = config.with_suffix(".py")
    script.write_text(program)
    return subprocess.Popen(
        [sys.executable, *launcher, str(script), str(config), str(root), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
    )


def finished_run(config: Path, root: Path, out: Path, *launcher: str, program: str = RUN) -> None:
    """A run in processes of its own, to its end."""
    process = started(config, root, out, *launcher, program=program)
    _, messages = process.communicate(timeout=500)
    assert process.returncode == 0, messages.decode()


def untimed(out: Path) -> list[dict[str, Any]]:
    """The log without what the clock tells."""
    clocked = ("seconds", "images_per_second")
    return [{key: value for key, value in line.items() if key not in clocked} for line in read_log(out)]


def assert_same_losses(first: Path, second: Path, *, steps: int) -> None:
    """Equal but for the rounding of sums, to 1e-5."""
    here, there = ([line for line in read_log(out) if "loss" in line] for out in (first, second))
    assert [line["step"] for line in here] == [line["step"] for line in there] == list(range(1, steps + 1))
    for name in ("loss_clean", "loss_masked"):
        assert [line[name] for line in here] == pytest.approx([line[name] for line in there], rel=1e-5)
