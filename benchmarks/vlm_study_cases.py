"""A prediction of a video with every question about it, its truth, and the scores after any answers.

Tubes do not depend on the answers. So they are found once, and what an answerer changes is read off counts kept for
every tube: exactly what `correct_labels` and the metrics give, which the study checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from camvid_scores import NUM_CLASSES, Clip
from camvid_segmenters import CLASS_NAMES
from numpy.typing import NDArray
from torch import Tensor
from vlm_study_answers import NONE, Asked, Errors, draws, voted, wrong_names

from mvcseg.flow import FlowEstimator
from mvcseg.metrics import MeanIoU, VideoConsistency
from mvcseg.ops.confusion import confusion_matrix
from mvcseg.vlm import Group, Question, images_digest, plan_questions, question_images
from mvcseg.vlm.areas import areas
from mvcseg.vlm.groups import asked_by

VIEWS = 3
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """One prediction of one video and what is asked about it.

    Attributes:
        clip: the video.
        labels: its prediction, uint8 ``(T, H, W)``.
        questions: one a tube, the largest first.
        asked: the views of each question.
        number: position of the tube that owns a pixel, -1 for none, ``(T, H, W)``.
        confusion: of the prediction, ``(K, K + 1)``.
        counts: what each tube adds to it, ``(tubes, K, K)``.
        too_small: tubes that were left out.
    """

    clip: Clip
    labels: Tensor
    questions: tuple[Question, ...]
    asked: tuple[tuple[Asked, ...], ...]
    number: NDArray[np.int32]
    confusion: Counts
    counts: Counts
    too_small: int

    @property
    def peaks(self) -> NDArray[np.float64]:
        """Largest share of a frame that each tube covers."""
        pixels = [max(seen.pixels for seen in question.tube.seen.values()) for question in self.questions]
        return np.array(pixels, dtype=np.float64) / self.labels[0].numel()

    def only(self, keep: NDArray[np.bool_]) -> Case:
        """The case if nobody asked about the other tubes."""
        chosen = np.flatnonzero(keep)
        place = np.full(len(keep) + 1, -1, np.int32)  # the last entry stands for pixels of no tube
        place[chosen] = np.arange(len(chosen))
        return replace(
            self,
            questions=tuple(self.questions[position] for position in chosen),
            asked=tuple(self.asked[position] for position in chosen),
            number=place.take(self.number, mode="wrap"),
            counts=self.counts[chosen],
        )

    def without_way_out(self) -> Case:
        """The case if no answerer could say "none of these": right is the offered class that most pixels have.

        Where no pixel has any of them, the first one offered counts as right.
        """
        asked = []
        for views, counts, question in zip(self.asked, self.counts, self.questions, strict=True):
            best = max(question.choices, key=lambda index: counts[index].sum())
            asked.append(tuple(replace(view, truth=question.choices[best]) for view in views))
        return replace(self, asked=tuple(asked))

    @property
    def whole(self) -> Counts:
        """The class of a tube that is all of one class, else `NONE`."""
        shares = [question.tube.shares for question in self.questions]
        return np.array([share[0][0] if len(share) == 1 else NONE for share in shares], dtype=np.int64)


def case_of(
    clip: Clip, labels: Tensor, *, groups: Sequence[Group], flow: FlowEstimator | None, min_area: float = 0.001
) -> Case:
    """Plan the questions about a prediction, and look up what is true."""
    plan = plan_questions(
        clip.frames, labels, groups=groups, class_names=CLASS_NAMES, flow=flow, min_area=min_area, views=VIEWS
    )
    number = tube_numbers(labels, plan.questions, groups=groups)
    truth = clip.labels.numpy()
    is_counted = (number >= 0) & (truth < NUM_CLASSES)
    index = (number[is_counted].astype(np.int64) * NUM_CLASSES + truth[is_counted]) * NUM_CLASSES
    index += labels.numpy()[is_counted]
    size = len(plan.questions) * NUM_CLASSES**2
    counts = np.bincount(index, minlength=size).reshape(-1, NUM_CLASSES, NUM_CLASSES)
    asked = []
    for position, question in enumerate(plan.questions):
        true_name = _truth(counts[position], question)
        pictures = question_images(clip.frames, labels, question, groups=groups)
        asked.append(
            tuple(
                Asked(f"{clip.name} {position}", images_digest([image]), true_name, tuple(question.choices.values()))
                for image in pictures
            )
        )
    confusion = confusion_matrix(labels, clip.labels, num_classes=NUM_CLASSES).numpy()
    return Case(clip, labels, plan.questions, tuple(asked), number, confusion, counts, plan.too_small)


def tube_numbers(labels: Tensor, questions: Sequence[Question], *, groups: Sequence[Group]) -> NDArray[np.int32]:
    """Which question is about a pixel, ``(T, H, W)``, -1 for none."""
    number = np.full(labels.shape, -1, np.int32)
    classes = asked_by(groups)
    for frame in range(len(labels)):
        found = areas(labels[frame].numpy(), classes=classes)
        owner = np.full(int(found.max()) + 1, -1, np.int32)
        for position, question in enumerate(questions):
            owner[list(question.tube.parts.get(frame, ()))] = position
        number[frame] = owner[found]
    return number


def _truth(counts: Counts, question: Question) -> str | None:
    """The name of the class most labelled pixels have; None where it is not offered, or no pixel is labelled."""
    true = counts.sum(axis=1)
    return question.choices.get(int(true.argmax())) if true.any() else None


@dataclass(frozen=True)
class Draw:
    """One seed's luck: whom the answerers of every accuracy get wrong, and what they say then.

    Attributes:
        luck: an answerer errs where its accuracy is not above this, ``(tubes, VIEWS)``.
        wrong: the class it names then.
        truth: the class it names else, `NONE` for none, ``(tubes, 1)``.
    """

    luck: NDArray[np.float64]
    wrong: Counts
    truth: Counts


def draw(case: Case, *, seed: int, errors: Errors) -> Draw:
    """What an `Answerer` of this seed would say to every view, whatever its accuracy."""
    shape = (len(case.questions), VIEWS)
    luck, wrong, truth = np.zeros(shape), np.full(shape, NONE, np.int64), np.full((shape[0], 1), NONE, np.int64)
    for row, (question, views) in enumerate(zip(case.questions, case.asked, strict=True)):
        ids = {name: index for index, name in question.choices.items()}
        truth[row] = NONE if views[0].truth is None else ids[views[0].truth]
        for column, asked in enumerate(views):
            luck[row, column], other = draws(asked, seed=seed, errors=errors)
            names = wrong_names(asked)
            wrong[row, column] = ids[names[int(other * len(names))]]
    return Draw(luck, wrong, truth)


def new_classes(case: Case, lot: Draw, *, accuracy: float, views: int = 1, agreement: float = 1.0) -> Counts:
    """The class each tube gets, `NONE` where it stays as it was."""
    answers = np.where(lot.luck < accuracy, lot.truth, lot.wrong)
    available = np.array([min(views, len(asked)) for asked in case.asked], dtype=np.int64)
    return voted(answers, available, case.whole, agreement=agreement)


def mean_iou_after(cases: Sequence[Case], news: Sequence[Counts]) -> float:
    """Mean IoU in percent over videos whose tubes have got new classes."""
    total = np.zeros((NUM_CLASSES, NUM_CLASSES + 1), dtype=np.int64)
    for case, new in zip(cases, news, strict=True):
        total += case.confusion
        is_changed = new != NONE
        total[:, :NUM_CLASSES] -= case.counts[is_changed].sum(axis=0)
        true = case.counts[is_changed].sum(axis=2)
        np.add.at(total.T, new[is_changed], true)
    return mean_iou_of(total)


def mean_iou_of(confusion: Counts) -> float:
    """Mean IoU in percent of a confusion matrix ``(K, K + 1)``."""
    metric = MeanIoU(NUM_CLASSES)
    metric.state += torch.from_numpy(confusion)
    return 100 * metric.compute()


def painted(case: Case, new: Counts) -> Tensor:
    """The labels in which tubes have their new classes."""
    kept = NUM_CLASSES  # no class, so it can stand for pixels that keep theirs
    table = np.append(np.where(new == NONE, kept, new), kept).astype(np.uint8)
    after = table.take(case.number, mode="wrap")
    np.copyto(after, case.labels.numpy(), where=after == kept)
    return torch.from_numpy(after)


def consistency(cases: Sequence[Case], labels: Sequence[Tensor], *, length: int = 8) -> float:
    """VC over the videos in percent."""
    metric = VideoConsistency(length)
    for case, pred in zip(cases, labels, strict=True):
        metric.update(pred, case.clip.raw_labels)
    return 100 * metric.compute()
