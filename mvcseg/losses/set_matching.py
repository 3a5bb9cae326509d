"""Which query is to become which target: the assignment of least cost, in one of three ways.

- ``"frame"``: every frame on its own (segmenters of single frames);
- ``"first"``: every target at the frame where it first appears, among the queries not taken by then; the assignment
  holds for all frames of the clip (trackers);
- ``"video"``: once for the clip, masks of all frames stacked along the height (refiners).

Costs are computed where the predictions lie and go to the host at once; the assignment and its result stay there.

Source: Mask2Former, arXiv 2112.01527, section 3.3 (costs); DVIS, arXiv 2306.03413, section 3.2 (first appearance).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ConfigError, DataError, ShapeError
from mvcseg.losses.queries import LayerPrediction
from mvcseg.losses.set_terms import class_cost, mask_costs
from mvcseg.losses.targets import Targets
from mvcseg.ops.matching import assign_pairs
from mvcseg.ops.points import Draw

Matching = Literal["frame", "first", "video"]
"""How queries meet targets; see the module."""

WORST = 1e9
"""Stands for an infinite cost."""


@dataclass(frozen=True)
class Match:
    """Pairs of a query and a target; on the host.

    Attributes:
        queries: ``(N,)`` int64.
        targets: ``(N,)`` int64, rows of ``Targets``.
    """

    queries: Tensor
    targets: Tensor


@dataclass(frozen=True)
class PairCosts:
    """What a pair of a query and a target costs: ``class_weight * (-p) + mask_weight * BCE + dice_weight * dice``.

    Raises:
        ConfigError: a weight is negative or not finite.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name}: expected a finite number of at least 0, got {value!r}")


@dataclass(frozen=True)
class ClipTargets:
    """One clip's targets as seen by its predictions.

    Attributes:
        targets: of the clip.
        covered: height and width of the area of a frame that masks cover, in pixels; None for the frame.
        weight: ``(T, H, W)``, how much every pixel counts; None for one.
    """

    targets: Targets
    covered: tuple[int, int] | None = None
    weight: Tensor | None = None

    def weight_at(self, frame: int | None, points: Tensor) -> Tensor | None:
        """Weights ``(N, P)`` at points ``(N, P, 2)``, beyond a frame those of its edge; None for one."""
        if self.weight is None:
            return None
        height, width = self.weight.shape[-2:]
        tall, wide = (height, width) if self.covered is None else self.covered
        weight = functional.pad(self.weight.unsqueeze(0), (0, wide - width, 0, tall - height), mode="replicate")[0]
        maps = weight.reshape(1, -1, wide) if frame is None else weight[frame : frame + 1]
        grid = (2.0 * points.reshape(1, 1, -1, 2) - 1.0).to(maps)
        values = functional.grid_sample(maps.unsqueeze(0), grid, padding_mode="border", align_corners=False)
        return values.view(points.shape[:-1])


def match_clip(
    prediction: LayerPrediction,
    clip: ClipTargets,
    *,
    video: int,
    matching: Matching,
    costs: PairCosts,
    num_points: int,
    draw: Draw,
    keep_absent: bool = False,
) -> list[Match]:
    """The assignment of one clip.

    Args:
        prediction: of one layer; no gradient flows.
        clip: what it is to match.
        video: which clip of the batch.
        matching: how; see the module.
        costs: of a pair.
        num_points: uniform points that all masks of a frame are compared at; times T for ``"video"``.
        draw: called with ``(1, P, 2)`` for every frame that is matched.
        keep_absent: for ``"frame"``, match targets that a frame does not show too, with empty masks.

    Returns:
        A match for each frame, a single one for ``"video"``. With more targets than queries, the cheapest pairs.

    Raises:
        ConfigError: ``matching`` is none of the three.
        ShapeError: the prediction's frames do not fit the targets' or the matching.
        DataError: a target's class is none of the prediction's.
    """
    check_prediction(prediction, clip.targets, matching=matching)
    solve = _Costs(prediction, clip, video, costs, draw)
    targets = clip.targets
    with torch.no_grad():
        if matching == "video":
            rows = targets.is_present.any(dim=1).nonzero()[:, 0]
            return [_assign(solve.of(None, rows, num_points * targets.num_frames), rows)]
        if matching == "frame":
            shown = torch.ones_like(targets.is_present) if keep_absent else targets.is_present
            groups = [shown[:, t].nonzero()[:, 0] for t in range(targets.num_frames)]
            costs_of_frames = [solve.of(t, rows, num_points) for t, rows in enumerate(groups)]
            host = torch.cat(costs_of_frames, dim=1).cpu()  # one wait for all frames
            parts = torch.split(host, [len(rows) for rows in groups], dim=1)
            return [_assign(cost, rows) for cost, rows in zip(parts, groups, strict=True)]
        return [_match_first(solve, targets, num_points)] * targets.num_frames


