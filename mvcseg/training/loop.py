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

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mvcseg.data.clips import Clip, ClipDataset
from mvcseg.data.files import shown
from mvcseg.data.vspw import VSPW, VSPWVideo
from mvcseg.errors import CheckpointError, DataError, MissingExtraError, TrainingError
from mvcseg.inference import predict_labels
from mvcseg.losses import PixelObjective
from mvcseg.metrics import MeanIoU, VideoConsistency
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.compact_checkpoint import save_compact
from mvcseg.mvc import MVCWrapper
from mvcseg.training import run_folder
from mvcseg.training.config import TrainConfig
from mvcseg.training.schedule import learning_rate_factor, parameter_groups


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
    out = Path(out)
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
    batches = _batches(clips, config, accelerator, first_step=done)

    scores: dict[str, float] = {}
    is_main = accelerator.is_main_process
    with (
        run_folder.appended_log(out) if is_main else contextlib.nullcontext() as log,
        _progress(config.steps, done, is_main=is_main) as bar,
    ):
        for step in range(done, config.steps):
            start = time.perf_counter()
            factor = learning_rate_factor(step, steps=config.steps, warm_up=config.warm_up, schedule=config.schedule)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * factor
            losses = _step(model, optimizer, accelerator, config, batches, clips, step=step)
            if log is not None:
                log.write(
                    step=step + 1,
                    loss=sum(losses),
                    loss_clean=losses[0],
                    loss_masked=losses[1] if config.mask else None,
                    lr=config.learning_rate * factor,
                    seconds=round(time.perf_counter() - start, 4),
                )
            shown_scores = {key: f"{value:.3f}" for key, value in scores.items()}
            bar.set_postfix(loss=f"{sum(losses):.3f}", **shown_scores, refresh=False)
            bar.update()
            is_last = step + 1 == config.steps
            if config.eval_every and (is_last or (step + 1) % config.eval_every == 0):
                scores = _evaluate(segmenter, judged, config, accelerator)
                if log is not None:
                    log.write(step=step + 1, **{key: _null_if_nan(value) for key, value in scores.items()})
            if is_last or (step + 1) % config.checkpoint_every == 0:
                _save(accelerator, out, step=step + 1)
    if not scores and judged:
        scores = _evaluate(segmenter, judged, config, accelerator)
    if is_main:
        facts = {
            "config": config.to_dict(),
            "split": split,
            "scores": {key: _null_if_nan(value) for key, value in scores.items()},
        }
        save_compact(segmenter, out / run_folder.MODEL_FILE, metadata=facts)
    accelerator.wait_for_everyone()
    return TrainResult(model=out / run_folder.MODEL_FILE, steps=config.steps, scores=scores)


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


def _batches(clips: ClipDataset, config: TrainConfig, accelerator: Any, *, first_step: int) -> Iterator[Clip]:
    """This process's batches from a step on; which samples a step holds follows from its number alone."""
    world, rank, size = accelerator.num_processes, accelerator.process_index, config.batch_size
    first, last = (step * config.gradient_accumulation for step in (first_step, config.steps))
    starts = ((batch * world + rank) * size for batch in range(first, last))
    indices = [list(range(start, start + size)) for start in starts]
    loader = DataLoader(
        clips,
        batch_sampler=indices,
        num_workers=config.num_workers,
        pin_memory=accelerator.device.type == "cuda",
        # Its own generator, so that making a loader does not move the one that resuming restores.
        generator=torch.Generator().manual_seed(config.seed),
    )
    return iter(loader)


