"""What a correction would ask, known before anything is asked: one question a tube, and the views it is asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError
from mvcseg.flow import FarnebackFlow, FlowEstimator
from mvcseg.segmenter import Video, check_label_video, check_video
from mvcseg.shapes import check_positive, check_shapes
from mvcseg.vlm.areas import areas, frame_of, mask_of
from mvcseg.vlm.groups import Group, asked_by, check_ids_fit
from mvcseg.vlm.prompt import REPORT_PROMPT, question_text
from mvcseg.vlm.tokens import ANSWER_TOKENS, estimate_tokens
from mvcseg.vlm.tubes import Tube, find_tubes
from mvcseg.vlm.views import View, crop_box, marked_crop, outlined_crop, view_frames


@dataclass(frozen=True)
class Question:
    """The question about one tube.

    Attributes:
        tube: what it is about.
        noun: its group's noun.
        choices: the classes offered, id and name.
        text: what is sent beside each image.
        frames: the frames it may be asked about, one call and one image each, in this order.
    """

    tube: Tube
    noun: str
    choices: dict[int, str]
    text: str
    frames: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The questions of a correction before any is asked.

    Attributes:
        questions: one a tube, the largest tube first.
        too_small: tubes left out as smaller than ``min_area``.
        too_large: tubes left out as larger than ``max_area``.
        skipped: questions whose views do not all fit into what ``max_questions`` leaves; their ``frames`` are empty.
        prompt_tokens: an estimate (`estimate_tokens`) for all views; a tube whose first view confirms its class, or
            whose views can no longer agree, takes fewer calls.
    """

    questions: tuple[Question, ...]
    too_small: int
    skipped: tuple[Question, ...] = ()
    prompt_tokens: int = 0
    too_large: int = 0

    @property
    def count(self) -> int:
        """Most calls of the model, each with one image."""
        return sum(len(question.frames) for question in self.questions)

    @property
    def images(self) -> int:
        """Most images sent: one a call."""
        return self.count

    @property
    def completion_tokens(self) -> int:
        """An estimate for the answers to all calls."""
        return self.count * ANSWER_TOKENS


def plan_questions(
    video: Video,
    labels: Video,
    *,
    groups: Sequence[Group],
    class_names: Sequence[str],
    flow: FlowEstimator | None = FarnebackFlow(),  # noqa: B008 (holds settings only)
    min_area: float = 0.001,
    max_area: float = 1.0,
    views: int = 3,
    view: View = "outline",
    prompt: str = REPORT_PROMPT,
    max_questions: int | None = None,
) -> Plan:
    """The questions `correct_labels` would ask with the same arguments; nothing is sent.

    Within ``max_questions`` a tube is asked about where all of its views fit into the calls left, so a smaller tube of
    fewer views may come after a larger one is skipped. Only of the very first tube may there be fewer views.

    Raises:
        ConfigError: a group does not fit ``class_names`` or the labels' dtype, ``prompt`` lacks its fields, or a number
            is out of range.
        DTypeError: labels are no integers, or frames are not uint8.
        ShapeError: labels are not ``(T, H, W)``, or video and labels differ in length or size.

    Example:
        >>> video, labels = torch.zeros(4, 3, 8, 12, dtype=torch.uint8), torch.zeros(4, 8, 12, dtype=torch.uint8)
        >>> labels[:, :, 6:] = 2
        >>> groups, names = [Group("water", (1, 2))], ["sky", "river", "lake"]
        >>> plan = plan_questions(video, labels, groups=groups, class_names=names)
        >>> [(question.text, question.tube.frames, question.tube.box) for question in plan.questions]
        [('Is the water in the image a river, lake? Please give me the only answer.', (0, 3), (6, 0, 12, 8))]
        >>> plan.count, len(plan.questions[0].frames)
        (3, 3)
    """
    for name, area in (("min_area", min_area), ("max_area", max_area)):
        if not 0 <= area <= 1:
            raise ConfigError(f"{name}: expected a share of the frame in [0, 1], got {area}")
    if view not in get_args(View):
        raise ConfigError(f"view: expected one of {', '.join(get_args(View))}, got {view!r}")
    if max_questions is not None and (isinstance(max_questions, bool) or max_questions < 0):
        raise ConfigError(f"max_questions: expected at least 0 or None, got {max_questions}")
    check_positive(views=views)
    check_label_video(labels, length=check_video(video))
    offered = [group.answers(class_names) for group in groups]
    texts = [question_text(g.noun, list(o.values()), prompt=prompt) for g, o in zip(groups, offered, strict=True)]
    size = frame_of(labels, 0).shape
    check_ids_fit(groups, dtype=labels[0:1].dtype)
    check_shapes(video=(video[0:1], f"1 3 {size[0]} {size[1]}"))
    found = find_tubes(video, labels, group_of=asked_by(groups), min_area=min_area, flow=flow)
    tubes = [tube for tube in found.large if _peak(tube) <= max_area * size[0] * size[1]]
    questions = tuple(
        Question(
            tube=tube,
            noun=groups[tube.group].noun,
            choices=offered[tube.group],
            text=texts[tube.group],
            frames=view_frames(tube, count=views),
        )
        for tube in tubes
    )
    asked, skipped = _within(questions, max_questions)
    tokens = sum(
        estimate_tokens([_view_size(question.tube, frame, size=(size[0], size[1]), view=view)], question.text)
        for question in asked
        for frame in question.frames
    )
    return Plan(
        questions=asked,
        too_small=found.too_small,
        skipped=skipped,
        prompt_tokens=tokens,
        too_large=len(found.large) - len(tubes),
    )


