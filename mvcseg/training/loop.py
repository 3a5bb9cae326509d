"""One training run: clips in, a finished model out, plainly or with masked video consistency.

Runs on the CPU, one GPU or many through Accelerate (``torchrun`` or ``accelerate launch`` start the processes).
Everything random is keyed by the seed and by sample or step, so a run that was killed goes on with the very losses it
would have had (bit for bit on one CPU; on GPUs as far as their kernels repeat themselves).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mvcseg.data.clip import PackedClip
from mvcseg.data.clips import ClipDataset
from mvcseg.data.files import shown
from mvcseg.data.joined import VideoSet, joined_videos
from mvcseg.data.vspw import VSPW, VSPWVideo
from mvcseg.errors import CheckpointError, DataError, TrainingError
from mvcseg.losses import Objective
from mvcseg.segmenter import Segmenter
from mvcseg.training import run_folder
from mvcseg.training.batches import clip_dataset, iter_steps, worker_died
from mvcseg.training.building import build_trainee
from mvcseg.training.checkpointing import StepSize, load_newest, new_accelerator, random_state_kept, save_checkpoint
from mvcseg.training.config import TrainConfig
from mvcseg.training.following import Follower, followed
from mvcseg.training.foresight import check_labels, note_short_videos
from mvcseg.training.idle_keys import note_idle_keys
from mvcseg.training.interrupt import interrupted_after_a_step
from mvcseg.training.schedule import learning_rate_factor
from mvcseg.training.scoring import jsonable, score_videos
from mvcseg.training.sharding import is_sharded, load_whole, make_contiguous
from mvcseg.training.step import add_gradients
from mvcseg.training.trainee import Trainee


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    Attributes:
        model: the finished model's file (a folder, for a segmenter of one's own with ``save_pretrained``).
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
    segmenter: Segmenter | None = None,
    objective: Objective | None = None,
) -> TrainResult:
    """Train a model on a data set in the VSPW layout.

    ``out`` receives ``config.json``; ``log.jsonl`` with a line a step (``step`` from 1, ``loss`` = ``loss_clean`` +
    ``loss_masked``, the latter already times ``mask_weight`` and null without a mask; with the set loss the last
    layer's terms ``loss_ce``, ``loss_mask``, ``loss_dice`` and ``loss_contrast``; ``lr``, ``seconds``,
    ``images_per_second``) and a line an evaluation (``step``, ``mIoU``, ``VC8``, ``VC16``); ``checkpoints/step_N``, the
    last two; ``pictures/step_N.png`` and ``tensorboard/`` where asked for; and at the end ``model.safetensors``, class
    names inside. A kill at any moment loses the steps since the last checkpoint.

    Args:
        config: the run's numbers.
        root: folder of the data set.
        out: folder of the run, new or empty unless ``resume``.
        split: what to train on.
        resume: go on from the last checkpoint in ``out``; from the start where there is none yet.
        segmenter: the model where the configuration says ``model: "own"``: any ``Segmenter`` that is a module.
        objective: instead of the one that the configuration names.

    Returns:
        The model's file and its scores.

    Raises:
        ConfigError: ``out`` is in use, or holds a run of another configuration (the message names the keys); or the
            configuration does not fit the data, the segmenter or the checkpoint to start from.
        DataError: the data set, a file of it or ``out`` is missing or broken; names it.
        CheckpointError: the checkpoint to resume or start from is broken; names it.
        TrainingError: a loss or gradient is NaN or infinite (names the step, the frames and the last checkpoint), or a
            process that reads clips died.
        MissingExtraError: Accelerate is not installed.
    """
    with random_state_kept():
        run = _prepare(
            config, root=Path(root), out=Path(out), split=split, resume=resume, segmenter=segmenter, objective=objective
        )
        with _told_how_to_go_on(run.out):
            scores = _take_steps(run)
            if not scores and run.judged:  # resumed when nothing but the model's file was missing
                scores = _evaluate(run)
            model, trained = run.out, run.whole()
            if run.is_main:
                facts = {"config": config.to_dict(), "split": split, "scores": jsonable(scores)}
                model = trained.save(trained.segmenter, run.out, facts)
            run.accelerator.wait_for_everyone()
    return TrainResult(model=model, steps=config.steps, scores=scores)


@dataclass(frozen=True)
class _Run:
    """What the steps of a run share on one process.

    ``model`` is the trainee's module as Accelerate wraps it; ``twin`` has whole weights where that one's are spread.
    """

    config: TrainConfig
    out: Path
    accelerator: Any
    trainee: Trainee
    twin: Trainee | None
    model: nn.Module
    optimizer: Any
    clips: ClipDataset
    class_names: tuple[str, ...]
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

    def whole(self) -> Trainee:
        """The trainee with its weights of now, whole on every process; to be asked for by all of them."""
        if self.twin is None:
            return self.trainee
        load_whole(self.twin.module, self.model)
        return self.twin


def _prepare(
    config: TrainConfig,
    *,
    root: Path,
    out: Path,
    split: str,
    resume: bool,
    segmenter: Segmenter | None,
    objective: Objective | None,
) -> _Run:
    """Look at everything, then open the folder and load what an earlier run left there."""
    accelerator = new_accelerator(has_idle_parameters=config.model != "compact")
    run_folder.check_folder(out, config, resume=resume)
    class_names = VSPW(root, split=split).class_names
    extras = [VideoSet(**{**entry, "root": entry["root"] or root}) for entry in config.extra_data]
    videos = joined_videos([VideoSet(root, split), *extras], class_names=class_names)
    judged = _labelled(VSPW(root, split=config.eval_split)) if config.eval_every else []
    clips = clip_dataset(config, videos, processes=accelerator.num_processes)
    for looked_at in (videos, judged):
        if looked_at:
            check_labels(looked_at, accelerator=accelerator)
    has_begun = bool(run_folder.checkpoint_steps(out))
    begun = dataclasses.replace(config, start_from=None) if has_begun else config
    trainee = build_trainee(begun, class_names=class_names, segmenter=segmenter, objective=objective)
    twin = None
    if is_sharded(accelerator):
        twin = copy.deepcopy(trainee)
        make_contiguous(trainee.module)
    # Every process looks before the first one writes.
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        note_short_videos(videos, clip_length=config.clip_length)
        note_idle_keys(config)
        run_folder.open_folder(out, config)
    accelerator.wait_for_everyone()
    optimizer = torch.optim.AdamW(list(trainee.groups), lr=config.learning_rate)
    model, optimizer = accelerator.prepare(trainee.module, optimizer)
    size = StepSize(config, processes=accelerator.num_processes)
    accelerator.register_for_checkpointing(size, *trainee.memories)
    done = load_newest(accelerator, out)
    if accelerator.is_main_process:
        run_folder.cut_log(out, last_step=done)
    return _Run(config, out, accelerator, trainee, twin, model, optimizer, clips, class_names, judged, first_step=done)


def _labelled(data: VSPW) -> list[VSPWVideo]:
    """The videos of a split that carry labels.

    Raises:
        DataError: there is none.
    """
    videos = [video for video in data if video.has_masks]
    if not videos:
        raise DataError(f"{shown(data.root)}: no video of {data.split}.txt has a mask/ folder to learn from or score")
    return videos


def _take_steps(run: _Run) -> dict[str, float]:
    """All steps that are left, logged and checkpointed; the scores after the last one."""
    config, scores = run.config, dict[str, float]()
    accelerator = run.accelerator
    steps = iter_steps(
        config,
        run.clips,
        first_step=run.first_step,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        pin_memory=run.device.type == "cuda",
    )
    with (
        _follower(run) as follower,
        interrupted_after_a_step(alone=accelerator.num_processes == 1) as is_interrupted,
    ):
        for step in range(run.first_step, config.steps):
            start = time.perf_counter()
            factor = learning_rate_factor(
                step,
                steps=config.steps,
                warm_up=config.warm_up,
                schedule=config.schedule,
                drops=config.drops,
                drop_factor=config.drop_factor,
            )
            batches = next(steps)
            losses = _step(run, batches, step=step, factor=factor)
            seconds = round(time.perf_counter() - start, 4)
            done, is_last = step + 1, step + 1 == config.steps
            if follower is not None:
                follower.step(done, losses, learning_rate=config.learning_rate * factor, seconds=seconds)
            if config.picture_every and done % config.picture_every == 0:
                segmenter = run.whole().segmenter
                if follower is not None:
                    follower.picture(done, batches[0], segmenter, class_names=run.class_names)
            if config.eval_every and (is_last or done % config.eval_every == 0):
                scores = _evaluate(run)
                if follower is not None:
                    follower.scores(done, jsonable(scores))
            if is_last or done % config.checkpoint_every == 0 or is_interrupted():
                save_checkpoint(accelerator, run.out, step=done)
            if is_interrupted() and not is_last:
                raise KeyboardInterrupt
    return scores


def _follower(run: _Run) -> contextlib.AbstractContextManager[Follower | None]:
    """On the first process, what shows how the run goes."""
    if not run.is_main:
        return contextlib.nullcontext()
    return followed(run.config, run.out, done=run.first_step, processes=run.accelerator.num_processes)


def _step(run: _Run, batches: Sequence[PackedClip], *, step: int, factor: float) -> dict[str, float | None]:
    """One optimizer step; its losses, averaged over clips and processes, by their names in the log."""
    config, accelerator = run.config, run.accelerator
    samples = [int(sample) for batch in batches for sample in torch.as_tensor(batch.sample).tolist()]
    try:
        losses = add_gradients(
            run.model,
            batches,
            objective=run.trainee.objective,
            mask=config.mask,
            mask_weight=config.mask_weight,
            seed=config.seed,
            progress=step / config.steps,
            bfloat16=config.precision == "bf16",
            accelerator=accelerator,
        )
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"step {step + 1}: the device's memory is full; lower batch_size (and raise gradient_accumulation), "
            'clip_length or the size of the frames, or set precision "bf16"'
        ) from error
    _require_finite(run, "loss", losses.sums, samples, step=step)
    # without a limit the norm is looked at all the same: a gradient that is NaN must not reach the weights
    limit = math.inf if config.clip_gradient is None else config.clip_gradient
    norm = accelerator.clip_grad_norm_(run.model.parameters(), limit)
    _require_finite(run, "norm of the gradient", norm, samples, step=step)
    for group, begun in zip(run.optimizer.param_groups, run.trainee.groups, strict=True):
        group["lr"] = begun["lr"] * factor
    run.optimizer.step()
    run.optimizer.zero_grad()
    for memory in run.trainee.memories:
        memory.commit(_gathered if accelerator.num_processes > 1 else list)
    return losses.averaged(accelerator, has_mask=config.mask is not None)


def _gathered(items: list[Any]) -> list[Any]:
    """The items of all processes, in the order of the processes."""
    from accelerate.utils import gather_object

    joined: list[Any] = gather_object(items)
    return joined


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
    trained = run.whole()
    if trained is run.twin:
        trained.module.to(run.device)
    scores = score_videos(
        trained.segmenter,
        run.judged,
        clip_length=run.config.eval_clip_length,
        test_size=trained.test_size,
        accelerator=run.accelerator,
    )
    if trained is run.twin:
        trained.module.cpu()
    return scores


@contextlib.contextmanager
def _told_how_to_go_on(out: Path) -> Iterator[None]:
    """Errors that stop a run say where it can be resumed."""
    try:
        yield
    except (DataError, CheckpointError, TrainingError) as error:
        raise type(error)(f"{error}; {run_folder.way_on(out)}") from error
    except RuntimeError as error:
        # PyTorch tells of a dead worker from a signal's handler, wherever the program is at that moment.
        if not str(error).startswith("DataLoader worker"):
            raise
        raise TrainingError(f"{worker_died(error)}; {run_folder.way_on(out)}") from error
