"""Class correction: ask a vision-language model what a thing is, and record what came of it.

The last step of arXiv 2406.04979, which asks about a whole image. Here one question is asked for every tube of a
confusable group (`tubes`), about several views of it (`asking`), and one tube gets one class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mvcseg.errors import ConfigError
from mvcseg.flow import FarnebackFlow, FlowEstimator
from mvcseg.segmenter import Video
from mvcseg.shapes import check_positive
from mvcseg.vlm.areas import areas, frame_of
from mvcseg.vlm.asking import Patience, ask, skipped
from mvcseg.vlm.changes import Change, Status
from mvcseg.vlm.client import VLM, ReplayVLM, most_at_once, most_views
from mvcseg.vlm.groups import Group, asked_by
from mvcseg.vlm.prompt import REPORT_PROMPT
from mvcseg.vlm.questions import Question, plan_questions, view_image
from mvcseg.vlm.tubes import rank
from mvcseg.vlm.views import View


@dataclass(frozen=True)
class Correction:
    """Corrected labels and the log.

    Attributes:
        labels: ``(T, H, W)``, the dtype and device of the labels given.
        changes: one record a tube, largest first, whatever came of it.
        unavailable: where no call got an answer, why the last did not; empty where one did, or none was made.
    """

    labels: Tensor
    changes: tuple[Change, ...]
    unavailable: str = ""

    def count(self, status: Status) -> int:
        """How many records have this status."""
        return sum(change.status == status for change in self.changes)


def correct_labels(
    video: Video,
    labels: Video,
    *,
    vlm: VLM,
    groups: Sequence[Group],
    class_names: Sequence[str],
    flow: FlowEstimator | None = FarnebackFlow(),  # noqa: B008 (holds settings only)
    min_area: float = 0.001,
    max_area: float = 1.0,
    views: int = 3,
    agreement: float = 1.0,
    view: View = "outline",
    prompt: str = REPORT_PROMPT,
    max_questions: int | None = None,
    concurrency: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Correction:
    """Labels in which tubes of look-alike classes have the class that the model names.

    A tube is asked about in several views, one call and one image each; it becomes one class only where enough of
    them name the same one clearly (`parse_answer`). Views that disagree, an unclear answer, or none, leave it
    as it was and the record says why; no failure of the model ends the run, but after three calls in a row (twice
    ``concurrency`` if that is more) that found nobody to ask (`VLMUnavailableError`, ``ConnectionError``,
    ``TimeoutError``) the rest is skipped, and so it is where the first ten (or twice ``concurrency``) all failed,
    whatever the error. A first view that confirms the class the whole tube has ends its questions. No pixel is asked
    about twice: a class of two groups is asked about by the first.

    Args:
        video: uint8 ``(T, 3, H, W)``, a tensor or lazily read.
        labels: integer ``(T, H, W)``, likewise; left as it is.
        vlm: who is asked, such as `OpenAIVLM`, `LocalVLM`, `ZeroShotScorer` or `ReplayVLM`. One that has an attribute
            ``most_views`` is asked about no more views of a tube than that, and one whose ``in_order`` is true about
            one tube at a time.
        groups: which classes look alike, such as `VSPW_GROUPS`.
        class_names: name of every class, by id.
        flow: how areas are followed from frame to frame; None compares them in place.
        min_area: tubes that cover less than this share of every frame are left alone.
        max_area: so are those that cover more than this share of some frame. Large tubes are right more often, and a
            wrong answer about one costs most.
        views: most views of a tube.
        agreement: share of a tube's views that must name one class, in ``(0, 1]``; and more of them must than name any
            other.
        view: what is shown: ``"outline"`` and ``"mark"``, the tube outlined or tinted and its surroundings;
            ``"frame"``, the whole frame untouched, as the report did.
        prompt: the question, with ``{stuff}`` and ``{classes}``. The default is the report's, word for word; for an
            outline or a mark `PROMPTS` has one that says which thing is meant.
        max_questions: most calls of the model; the largest tubes whose views all fit are asked about, as
            `plan_questions` says.
        concurrency: how many tubes are asked about at once. The result does not depend on it.
        progress: called with how many tubes are done, and of how many.

    Returns:
        The labels and one record a tube.

    Raises:
        ConfigError: an argument is outside its range, or a group does not fit ``class_names`` or the labels' dtype.
        DTypeError: frames are not uint8, or labels no integers.
        ShapeError: video and labels differ in length or size.

    Example:
        >>> from mvcseg.vlm import ReplayVLM
        >>> video, labels = torch.zeros(4, 3, 8, 12, dtype=torch.uint8), torch.zeros(4, 8, 12, dtype=torch.uint8)
        >>> labels[:, :, 6:] = 2
        >>> result = correct_labels(video, labels, vlm=ReplayVLM(["A river."]), groups=[Group("water", (1, 2))],
        ...                         class_names=["sky", "river", "lake"])
        >>> result.labels[0, 0].tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
        >>> [(change.status, change.from_name, change.to_name) for change in result.changes]
        [('changed', 'lake', 'river')]
    """
    check_positive(concurrency=concurrency)
    if not 0 < agreement <= 1:
        raise ConfigError(f"agreement: expected a share of the views in (0, 1], got {agreement}")
    plan = plan_questions(
        video,
        labels,
        groups=groups,
        class_names=class_names,
        flow=flow,
        min_area=min_area,
        max_area=max_area,
        views=most_views(vlm, views),
        view=view,
        prompt=prompt,
        max_questions=max_questions,
    )
    classes = asked_by(groups)

    def image_of(question: Question, frame: int) -> Tensor:
        return view_image(video, labels, question.tube, frame, classes=classes, view=view)

    done: dict[int, Change] = {}
    at_once = most_at_once(vlm, concurrency)
    patience = Patience(concurrency=at_once, is_recorded=isinstance(vlm, ReplayVLM))
    for position, change in ask(
        plan.questions,
        image_of,
        vlm=vlm,
        class_names=class_names,
        until=patience,
        agreement=agreement,
        concurrency=at_once,
    ):
        done[position] = change
        if progress is not None:
            progress(len(done), len(plan.questions))
    results = [(question, done[position]) for position, question in enumerate(plan.questions)]
    reason = f"not asked: max_questions is {max_questions}"
    by_tube = [(question.tube, change) for question, change in results]
    by_tube += [(question.tube, skipped(question, class_names, reason=reason)) for question in plan.skipped]
    changes = [change for _, change in sorted(by_tube, key=lambda pair: rank(pair[0]))]
    corrected = _painted(labels, results, classes=classes)
    return Correction(labels=corrected, changes=tuple(changes), unavailable=patience.unavailable)


def _painted(labels: Video, results: Sequence[tuple[Question, Change]], *, classes: dict[int, int]) -> Tensor:
    new_class: dict[int, dict[int, int]] = {}
    for question, change in results:
        if change.status == "changed" and change.to_class is not None:
            for frame, parts in question.tube.parts.items():
                new_class.setdefault(frame, {}).update(dict.fromkeys(parts, change.to_class))
    first = labels[0:1]
    painted = torch.empty((len(labels), *first.shape[1:]), dtype=first.dtype, device=first.device)
    for position in range(len(labels)):
        painted[position] = labels[position : position + 1][0]
        if position in new_class:
            before = frame_of(labels, position)
            found = areas(before, classes=classes)
            new = np.full(int(found.max()) + 1, -1)
            new[list(new_class[position])] = list(new_class[position].values())
            after = new[found]
            after = np.where(after < 0, before, after).astype(before.dtype)
            painted[position] = torch.from_numpy(after).to(painted.device)
    return painted