def question_images(
    video: Video, labels: Video, question: Question, *, groups: Sequence[Group], view: View = "outline"
) -> list[Tensor]:
    """The images of a question, one a view, in the order they are shown: uint8 ``(3, h, w)``.

    Args:
        video: uint8 ``(T, 3, H, W)``, a tensor or lazily read; only the frames shown are read.
        labels: those the question was planned from.
        question: an element of `Plan.questions`.
        groups: those it was planned with.
        view: as in `correct_labels`.

    Raises:
        DTypeError: frames are not uint8.
        ShapeError: video and labels differ in size.
    """
    classes = asked_by(groups)
    return [view_image(video, labels, question.tube, frame, classes=classes, view=view) for frame in question.frames]


def view_image(
    video: Video, labels: Video, tube: Tube, position: int, *, classes: Mapping[int, int], view: View
) -> Tensor:
    """One view of a tube, uint8 ``(3, h, w)``.

    Raises:
        DTypeError: frames are not uint8.
        ShapeError: video and labels differ in size.
    """
    frame, frame_labels = video[position : position + 1], frame_of(labels, position)
    check_shapes(video=(frame, f"1 3 {frame_labels.shape[0]} {frame_labels.shape[1]}"))
    if frame.dtype != torch.uint8:
        raise DTypeError(f"video: expected uint8 frames, got {frame.dtype}")
    image = frame[0].detach().cpu()
    if view == "frame":
        return image
    mask = torch.from_numpy(mask_of(areas(frame_labels, classes=classes), tube.parts[position]))
    return outlined_crop(image, mask) if view == "outline" else marked_crop(image, mask)


def _peak(tube: Tube) -> int:
    """Most pixels of a tube in any one frame."""
    return max(seen.pixels for seen in tube.seen.values())


def _view_size(tube: Tube, frame: int, *, size: tuple[int, int], view: View) -> tuple[int, int]:
    """Height and width of the picture that `view_image` makes, without reading the frame."""
    if view == "frame":
        return size
    left, top, right, bottom = crop_box(tube.seen[frame].box, size=size)
    return bottom - top, right - left


def _within(
    questions: tuple[Question, ...], max_questions: int | None
) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
    """The questions that fit into so many calls with all of their views, and those left over.

    One view too few might decide what the others would not, so only the very first question is cut, lest none is left.
    """
    if max_questions is None:
        return questions, ()
    left, asked, skipped = max_questions, list[Question](), list[Question]()
    for number, question in enumerate(questions):
        frames = question.frames if number else question.frames[:left]
        if 0 < len(frames) <= left:
            asked.append(replace(question, frames=frames))
            left -= len(frames)
        else:
            skipped.append(replace(question, frames=()))
    return tuple(asked), tuple(skipped)
