"""What the class map of every frame is made of: mask logits and a class table, in two passes over a video.

Class scores are pooled over the whole video before any mask gets a class (DVIS++, arXiv 2312.13305), so each
frame goes once through backbone, segmenter and tracker, and what its masks need waits until the last frame is
seen: in a spill file, or in memory where gradients flow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor

from mvcseg.models.dvis.refiner import TemporalRefiner
from mvcseg.models.dvis.refiner_spilled import refine_spilled
from mvcseg.models.dvis.semantic import class_table, full_precision, mask_logits
from mvcseg.models.dvis.spill import SpillArray, SpillFile
from mvcseg.models.dvis.tracker import ReferringTracker
from mvcseg.models.dvis.tracker_v1 import FirstReferringTracker
from mvcseg.models.mask2former import FrameQueries

Tracker = ReferringTracker | FirstReferringTracker


@dataclass(frozen=True)
class FrameMasks:
    """One frame before classes meet masks.

    Attributes:
        logits: mask logits ``(h, w, Q)`` at a quarter of the padded frame.
        table: class probabilities ``(Q, K)``, in the order of training.
    """

    logits: Tensor
    table: Tensor


def frame_masks(
    frames: Iterable[FrameQueries],
    *,
    tracker: Tracker | None,
    refiner: TemporalRefiner | None,
    spill_folder: str | PathLike[str] | None,
) -> Iterator[FrameMasks]:
    """Masks and classes of each frame of one video, in order.

    Without a tracker a frame's answer follows it at once; otherwise after the last frame.

    Args:
        frames: the segmenter's queries of one frame each (N = 1).
        tracker: of the online and offline model.
        refiner: of the offline model.
        spill_folder: where the temporary file lies; None takes the system's folder. Not used while gradients
            are recorded.

    Raises:
        DataError: the spill file cannot be written.
    """
    if tracker is None:
        for queries in frames:
            yield FrameMasks(_masks(queries.mask_embeds, queries), class_table(queries.class_logits[0]))
    elif torch.is_grad_enabled():
        yield from _in_memory(list(frames), tracker, refiner)
    elif refiner is None:
        yield from _online(frames, tracker, spill_folder)
    else:
        yield from _offline(frames, tracker, refiner, spill_folder)


def tracked_masks(queries: FrameQueries, tracker: Tracker, embeds: Tensor) -> Tensor:
    """Mask logits ``(h, w, Q)`` of tracked queries ``(1, 1, Q, C)`` in their frame."""
    kernels = tracker.mask_kernels(embeds[0, 0])
    return mask_logits(kernels.weight, queries.mask_features[0], kernels.bias)


def _masks(mask_embeds: Tensor, queries: FrameQueries) -> Tensor:
    return mask_logits(mask_embeds[0], queries.mask_features[0])


def _online(
    frames: Iterable[FrameQueries], tracker: Tracker, folder: str | PathLike[str] | None
) -> Iterator[FrameMasks]:
    with SpillFile(folder) as spill:
        kept, total, count, state = None, None, 0, None
        for queries in frames:
            tracked = tracker(queries.embeds[:, None], queries.embeds_unnormed[:, None], state=state)
            state = tracked.state
            masks = tracked_masks(queries, tracker, tracked.embeds)
            if kept is None:
                kept = spill.array(tuple(masks.shape), masks.dtype)
            kept.append(masks[None])
            logits = full_precision(tracked.class_logits[0, 0])
            total = logits if total is None else total + logits
            count += 1
            del queries, masks  # 37 MB of 480 x 853 that the next frame needs the room of
        if kept is None or total is None:
            return
        table = class_table(total / count)
        for index in range(count):
            yield FrameMasks(kept.read(slice(index, index + 1))[0].to(table.device), table)


def _offline(
    frames: Iterable[FrameQueries], tracker: Tracker, refiner: TemporalRefiner, folder: str | PathLike[str] | None
) -> Iterator[FrameMasks]:
    with SpillFile(folder) as spill:
        kept: list[SpillArray] = []
        total, state = None, None
        for queries in frames:
            tracked = tracker(queries.embeds[:, None], queries.embeds_unnormed[:, None], state=state)
            state = tracked.state
            memory = tracker.refiner_memory(queries.embeds[:, None], queries.embeds_unnormed[:, None])
            parts = (queries.mask_features.permute(0, 2, 3, 1), tracked.embeds[0], memory[0])
            if not kept:
                kept = [spill.array(tuple(part.shape[1:]), part.dtype) for part in parts]
            for array, part in zip(kept, parts, strict=True):
                array.append(part)
            logits = full_precision(tracked.class_logits[0, 0])
            total = logits if total is None else total + logits
            del queries, parts, part  # 27 MB of 480 x 853 that the next frame needs the room of
        if total is None:
            return
        features, embeds, memories = kept
        refined = refine_spilled(refiner, embeds, memories)
        table = torch.maximum(class_table(refined.class_logits), class_table(total / len(features)))
        for index in range(len(features)):
            frame = slice(index, index + 1)
            pixels = features.read(frame)[0].to(table.device).permute(2, 0, 1)
            kernels = refined.mask_embeds.read(frame)[0].to(table.device)
            yield FrameMasks(mask_logits(kernels, pixels), table)


def _in_memory(frames: list[FrameQueries], tracker: Tracker, refiner: TemporalRefiner | None) -> Iterator[FrameMasks]:
    embeds = torch.stack([queries.embeds for queries in frames], dim=1)
    unnormed = torch.stack([queries.embeds_unnormed for queries in frames], dim=1)
    tracked = tracker(embeds, unnormed)
    table = class_table(full_precision(tracked.class_logits[0]).mean(dim=0))
    if refiner is None:
        for index, queries in enumerate(frames):
            yield FrameMasks(tracked_masks(queries, tracker, tracked.embeds[:, index : index + 1]), table)
        return
    refined = refiner(tracked.embeds, tracker.refiner_memory(embeds, unnormed))
    table = torch.maximum(class_table(refined.class_logits[0]), table)
    for index, queries in enumerate(frames):
        yield FrameMasks(_masks(refined.mask_embeds[:, index], queries), table)
