"""Online DVIS++ on a source without an end: labels of a frame from it and the frames before.

Where a whole video is at hand, the class scores are the mean of the tracker's logits over all frames; here
they are the mean of the logits so far.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mvcseg.models.dvis.frame_masks import FrameMasks, Tracker, tracked_masks
from mvcseg.models.dvis.semantic import class_table, mask_logits
from mvcseg.models.dvis.tracker import TrackerState
from mvcseg.models.mask2former import FrameQueries


@dataclass
class CausalState:
    """What ``stream_causal`` remembers; made empty, then brought up to date with every frame.

    Its size does not grow. Hand the same object over to go on where an earlier call stopped.

    Attributes:
        tracker: of the last frame; None before the first, and without a tracker.
        logit_sum: the tracker's class logits added up, ``(Q, K + 1)``.
        frames: how many were seen.
    """

    tracker: TrackerState | None = None
    logit_sum: Tensor | None = None
    frames: int = 0


def next_masks(queries: FrameQueries, state: CausalState, *, tracker: Tracker | None) -> FrameMasks:
    """Masks and classes of the next frame; ``state`` is brought up to date."""
    state.frames += 1
    if tracker is None:
        masks = mask_logits(queries.mask_embeds[0], queries.mask_features[0])
        return FrameMasks(masks, class_table(queries.class_logits[0]))
    tracked = tracker(queries.embeds[:, None], queries.embeds_unnormed[:, None], state=state.tracker)
    logits = tracked.class_logits[0, 0]
    state.tracker = tracked.state
    state.logit_sum = logits if state.logit_sum is None else state.logit_sum + logits
    return FrameMasks(tracked_masks(queries, tracker, tracked.embeds), class_table(state.logit_sum / state.frames))