def _step(
    model: nn.Module,
    optimizer: Any,
    accelerator: Any,
    config: TrainConfig,
    batches: Iterator[Clip],
    clips: ClipDataset,
    *,
    step: int,
) -> list[float]:
    """One optimizer step; the clean and the masked loss, averaged over clips and processes."""
    device: torch.device = accelerator.device
    terms_each = 2 if config.mask else 1
    sums = torch.zeros(2, device=device, dtype=torch.float64)
    samples: list[int] = []
    for part in range(config.gradient_accumulation):
        batch = next(batches)
        samples += batch.sample.tolist() if isinstance(batch.sample, Tensor) else [batch.sample]
        frames, labels = (tensor.to(device, non_blocking=True) for tensor in (batch.frames, batch.labels))
        key = (config.seed, step, part, accelerator.process_index)
        terms = _loss_terms(model, config, frames, labels, generator=_keyed_generator(key, device))
        for number in range(terms_each):
            is_last = part + 1 == config.gradient_accumulation and number + 1 == terms_each
            # Gradients add up on each process; only the step's last backward averages them over processes.
            with contextlib.nullcontext() if is_last else accelerator.no_sync(model):
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
                    term = next(terms) / config.gradient_accumulation
                accelerator.backward(term)
            sums[number] += term.detach()
    _require_finite("loss", sums, accelerator, clips, samples, step=step)
    if config.clip_gradient is not None:
        norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_gradient)
        _require_finite("norm of the gradient", norm, accelerator, clips, samples, step=step)
    optimizer.step()
    optimizer.zero_grad()
    return [float(value) for value in accelerator.reduce(sums, reduction="mean").tolist()]


def _loss_terms(
    model: nn.Module, config: TrainConfig, frames: Tensor, labels: Tensor, *, generator: torch.Generator
) -> Iterator[Tensor]:
    segmenter: Any = model
    if config.mask is None:
        yield PixelObjective()(segmenter, frames, labels)
    else:
        mvc = MVCWrapper(segmenter, mask=config.mask, weight=config.mask_weight)
        yield from mvc.loss_terms(frames, labels, generator=generator)


def _keyed_generator(key: tuple[int, ...], device: torch.device) -> torch.Generator:
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(seed >> 1)


def _require_finite(
    what: str, value: Tensor, accelerator: Any, clips: ClipDataset, samples: Sequence[int], *, step: int
) -> None:
    """Stop on every process at once where a value is NaN or infinite on any of them."""
    here = bool(torch.isfinite(value).all())
    everywhere = accelerator.reduce(torch.tensor(float(here), device=accelerator.device), reduction="mean")
    if float(everywhere) < 1:
        sources = "; ".join(str(clips.source(sample)) for sample in samples)
        where = sources if not here else "frames of another process"
        raise TrainingError(
            f"step {step + 1}: the {what} is not finite ({where}); lower learning_rate, set clip_gradient, "
            "or look at these frames and labels"
        )


@torch.no_grad()
def _evaluate(
    segmenter: CompactSegmenter, videos: Sequence[Any], config: TrainConfig, accelerator: Any
) -> dict[str, float]:
    """mIoU, VC8 and VC16 over all videos, each process taking its share."""
    from accelerate.utils import gather_object

    miou = MeanIoU(segmenter.num_classes)
    consistencies = {length: VideoConsistency(length) for length in (8, 16)}
    for video in videos[accelerator.process_index :: accelerator.num_processes]:
        pred = predict_labels(segmenter, video.frames, clip_length=config.eval_clip_length)
        miou.update(pred, video.labels[:])
        for consistency in consistencies.values():
            consistency.update(pred, video.raw_labels[:])
    if accelerator.num_processes > 1:
        everyone = gather_object([(miou, consistencies)])
        miou, consistencies = everyone[0]
        for other_miou, others in everyone[1:]:
            miou.merge(other_miou)
            for length, consistency in consistencies.items():
                consistency.merge(others[length])
    scores = {f"VC{length}": consistency.compute() for length, consistency in consistencies.items()}
    return {"mIoU": miou.compute(), **scores}


def _save(accelerator: Any, out: Path, *, step: int) -> None:
    """Write a checkpoint aside from all processes, then let the first give it its name."""
    part = run_folder.part_path(out, step)
    if accelerator.is_main_process:
        part.mkdir(exist_ok=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(part))
    except OSError as error:
        raise CheckpointError(f"{shown(part)}: cannot be written ({error.strerror or error})") from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        run_folder.finish_checkpoint(out, step)
    accelerator.wait_for_everyone()


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


def _progress(total: int, done: int, *, is_main: bool) -> Any:
    from tqdm import tqdm

    # A file or pipe keeps every redraw as a line, so there the bar is drawn twice a minute.
    pause = 0.2 if sys.stderr.isatty() else 30
    return tqdm(
        total=total, initial=done, desc="train", unit="step", delay=2, mininterval=pause, file=sys.stderr,
        disable=not is_main,
    )  # fmt: skip


def _null_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
