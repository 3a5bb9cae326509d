"""One training run: clips in, a compact segmenter out, plainly or with masked video consistency.

Runs on the CPU, one GPU or many through Accelerate (``torchrun`` or ``accelerate launch`` start the processes).
Everything random is keyed by the seed and the step, so a run that was killed goes on with the very losses it would
have had (bit for bit on one CPU; on GPUs as far as their kernels repeat themselves).
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mvcseg.data.clips import Clip, ClipDataset
from mvcseg.data.files import shown
from mvcseg.data.vspw import VSPW, VSPWVideo
from mvcseg.errors import CheckpointError, DataError, MissingExtraError, TrainingError
from mvcseg.inference import predict_labels
from mvcseg.losses import Objective, PixelObjective
from mvcseg.metrics import MeanIoU, VideoConsistency
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.compact_checkpoint import save_compact
from mvcseg.training import run_folder
from mvcseg.training.config import TrainConfig
from mvcseg.training.interrupt import interrupted_after_a_step
from mvcseg.training.schedule import learning_rate_factor, parameter_groups
from mvcseg.training.step import add_gradients


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    Attributes:
        model: the finished model's file, for ``load_compact``.
        steps: steps of the run, those before resuming included.
        scores: ``mIoU``, ``VC8`` and ``VC16`` of the finished model on ``eval_split`` (NaN where no video is long
            enough); empty where the configuration asks for no evaluation.
    """

    model: Path
    steps: int
    scores: dict[str, float]


def train(
    config: TrainConfig,
    *,
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    split: str = "train",
    resume: bool = False,
) -> TrainResult:
    """Train a ``CompactSegmenter`` on a data set in the VSPW layout.

    ``out`` receives ``config.json``; ``log.jsonl`` with a line a step (``step`` from 1, ``loss`` = ``loss_clean`` +
    ``loss_masked``, the latter already times ``mask_weight`` and null without a mask, ``lr``, ``seconds``) and a
    line an evaluation (``step``, ``mIoU``, ``VC8``, ``VC16``); ``checkpoints/step_N``, the last two; and at the end
    ``model.safetensors``, class names inside. A kill at any moment loses the steps since the last checkpoint.

    Args:
        config: the run's numbers.
        root: folder of the data set.
        out: folder of the run, new or empty unless ``resume``.
        split: what to train on.
        resume: go on from the last checkpoint in ``out``; from the start where there is none yet.

    Returns:
        The model's file and its scores.

    Raises:
        ConfigError: ``out`` is in use, or holds a run of another configuration (the message names the keys).
        DataError: the data set, a file of it or ``out`` is missing or broken; names it.
        CheckpointError: the checkpoint to resume from is broken; names it.
        TrainingError: a loss or gradient is NaN or infinite; names the step and the frames.
        MissingExtraError: Accelerate is not installed.
    """
    run = _prepare(config, root=Path(root), out=Path(out), split=split, resume=resume)
    scores = _take_steps(run)
    if not scores and run.judged:  # resumed when nothing but the model's file was missing
        scores = _evaluate(run)
    model = run.out / run_folder.MODEL_FILE
    if run.is_main:
        facts = {"config": config.to_dict(), "split": split, "scores": _jsonable(scores)}
        save_compact(run.segmenter, model, metadata=facts)
    run.accelerator.wait_for_everyone()
    return TrainResult(model=model, steps=config.steps, scores=scores)


@dataclass(frozen=True)
class _Run:
    """What the steps of a run share on one process; ``model`` is ``segmenter`` as Accelerate wraps it."""

    config: TrainConfig
    out: Path
    accelerator: Any
    segmenter: CompactSegmenter
    model: nn.Module
    objective: Objective
    optimizer: Any
    clips: ClipDataset
    judged: Sequence[VSPWVideo]
    first_step: int

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = self.accelerator.device
        return device


def _prepare(config: TrainConfig, *, root: Path, out: Path, split: str, resume: bool) -> _Run:
    """Look at everything, then open the folder and load what an earlier run left there."""
    accelerator = _accelerator()
    run_folder.check_folder(out, config, resume=resume)
    data = VSPW(root, split=split)
    videos = _labelled(data)
    judged = _labelled(VSPW(root, split=config.eval_split)) if config.eval_every else []
    # Every process looks before the first one writes.
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        run_folder.open_folder(out, config)
    accelerator.wait_for_everyone()
    segmenter = _new_segmenter(config, class_names=data.class_names)
    optimizer = torch.optim.AdamW(
        parameter_groups(segmenter, weight_decay=config.weight_decay), lr=config.learning_rate
    )
    model, optimizer = accelerator.prepare(segmenter, optimizer)
    done = _resumed(accelerator, out)
    if accelerator.is_main_process:
        run_folder.cut_log(out, last_step=done)
    clips = _clips(config, videos, world=accelerator.num_processes)
    return _Run(config, out, accelerator, segmenter, model, PixelObjective(), optimizer, clips, judged, first_step=done)


