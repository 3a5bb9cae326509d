"""Training steps to measure: plain and with masked video consistency, of each stage of DVIS++ and of the compact model.

A step is forward, backward and AdamW on one batch of random frames, as ``mvcseg train`` takes it: with MVC the clean
loss is back-propagated before the masked pass begins. Mask of 32 pixels, ratio 0.5; float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mvcseg import MVCWrapper, PatchMask
from mvcseg.losses import PixelObjective
from mvcseg.losses.class_memory import ClassMemory
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.dvis import PRESETS, build_dvis
from mvcseg.models.dvis.noise import QueryNoise
from mvcseg.training.groups import published_groups
from mvcseg.training.stage_objective import stage_objective
from mvcseg.training.stages import build_stage

STAGES: dict[str, dict[str, Any]] = {
    "segmenter": {"preset": "vspw_ctvis_r50", "B": 1, "T": 4, "H": 320, "W": 576},
    "tracker": {"preset": "vspw_online_r50", "B": 1, "T": 5, "H": 480, "W": 864},
    "refiner": {"preset": "vspw_offline_r50", "B": 1, "T": 21, "H": 240, "W": 432},
    "compact": {"K": 124, "B": 2, "T": 4, "H": 320, "W": 480},
    "compact_toy": {"K": 12, "B": 4, "T": 4, "H": 192, "W": 192},
}
"""Published models and clip lengths; one clip, as a process of the published runs has; smaller frames.

The compact model has VSPW's classes and, in a second row, the sizes that its shipped checkpoints were trained with.
"""


@dataclass(frozen=True)
class Steps:
    """What is measured of one stage.

    Attributes:
        plain: one plain step.
        mvc: one step with masked video consistency.
        model: the stage or the compact model.
        fixed_bytes: weights, the optimizer's state and the batch.
        clip: the batch's sizes.
    """

    plain: Callable[[], None]
    mvc: Callable[[], None]
    model: nn.Module
    fixed_bytes: int
    clip: dict[str, int]


def build_steps(
    name: str, *, scale: float, device: str = "cpu", num_points: int = 12544, is_guided: bool = False
) -> Steps:
    """Both steps of a stage on one batch, and the bytes that are there before either begins.

    Args:
        name: of ``STAGES``.
        scale: factor on the sides of the frames.
        device: where the step runs.
        num_points: points at which each mask is compared.
        is_guided: the first half of a run, in which the part before assigns targets.
    """
    torch.manual_seed(0)
    numbers = STAGES[name]
    clip = {letter: numbers[letter] for letter in "BT"} | {side: round(numbers[side] * scale) for side in "HW"}
    shape = tuple(clip.values())
    labels = blocks(shape, numbers.get("K", 124)).to(device)
    frames = torch.rand(*shape[:2], 3, *shape[2:]).to(device)
    memory = None
    if "preset" not in numbers:
        model: nn.Module = CompactSegmenter(numbers["K"]).to(device).train()
        objective: Any = PixelObjective()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    else:
        config = PRESETS[numbers["preset"]]
        model = build_stage(build_dvis(config).to(device), noise=QueryNoise("wa") if name == "tracker" else None)
        memory = ClassMemory(config.num_classes, width=config.query_width) if name == "refiner" else None
        stage: Any = model
        objective = stage_objective(stage, num_points=num_points, memory=memory)
        objective = objective.for_step(size=objective.size(labels), progress=0.0 if is_guided else 0.9)
        optimizer = torch.optim.AdamW(published_groups(stage, learning_rate=1e-4, weight_decay=0.05))
    segmenter: Any = model
    mvc = MVCWrapper(segmenter, mask=PatchMask(patch_size=32, ratio=0.5), objective=objective)

    def generators() -> list[torch.Generator]:
        return [torch.Generator(device).manual_seed(number) for number in range(shape[0])]

    def finish() -> None:
        optimizer.step()
        optimizer.zero_grad()
        if memory is not None:
            memory.commit()

    def plain_step() -> None:
        own = objective.with_generators(generators()) if hasattr(objective, "with_generators") else objective
        own(segmenter, frames, labels).backward()
        finish()

    def mvc_step() -> None:
        for term in mvc.loss_terms(frames, labels, generator=generators()):
            term.backward()
        finish()

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    held = [*model.parameters(), *model.buffers(), *trained, *trained, frames, labels]
    return Steps(plain_step, mvc_step, model, sum(each.numel() * each.element_size() for each in held), clip)


def blocks(shape: Sequence[int], num_classes: int) -> Tensor:
    """Label maps of a dozen classes, as a frame of VSPW has."""
    coarse = torch.randint(0, num_classes, (12,))[torch.randint(0, 12, (*shape[:2], 4, 6))]
    rows = torch.arange(shape[2]) * 4 // shape[2]
    columns = torch.arange(shape[3]) * 6 // shape[3]
    return coarse[:, :, rows][..., columns]


def peak_of(step: Callable[[], None], device: str = "cpu") -> int:
    """Most bytes alive at once during a step, above those alive when it begins.

    On the CPU read off the profiler's record of every allocation and release, exact to the byte and the same on a busy
    machine; on CUDA ``max_memory_allocated``.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    alive = peak = 0
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
