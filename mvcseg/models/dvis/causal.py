"""Online DVIS++ on a source without an end: labels of a frame from it and the frames before.

Where a whole video is at hand, the class scores are the mean of the tracker's logits over all frames; here
they are the mean of the logits so far.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mvcseg.models.dvis.frame_masks import FrameMasks, Tracker, tracked_masks
from mvcseg.models.dvis.semantic import class_table, full_precision, mask_logits
from mvcseg.models.dvis.tracker import TrackerState
from mvcseg.models.mask2former import FrameQueries


@dataclass
class CausalState:
    """What ``stream_causal`` remembers; made empty, then brought up to date with every frame.

    Its size does not grow. Hand the same object over to go on where an earlier call stopped.

    Attributes:
        tracker: of the last frame; None before the first, and without a tracker.
        logit_mean: mean of the tracker's class logits, ``(Q, K + 1)``.
        frames: how many were seen.
    """

    tracker: TrackerState | None = None
    logit_mean: Tensor | None = None
    frames: int = 0


def next_masks(queries: FrameQueries, state: CausalState, *, tracker: Tracker | None) -> FrameMasks:
    """Masks and classes of the next frame; ``state`` is brought up to date."""
    if tracker is None:
        state.frames += 1
        masks = mask_logits(queries.mask_embeds[0], queries.mask_features[0])
        return FrameMasks(masks, class_table(queries.class_logits[0]))
    tracked = tracker(queries.embeds[:, None], queries.embeds_unnormed[:, None], state=state.tracker)
    logits = full_precision(tracked.class_logits[0, 0])
    masks = tracked_masks(queries, tracker, tracked.embeds)
    # a mean, not a sum: the source may have no end, a float has
    mean = logits if state.logit_mean is None else state.logit_mean.lerp(logits, 1 / (state.frames + 1))
    state.tracker, state.logit_mean, state.frames = tracked.state, mean, state.frames + 1
    return FrameMasks(masks, class_table(mean))
