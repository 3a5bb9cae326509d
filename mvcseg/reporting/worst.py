"""The clips in which predictions fail most, at different places of the video."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mvcseg.reporting.scores import CLIP

MOST = 10
"""Clips listed, of all predictions together."""
LEAST = 3
"""Clips of a prediction that are listed though they look better than its mean."""


@dataclass(frozen=True)
class WorstClip:
    """One clip of the list.

    Attributes:
        prediction: whose clip it is.
        frames: first and last frame, from 0, both included.
        score: fraction, the lower the worse.
    """

    prediction: str
    frames: tuple[int, int]
    score: float

    def row(self, *, video: str, measure: str) -> dict[str, object]:
        """The row of `mvcseg.report.write_page`."""
        return {
            "video": video,
            "prediction": self.prediction,
            "frames": self.frames,
            "measure": measure,
            "score": self.score,
        }


def worst_clips(scores: Mapping[str, Mapping[int, float]]) -> list[WorstClip]:
    """At most `MOST` clips of `CLIP` frames, the worst first, every prediction with as many as the others.

    Clips that share frames with a worse one of the same prediction are left out, so that the list leads to
    different places; so are clips without a fault, and those that look no worse than the prediction's mean, as long as
    `LEAST` are left.

    Args:
        scores: by prediction, score by first frame, in ``[0, 1]``; NaN is passed over.
    """
    each = max(1, MOST // max(1, len(scores)))
    found = [clip for name, of_clips in scores.items() for clip in _worst_of(name, of_clips, most=each)]
    return sorted(found, key=lambda clip: clip.score)[:MOST]


def _worst_of(name: str, scores: Mapping[int, float], *, most: int) -> list[WorstClip]:
    chosen: list[int] = []
    known = [score for score in scores.values() if math.isfinite(score)]
    mean = round(100 * sum(known) / max(1, len(known)), 1)
    for start in sorted((start for start, score in scores.items() if score < 1), key=lambda start: scores[start]):
        if len(chosen) == most or (len(chosen) >= LEAST and round(100 * scores[start], 1) > mean):
            break
        if all(abs(start - other) >= CLIP for other in chosen):
            chosen.append(start)
    return [WorstClip(name, (start, start + CLIP - 1), scores[start]) for start in chosen]