def _take_steps(run: _Run) -> dict[str, float]:
    """All steps that are left, logged and checkpointed; the scores after the last one."""
    config, scores = run.config, dict[str, float]()
    batches = _batches(run)
    with (
        run_folder.appended_log(run.out) if run.is_main else contextlib.nullcontext() as log,
        _progress(run) as bar,
        interrupted_after_a_step(alone=run.accelerator.num_processes == 1) as is_interrupted,
    ):
        for step in range(run.first_step, config.steps):
            start = time.perf_counter()
            rate = config.learning_rate * learning_rate_factor(
                step, steps=config.steps, warm_up=config.warm_up, schedule=config.schedule
            )
            clean, masked = _step(run, batches, step=step, learning_rate=rate)
            seconds = round(time.perf_counter() - start, 4)
            if log is not None:
                losses = {"loss": clean + (masked or 0), "loss_clean": clean, "loss_masked": masked}
                log.write(step=step + 1, **losses, lr=rate, seconds=seconds)
            done, is_last = step + 1, step + 1 == config.steps
            if config.eval_every and (is_last or done % config.eval_every == 0):
                scores = _evaluate(run)
                if log is not None:
                    log.write(step=done, **_jsonable(scores))
            if is_last or done % config.checkpoint_every == 0 or is_interrupted():
                _save(run, step=done)
            if is_interrupted() and not is_last:
                raise KeyboardInterrupt
            bar.set_postfix(
                loss=f"{clean + (masked or 0):.3f}", **{k: f"{v:.3f}" for k, v in scores.items()}, refresh=False
            )
            bar.update()
    return scores


def _labelled(data: VSPW) -> list[VSPWVideo]:
    """The videos of a split that carry labels.

    Raises:
        DataError: there is none.
    """
    videos = [video for video in data if video.has_masks]
    if not videos:
        raise DataError(f"{shown(data.root)}: no video of {data.split}.txt has a mask/ folder to learn from or score")
    return videos


def _accelerator() -> Any:
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise MissingExtraError.for_package("accelerate", extra="train") from error
    # Without cpu=True several processes on a machine without accelerator would each think they are alone.
    return Accelerator(mixed_precision="no", cpu=not torch.accelerator.is_available())


def _new_segmenter(config: TrainConfig, *, class_names: Sequence[str]) -> CompactSegmenter:
    """A model whose weights follow from the seed, the caller's random state left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        segmenter = CompactSegmenter(len(class_names), width=config.width, depth=config.depth, heads=config.heads)
    segmenter.class_names = tuple(class_names)
    return segmenter.train()


def _clips(config: TrainConfig, videos: Sequence[VSPWVideo], *, world: int) -> ClipDataset:
    return ClipDataset(
        videos,
        clip_length=config.clip_length,
        crop_size=config.crop_size,
        strides=config.strides,
        scales=config.scales,
        flip=config.flip,
        colour=config.colour,
        seed=config.seed,
        num_samples=config.steps * config.gradient_accumulation * config.batch_size * world,
    )


def _batches(run: _Run) -> Iterator[Clip]:
    """This process's batches from the first step on; which samples a step holds follows from its number alone."""
    config, size = run.config, run.config.batch_size
    world, rank = run.accelerator.num_processes, run.accelerator.process_index
    first, last = (step * config.gradient_accumulation for step in (run.first_step, config.steps))
    starts = ((batch * world + rank) * size for batch in range(first, last))
    loader = DataLoader(
        run.clips,
        batch_sampler=[list(range(start, start + size)) for start in starts],
        num_workers=config.num_workers,
        pin_memory=run.device.type == "cuda",
        # Its own generator, so that making a loader does not move the one that resuming restores.
        generator=torch.Generator().manual_seed(config.seed),
    )
    return iter(loader)


