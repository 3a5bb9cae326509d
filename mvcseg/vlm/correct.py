"""Class correction: ask a vision-language model what a region is, and record what came of it.

The last step of arXiv 2406.04979, which asks about a whole image. Here one question is asked for every region of a
confusable group, followed through the video (`regions`), and one region gets one class.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError, VLMAnswerError
from mvcseg.segmenter import Video, check_label_video, check_video
from mvcseg.shapes import check_positive, check_shapes
from mvcseg.vlm.changes import Change, Status
from mvcseg.vlm.client import VLM, images_digest
from mvcseg.vlm.groups import Group, asked_by
from mvcseg.vlm.prompt import LONGEST_ANSWER, REPORT_PROMPT, parse_answer, question_text
from mvcseg.vlm.regions import Region, areas, find_regions, frame_of, mask_of
from mvcseg.vlm.secrecy import api_key, without_key
from mvcseg.vlm.view import outlined_crop

View: TypeAlias = Literal["outline", "frame"]
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Question:
    """One question that a correction asks.

    Attributes:
        region: what it is about.
        noun: its group's noun.
        choices: the classes offered, id and name.
        text: what is sent beside the image.
    """

    region: Region
    noun: str
    choices: dict[int, str]
    text: str


@dataclass(frozen=True)
class Plan:
    """The questions of a correction before any is asked.

    Attributes:
        questions: one a region, the largest region first.
        too_small: regions left out as smaller than ``min_area``.
    """

    questions: tuple[Question, ...]
    too_small: int


@dataclass(frozen=True)
class Correction:
    """Corrected labels and the log.

    Attributes:
        labels: ``(T, H, W)``, the dtype and device of the labels given.
        changes: one record a question, in the order of `Plan.questions`, whatever came of it.
    """

    labels: Tensor
    changes: tuple[Change, ...]

    def count(self, status: Status) -> int:
        """How many records have this status."""
        return sum(change.status == status for change in self.changes)


def plan_questions(
    labels: Video,
    *,
    groups: Sequence[Group],
    class_names: Sequence[str],
    min_area: float = 0.001,
    prompt: str = REPORT_PROMPT,
) -> Plan:
    """The questions `correct_labels` would ask with the same arguments; nothing is sent and no frame is read.

    Raises:
        ConfigError: a group does not fit ``class_names``, ``prompt`` lacks its fields, or ``min_area`` is
            outside [0, 1].
        DTypeError: labels are no integers.
        ShapeError: labels are not ``(T, H, W)``.

    Example:
        >>> labels = torch.zeros(4, 8, 12, dtype=torch.uint8)
        >>> labels[:, :, 6:] = 2
        >>> plan = plan_questions(labels, groups=[Group("water", (1, 2))], class_names=["sky", "river", "lake"])
        >>> [(question.text, question.region.frames, question.region.box) for question in plan.questions]
        [('Is the water in the image a river, lake? Please give me the only answer.', (0, 3), (6, 0, 12, 8))]
    """
    if not 0 <= min_area <= 1:
        raise ConfigError(f"min_area: expected a share of the frame in [0, 1], got {min_area}")
    offered = [group.answers(class_names) for group in groups]
    texts = [question_text(g.noun, list(o.values()), prompt=prompt) for g, o in zip(groups, offered, strict=True)]
    found = find_regions(labels, group_of=asked_by(groups), min_area=min_area)
    questions = (
        Question(region=region, noun=groups[region.group].noun, choices=offered[region.group], text=texts[region.group])
        for region in found.large
    )
    return Plan(questions=tuple(questions), too_small=found.too_small)


def correct_labels(
    video: Video,
    labels: Video,
    *,
    vlm: VLM,
    groups: Sequence[Group],
    class_names: Sequence[str],
    min_area: float = 0.001,
    view: View = "outline",
    prompt: str = REPORT_PROMPT,
    max_questions: int | None = None,
    concurrency: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Correction:
    """Labels in which regions of look-alike classes have the class that the model names.

    A region that holds several classes of its group becomes one class only where the answer names one clearly
    (`parse_answer`). An unclear answer, or none, leaves it as it was and the record says why; no failure of the model
    ends the run. No pixel is asked about twice: a class of two groups is asked about by the first.

    Args:
        video: uint8 ``(T, 3, H, W)``, a tensor or lazily read; one frame is in memory per question under way.
        labels: integer ``(T, H, W)``, a tensor or lazily read; never changed.
        vlm: who is asked. `CachedVLM` around it makes a run that was stopped go on where it was.
        groups: classes that look alike.
        class_names: name of every class, by id.
        min_area: regions that cover less than this share of every frame are left alone.
        view: ``"outline"`` shows the region outlined in magenta with its surroundings, in the frame where it is
            largest; ``"frame"`` that whole frame untouched, as the report does.
        prompt: the question, with ``{stuff}`` and ``{classes}``; the report's by default.
        max_questions: ask at most so many, about the largest regions; the others are recorded as ``skipped``.
        concurrency: questions under way at once. The result does not depend on it where an answer depends on
            image and question alone (a `ReplayVLM` that answers in order needs 1).
        progress: called with questions done and questions in all, after each.

    Raises:
        ConfigError: a group does not fit ``class_names``, or a number or word is outside its range.
        DTypeError: labels are no integers, or the video is not uint8.
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
    if view not in get_args(View):
        raise ConfigError(f"view: expected one of {', '.join(get_args(View))}, got {view!r}")
    check_positive(concurrency=concurrency)
    if max_questions is not None and (isinstance(max_questions, bool) or max_questions < 0):
        raise ConfigError(f"max_questions: expected at least 0 or None, got {max_questions}")
    check_label_video(labels, length=check_video(video))
    plan = plan_questions(labels, groups=groups, class_names=class_names, min_area=min_area, prompt=prompt)
    classes = asked_by(groups)
    asked = plan.questions[:max_questions]
    if not asked:  # else every question checks the frame that it shows
        check_shapes(labels=(labels[0:1], "1 h w"), video=(video[0:1], "1 3 h w"))
    tasks = ((question, _image(video, labels, question.region, classes=classes, view=view)) for question in asked)
    changes: list[Change] = []
    for change in _ask(tasks, vlm=vlm, class_names=class_names, concurrency=concurrency):
        changes.append(change)
        if progress is not None:
            progress(len(changes), len(asked))
    for question in plan.questions[len(asked) :]:
        reason = f"not asked: max_questions is {max_questions}"
        changes.append(_record(question, class_names, status="skipped", reason=reason))
    corrected = _painted(labels, list(zip(plan.questions, changes, strict=True)), classes=classes)
    return Correction(labels=corrected, changes=tuple(changes))


