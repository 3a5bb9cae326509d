"""Several vision-language models asked the very same questions: who is right, who agrees, what each costs.

The comparison of arXiv 2406.04979, Table 5, as a function. What a model's answers would do is what `correct_labels`
would do with them, and each model's log is a log of a correction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from os import PathLike
from pathlib import Path

from torch import Tensor

from mvcseg.errors import ConfigError
from mvcseg.flow import FarnebackFlow, FlowEstimator
from mvcseg.segmenter import Video
from mvcseg.shapes import check_positive
from mvcseg.vlm.agreement import Agreement, agreement_between
from mvcseg.vlm.asking import Patience, ask
from mvcseg.vlm.cache import CachedVLM
from mvcseg.vlm.changes import Change
from mvcseg.vlm.client import VLM, ReplayVLM, most_at_once, most_views
from mvcseg.vlm.comparison import Compared, Comparison, Price
from mvcseg.vlm.groups import Group, asked_by
from mvcseg.vlm.model_name import check_model_name
from mvcseg.vlm.prompt import REPORT_PROMPT
from mvcseg.vlm.questions import Plan, Question, plan_questions, view_image
from mvcseg.vlm.tube_truth import TubeTruth, tube_truths
from mvcseg.vlm.usage import Usage
from mvcseg.vlm.views import View


def compare_vlms(
    video: Video,
    labels: Video,
    *,
    vlms: Mapping[str, VLM],
    groups: Sequence[Group],
    class_names: Sequence[str],
    truth: Video | None = None,
    prices: Mapping[str, Price] | None = None,
    cache: str | PathLike[str] | None = None,
    flow: FlowEstimator | None = FarnebackFlow(),  # noqa: B008 (holds settings only)
    min_area: float = 0.001,
    max_area: float = 1.0,
    views: int = 1,
    agreement: float = 1.0,
    view: View = "outline",
    prompt: str = REPORT_PROMPT,
    max_questions: int | None = None,
    concurrency: int = 1,
    progress: Callable[[str, int, int], object] | None = None,
) -> Comparison:
    """Ask several models the questions of a correction, and tabulate their answers.

    The questions are planned once. With one view, the default, every model sees the same picture of every tube; with
    more, one whose first answer confirms a tube's class is asked no more about it, as `correct_labels` does.
    The labels are not changed. A model that fails is a row like any other: no failure ends the comparison, and one that
    cannot be reached is not tried for every question (`asking.ask`).

    The true class of a tube is that of more than half of its labelled pixels, where it is one of the choices.

    Args:
        video: uint8 ``(T, 3, H, W)``, a tensor or lazily read.
        labels: integer ``(T, H, W)``, likewise.
        vlms: name -> who is asked.
        groups: which classes look alike.
        class_names: name of every class, by id.
        truth: integer ``(T, H, W)`` class ids, 255 where there is no ground truth.
        prices: name -> what that model charges.
        cache: folder in which the answers of every model are kept, in a folder of its name (`check_model_name` says
            what it may be); those that are there are taken from it. `ReplayVLM`s need none. Wrap no model in a
            `CachedVLM` of your own: its kept answers would count as calls.
        flow: as in `correct_labels`, like all the following.
        min_area: least share of the frame.
        max_area: greatest share of the frame.
        views: most views of a tube; fewer for a model with less ``most_views``.
        agreement: share of the views that must name one class.
        view: what is shown.
        prompt: the question.
        max_questions: most calls of each model.
        concurrency: calls of one model under way at once; models are asked one after the other.
        progress: called with a model's name, its questions done and all its questions.

    Raises:
        ConfigError: there is no model, ``prices`` names another, an argument is out of range, or no folder can be
            called like a model whose answers are to be kept.
        DataError: ground truth is broken or of another size, or the cache cannot be made.
        DTypeError: frames are not uint8, or labels no integers.
        ShapeError: video, labels and truth differ in length or size.

    Example:
        >>> import torch
        >>> from mvcseg.vlm import compare_vlms
        >>> video, labels = torch.zeros(4, 3, 8, 12, dtype=torch.uint8), torch.zeros(4, 8, 12, dtype=torch.uint8)
        >>> labels[:, :, 6:] = 2
        >>> truth = labels.clone().masked_fill(labels == 2, 1)
        >>> result = compare_vlms(video, labels, vlms={"a": ReplayVLM(["A river."]), "b": ReplayVLM(["A lake."])},
        ...                       groups=[Group("water", (1, 2))], class_names=["sky", "river", "lake"], truth=truth)
        >>> [(model.name, model.right, model.judged, model.mended) for model in result.models]
        [('a', 1, 1, 1), ('b', 0, 1, 0)]
    """
    priced = dict(prices or {})
    if not vlms:
        raise ConfigError("vlms: expected at least one model, got none")
    if set(priced) - set(vlms):
        raise ConfigError(f"prices: expected names of vlms, got {min(set(priced) - set(vlms))!r}")
    if cache is not None:
        for name in vlms:
            check_model_name(name)
    if not 0 < agreement <= 1:
        raise ConfigError(f"agreement: expected a share of the views in (0, 1], got {agreement}")
    check_positive(concurrency=concurrency)
    plan = plan_questions(
        video,
        labels,
        groups=groups,
        class_names=class_names,
        flow=flow,
        min_area=min_area,
        max_area=max_area,
        views=views,
        view=view,
        prompt=prompt,
        max_questions=max_questions,
    )
    classes = asked_by(groups)
    tubes = [question.tube for question in plan.questions]
    found = None
    if truth is not None:
        found = tube_truths(labels, truth, tubes, classes=classes, num_classes=len(class_names))

    def image_of(question: Question, frame: int) -> Tensor:
        return view_image(video, labels, question.tube, frame, classes=classes, view=view)

    models = []
    for name in vlms:  # looked up one after the other, so that a mapping may open each when its turn comes
        metered = _Metered(vlms[name])
        at_once = most_at_once(metered.vlm, concurrency)
        patience = Patience(concurrency=at_once, is_recorded=isinstance(metered.vlm, ReplayVLM))
        done: dict[int, Change] = {}
        shown = most_views(metered.vlm, views)
        for position, change in ask(
            [replace(question, frames=question.frames[:shown]) for question in plan.questions],
            image_of,
            vlm=_kept_in(cache, name, metered),
            class_names=class_names,
            until=patience,
            agreement=agreement,
            concurrency=at_once,
        ):
            done[position] = change
            if progress is not None:
                progress(name, len(done), len(plan.questions))
        changes = tuple(done[position] for position in range(len(plan.questions)))
        meter = _Meter(metered.calls, metered.seconds, metered.usage(), patience.unavailable)
        del metered  # and the model with it, before the next is opened
        models.append(_compared(name, plan, changes, truths=found, meter=meter, price=priced.get(name)))
    return Comparison(
        plan=plan,
        truths=_true_classes(plan, found),
        has_truth=truth is not None,
        not_offered=sum(
            truth.majority is not None and truth.majority not in question.choices
            for question, truth in zip(plan.questions, found or (), strict=truth is not None)
        ),
        models=tuple(models),
        pairs=tuple(_pair(plan, one, other) for one, other in combinations(models, 2)),
    )


@dataclass(frozen=True)
class _Meter:
    """What was measured of one model."""

    calls: int
    seconds: float
    usage: Usage | None
    unavailable: str


class _Metered:
    """A model whose calls are counted and timed; recorded answers are no calls."""

    def __init__(self, vlm: VLM) -> None:
        self.vlm = vlm
        self.calls = 0
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._before = self._total()

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        if isinstance(self.vlm, ReplayVLM):
            return self.vlm(images, prompt, choices=choices)
        start = time.perf_counter()
        try:
            return self.vlm(images, prompt, choices=choices)
        finally:
            with self._lock:
                self.calls += 1
                self.seconds += time.perf_counter() - start

    def usage(self) -> Usage | None:
        """Tokens of the calls; None where no answer said."""
        total = self._total()
        if total is None or self._before is None:
            return None
        used = total - self._before
        return used if used.requests > used.unreported else None

    def _total(self) -> Usage | None:
        usage = getattr(self.vlm, "usage", None)
        return usage if isinstance(usage, Usage) else None


def _kept_in(cache: str | PathLike[str] | None, name: str, metered: _Metered) -> VLM:
    if cache is None or isinstance(metered.vlm, ReplayVLM):
        return metered
    known = getattr(metered.vlm, "identity", None)
    return CachedVLM(metered, Path(cache, name), identity=known if isinstance(known, str) and known else name)


def _compared(
    name: str,
    plan: Plan,
    changes: tuple[Change, ...],
    *,
    truths: Sequence[TubeTruth] | None,
    meter: _Meter,
    price: Price | None,
) -> Compared:
    judged = right = mended = spoilt = mended_pixels = spoilt_pixels = 0
    for question, change, truth in zip(plan.questions, changes, truths or (), strict=truths is not None):
        true_class, said, main = truth.class_of(question.choices), change.to_class, question.tube.shares[0][0]
        if said is None:
            continue
        if true_class is not None:
            judged += 1
            right += said == true_class
            mended += main != true_class == said
            spoilt += main == true_class != said
        mended_pixels += truth.mended(said)
        spoilt_pixels += truth.spoilt(said)
    cost = None
    if price is not None:
        cost = 0.0 if not meter.calls else None if meter.usage is None else price.of(meter.usage)
    unanswered = [change for change in changes if change.status in ("failed", "skipped")]
    return Compared(
        name=name,
        changes=changes,
        answered=sum(change.to_class is not None for change in changes),
        unclear=sum(change.status == "unclear" for change in changes),
        failed=len(unanswered),
        judged=judged,
        right=right,
        mended=mended,
        spoilt=spoilt,
        mended_pixels=mended_pixels,
        spoilt_pixels=spoilt_pixels,
        kept=sum(len(change.answers) for change in changes) - meter.calls,
        calls=meter.calls,
        seconds=meter.seconds,
        usage=meter.usage,
        cost=cost,
        trouble=unanswered[0].reason if unanswered else "",
        is_unavailable=bool(meter.unavailable),
    )


def _true_classes(plan: Plan, truths: Sequence[TubeTruth] | None) -> tuple[int | None, ...]:
    if truths is None:
        return (None,) * len(plan.questions)
    return tuple(truth.class_of(q.choices) for q, truth in zip(plan.questions, truths, strict=True))


def _pair(plan: Plan, one: Compared, other: Compared) -> Agreement:
    answers = [(a.to_class, b.to_class) for a, b in zip(one.changes, other.changes, strict=True)]
    groups = [question.tube.group for question in plan.questions]
    return agreement_between(one.name, other.name, answers=answers, groups=groups)