def _step(run: _Run, batches: Iterator[Clip], *, step: int, learning_rate: float) -> tuple[float, float | None]:
    """One optimizer step; the clean and the masked loss, averaged over clips and processes."""
    config, accelerator = run.config, run.accelerator
    parts = [next(batches) for _ in range(config.gradient_accumulation)]
    samples = [int(sample) for batch in parts for sample in torch.as_tensor(batch.sample).tolist()]
    losses = add_gradients(
        run.model,
        parts,
        objective=run.objective,
        mask=config.mask,
        mask_weight=config.mask_weight,
        seed=config.seed,
        progress=step / config.steps,
        bfloat16=config.precision == "bf16",
        accelerator=accelerator,
    )
    _require_finite(run, "loss", losses, samples, step=step)
    if config.clip_gradient is not None:
        norm = accelerator.clip_grad_norm_(run.model.parameters(), config.clip_gradient)
        _require_finite(run, "norm of the gradient", norm, samples, step=step)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate
    run.optimizer.step()
    run.optimizer.zero_grad()
    clean, masked = accelerator.reduce(losses, reduction="mean").tolist()
    return clean, masked if config.mask else None


def _require_finite(run: _Run, what: str, value: Tensor, samples: Sequence[int], *, step: int) -> None:
    """Stop on every process at once where a value is NaN or infinite on any of them."""
    here = bool(torch.isfinite(value).all())
    everywhere = run.accelerator.reduce(torch.tensor(float(here), device=run.device), reduction="mean")
    if float(everywhere) < 1:
        sources = "; ".join(str(run.clips.source(sample)) for sample in samples)
        where = sources if not here else "frames of another process"
        raise TrainingError(
            f"step {step + 1}: the {what} is not finite ({where}); lower learning_rate, set clip_gradient, "
            "or look at these frames and labels"
        )


def _evaluate(run: _Run) -> dict[str, float]:
    """mIoU, VC8 and VC16 over all videos, each process taking its share."""
    from accelerate.utils import gather_object

    miou = MeanIoU(run.segmenter.num_classes)
    consistencies = {length: VideoConsistency(length) for length in (8, 16)}
    for video in run.judged[run.accelerator.process_index :: run.accelerator.num_processes]:
        pred = predict_labels(run.segmenter, video.frames, clip_length=run.config.eval_clip_length)
        labels, raw_labels = video.labels, video.raw_labels
        if labels is not None and raw_labels is not None:
            miou.update(pred, labels)
            for consistency in consistencies.values():
                consistency.update(pred, raw_labels)
    if run.accelerator.num_processes > 1:
        everyone = gather_object([(miou, consistencies)])
        miou, consistencies = everyone[0]
        for other_miou, others in everyone[1:]:
            miou.merge(other_miou)
            for length, consistency in consistencies.items():
                consistency.merge(others[length])
    scores = {f"VC{length}": consistency.compute() for length, consistency in consistencies.items()}
    return {"mIoU": miou.compute(), **scores}


def _save(run: _Run, *, step: int) -> None:
    """Write a checkpoint aside from all processes, then let the first give it its name."""
    from safetensors import SafetensorError

    part = run_folder.part_path(run.out, step)
    try:
        if run.is_main:
            part.mkdir(exist_ok=True)
        run.accelerator.wait_for_everyone()
        run.accelerator.save_state(str(part))
    except (SafetensorError, OSError, RuntimeError) as error:  # torch and safetensors have errors of their own
        raise CheckpointError(f"{shown(part)}: cannot be written ({str(error).splitlines()[0]})") from error
    run.accelerator.wait_for_everyone()
    if run.is_main:
        run_folder.finish_checkpoint(run.out, step)
    run.accelerator.wait_for_everyone()


def _resumed(accelerator: Any, out: Path) -> int:
    """Steps done, the state after them loaded."""
    steps = run_folder.checkpoint_steps(out)
    if not steps:
        return 0
    from safetensors import SafetensorError

    folder = run_folder.checkpoint_path(out, steps[-1])
    try:
        accelerator.load_state(str(folder))
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise CheckpointError(
            f"{shown(folder)}: broken ({str(error).splitlines()[0]}); remove this folder to resume from the one before"
        ) from error
    return steps[-1]


def _progress(run: _Run) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=run.config.steps,
        initial=run.first_step,
        desc="train",
        unit="step",
        delay=2,
        # A file or pipe keeps every redraw as a line, so there the bar is drawn twice a minute.
        mininterval=0.2 if sys.stderr.isatty() else 30,
        file=sys.stderr,
        disable=not run.is_main,
    )


def _jsonable(scores: dict[str, float]) -> dict[str, float | None]:
    """The scores with null, which JSON has, for NaN, which it has not."""
    return {name: None if math.isnan(value) else value for name, value in scores.items()}