def _image(video: Video, labels: Video, region: Region, *, classes: dict[int, int], view: View) -> Tensor:
    position = region.key_frame
    frame, frame_labels = video[position : position + 1], frame_of(labels, position)
    check_shapes(video=(frame, f"1 3 {frame_labels.shape[0]} {frame_labels.shape[1]}"))
    if frame.dtype != torch.uint8:
        raise DTypeError(f"video: expected uint8 frames, got {frame.dtype}")
    image = frame[0].detach().cpu()
    if view == "frame":
        return image
    mask = mask_of(areas(frame_labels, classes=classes), region.parts[position])
    return outlined_crop(image, torch.from_numpy(mask))


def _ask(
    tasks: Iterator[tuple[Question, Tensor]], *, vlm: VLM, class_names: Sequence[str], concurrency: int
) -> Iterator[Change]:
    """The records in the order of the tasks, at most ``concurrency`` images in memory."""
    if concurrency == 1:
        for question, image in tasks:
            yield _answered(question, image, vlm=vlm, class_names=class_names)
        return
    under_way: deque[Future[Change]] = deque()
    pool = ThreadPoolExecutor(concurrency)
    try:
        for question, image in tasks:
            under_way.append(pool.submit(_answered, question, image, vlm=vlm, class_names=class_names))
            if len(under_way) == concurrency:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _answered(question: Question, image: Tensor, *, vlm: VLM, class_names: Sequence[str]) -> Change:
    digest, answer = images_digest([image]), None
    try:
        answer = vlm([image], question.text, choices=tuple(question.choices.values()))
    # Whatever a caller's own client raises, the questions already paid for must not be lost with it.
    except Exception as error:
        reason = _one_line(str(error) if isinstance(error, VLMAnswerError) else f"{type(error).__name__}: {error}")
        return _record(question, class_names, status="failed", reason=reason, image=digest)
    if not isinstance(answer, str):
        reason = f"expected the answer as a text, got {type(answer).__name__}"
        return _record(question, class_names, status="failed", reason=reason, image=digest)
    names = {name: index for index, name in question.choices.items()}
    kept = answer if len(answer) <= LONGEST_ANSWER else answer[:LONGEST_ANSWER] + "…"
    try:
        name = parse_answer(answer, choices=list(names), noun=question.noun, question=question.text)
    except VLMAnswerError as error:
        reason = _one_line(str(error))
        return _record(question, class_names, status="unclear", reason=reason, image=digest, answer=kept)
    is_same = question.region.shares == ((names[name], question.region.pixels),)
    return _record(
        question,
        class_names,
        status="confirmed" if is_same else "changed",
        image=digest,
        answer=kept,
        to_class=names[name],
    )


def _record(
    question: Question,
    class_names: Sequence[str],
    *,
    status: Status,
    reason: str = "",
    image: str = "",
    answer: str | None = None,
    to_class: int | None = None,
) -> Change:
    region = question.region
    return Change(
        status=status,
        reason=reason,
        frames=region.frames,
        region=region.box,
        pixels=region.pixels,
        key_frame=region.key_frame,
        group=question.noun,
        from_class=region.shares[0][0],
        from_name=", ".join(class_names[index] for index, _ in region.shares),
        shares=region.shares,
        to_class=to_class,
        to_name=None if to_class is None else class_names[to_class],
        question=question.text,
        answer=answer,
        image=image,
    )


def _one_line(text: str) -> str:
    line = " ".join(without_key(text[: 10 * _LONGEST_REASON], key=api_key()).split())
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + "…"


def _painted(labels: Video, results: Sequence[tuple[Question, Change]], *, classes: dict[int, int]) -> Tensor:
    new_class: dict[int, dict[int, int]] = {}
    for question, change in results:
        if change.status == "changed" and change.to_class is not None:
            for frame, parts in question.region.parts.items():
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