def count_targets(targets: Targets, *, matching: Matching, keep_absent: bool = False) -> int:
    """The number of target masks that a clip's losses are sums over, whatever the number of queries."""
    if matching == "frame":
        return targets.is_present.numel() if keep_absent else int(targets.is_present.sum())
    shown = int(targets.is_present.any(dim=1).sum())
    return shown if matching == "video" else shown * targets.num_frames


def check_matching(matching: str) -> None:
    """Require one of the words of ``Matching``.

    Raises:
        ConfigError: it is none.
    """
    if matching not in get_args(Matching):
        raise ConfigError(f"matching: expected one of {', '.join(get_args(Matching))}, got {matching!r}")


def check_prediction(prediction: LayerPrediction, targets: Targets, *, matching: Matching) -> None:
    """Require sizes that fit each other.

    Raises:
        ConfigError: ``matching`` is none of the three.
        ShapeError: the prediction's frames do not fit the targets' or the matching.
        DataError: a target's class is none of the prediction's.
    """
    check_matching(matching)
    batch, frames, queries, num_logits = prediction.class_logits.shape
    b, t, q = prediction.masks.shape[:3]
    expected = 1 if matching == "video" else t
    if (b, q) != (batch, queries) or frames != expected:
        raise ShapeError(
            f"class_logits: expected (b t q k) with b={b}, t={expected} for matching={matching!r}, q={q} from masks, "
            f"got {tuple(prediction.class_logits.shape)}"
        )
    if t != targets.num_frames:
        raise ShapeError(f"masks: expected {targets.num_frames} frames from labels, got {t}")
    if len(targets) and int(targets.class_ids.max()) > num_logits - 2:
        raise DataError(f"labels: expected classes 0..{num_logits - 2} or 255, got {int(targets.class_ids.max())}")


@dataclass(frozen=True)
class _Costs:
    """Costs of one clip's queries and targets."""

    prediction: LayerPrediction
    clip: ClipTargets
    video: int
    weights: PairCosts
    draw: Draw

    def of(self, frame: int | None, rows: Tensor, num_points: int) -> Tensor:
        """``(Q, len(rows))`` in float32 at least; draws only where there are targets."""
        logits = self.prediction.class_logits[self.video, 0 if frame is None else frame]
        if not len(rows):
            return logits.new_zeros(len(logits), 0)
        points = self.draw((1, num_points, 2))
        entropy, dice = mask_costs(
            self.prediction.masks.at(self.video, frame, points[0]),
            self.clip.targets.at(frame, rows, points[0], covered=self.clip.covered),
            None if (weight := self.clip.weight_at(frame, points)) is None else weight[0],
        )
        classes = class_cost(logits, self.clip.targets.class_ids[rows].to(logits.device))
        weights = self.weights
        return weights.class_weight * classes + weights.mask_weight * entropy + weights.dice_weight * dice


def _match_first(costs: _Costs, targets: Targets, num_points: int) -> Match:
    first = torch.where(targets.is_present.any(dim=1), targets.is_present.int().argmax(dim=1), -1)
    free = torch.arange(costs.prediction.class_logits.shape[2])
    found = []
    for t in range(targets.num_frames):
        rows = (first == t).nonzero()[:, 0]
        if len(rows):
            match = _assign(costs.of(t, rows, num_points)[free.to(costs.prediction.class_logits.device)], rows)
            found.append(Match(free[match.queries], match.targets))
            free = free[~torch.isin(free, found[-1].queries)]
    none = torch.empty(0, dtype=torch.int64)
    return Match(
        torch.cat([none, *(match.queries for match in found)]), torch.cat([none, *(match.targets for match in found)])
    )


def _assign(cost: Tensor, rows: Tensor) -> Match:
    """The assignment of costs ``(Q, len(rows))``."""
    queries, columns = assign_pairs(_solvable(cost.float().cpu().numpy()))
    return Match(torch.from_numpy(queries), rows[torch.from_numpy(columns)])


def _solvable(cost: NDArray[np.floating]) -> NDArray[np.floating]:
    # a query that predicts NaN is matched first: so its loss is NaN and the training loop can tell
    solvable: NDArray[np.floating] = np.nan_to_num(cost, nan=-WORST, posinf=WORST, neginf=-WORST)
    return solvable
