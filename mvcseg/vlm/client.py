"""The protocol of a vision-language model, and the client that replays recorded answers."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Protocol, TypeAlias, TypeGuard

import torch
from torch import Tensor

from mvcseg.data.files import read_json, shown
from mvcseg.errors import ConfigError, DTypeError, ShapeError, VLMAnswerError
from mvcseg.shapes import check_shapes
from mvcseg.vlm.prompt import PROMPTS, REPORT_PROMPT

Recorded: TypeAlias = "Mapping[str, str | Sequence[str]] | Sequence[str] | Sequence[Mapping[str, object]]"


class VLM(Protocol):
    """Anything that answers a question about images in words.

    ``vlm(images, prompt, choices=names)`` takes a sequence of uint8 ``(3, H, W)`` RGB tensors, the question, and
    the answers that would be understood, and returns what the model said, as it said it; a backend that
    cannot use ``choices`` ignores them. Where no answer came it raises, `VLMAnswerError` by preference (with its
    ``answer`` where something came that decides nothing), and whoever asked records that; `VLMUnavailableError` says
    that the next question would fare no better. `correct_labels` calls it from several threads only where told to.
    """

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        """The model's answer to ``prompt``."""
        ...


class ReplayVLM:
    """Answers recorded earlier, without a model.

    Args:
        answers: one of, or the path of a JSON file that holds one of:

            - ``{question: answer}``: that answer whenever the question is asked; a list of answers is
              used up in order, one for each time it is asked;
            - ``[answer, answer, ...]``: used up in order, whatever is asked;
            - ``[{"question": ..., "answer": ..., "image": ...}, ...]``, which is also what `write_changes` writes.
              An entry with ``image``, the `images_digest` of what was shown, answers for just those
              images, and one with ``answers``, a list of ``{"answer": ..., "image": ...}``, for each of those; the
              others answer for their question, always where it occurs once, in order where it occurs several times.
              Entries without an answer (a failure was recorded) answer nothing; other keys are ignored.

            Questions are compared with runs of white space made one space, and `PROMPTS` word one question in
            different ways: what was answered to the report's holds for an outline's too.

    Attributes:
        most_views: 1 where answers are used up in order: there is one for each thing asked about, whatever its
            views. Of a log, the most views that it holds of one thing. None where any number of views can be answered.
        in_order: whether answers are used up in order, so that only one thing at a time may be asked about.

    Raises:
        DataError: the file is missing or no JSON.
        ConfigError: what it holds is none of the three.

    Example:
        >>> vlm = ReplayVLM({"Is the water in the image a river, lake?": "The water in the image is a lake."})
        >>> vlm([], "Is the water in the image a river, lake?", choices=("river", "lake"))
        'The water in the image is a lake.'
    """

    identity = "recorded answers"

    def __init__(self, answers: Recorded | str | PathLike[str]) -> None:
        origin = "answers"
        if isinstance(answers, (str, PathLike)):
            origin = shown(answers)
            answers = read_json(answers)
        self._always: dict[str, str] = {}
        self._in_order: dict[str, list[str]] = {}
        self._by_image: dict[tuple[str, str], str] = {}
        self._for_anything: list[str] | None = None
        self._lock = threading.Lock()
        self._most_in_log = 0
        self._read(answers, origin)
        self.in_order = bool(self._in_order) or self._for_anything is not None
        self.most_views = 1 if self.in_order else self._most_in_log or None

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str] = ()) -> str:
        """The recorded answer; ``choices`` are ignored.

        Raises:
            VLMAnswerError: none is recorded, or all are used up.
        """
        question = _asked(prompt)
        if self._by_image:
            answer = self._by_image.get((question, images_digest(images)))
            if answer is not None:
                return answer
        if question in self._always:
            return self._always[question]
        waiting = self._in_order.get(question) if self._for_anything is None else self._for_anything
        if waiting is None:
            beside = " for these images" if any(key[0] == question for key in self._by_image) else ""
            raise VLMAnswerError(f"no answer is recorded{beside} to {_one_line(prompt)!r}")
        with self._lock:
            if not waiting:
                raise VLMAnswerError(f"all answers recorded to {_one_line(prompt)!r} are used up")
            return waiting.pop(0)

    def _read(self, answers: object, origin: str) -> None:
        if isinstance(answers, Mapping):
            for question, answer in answers.items():
                if isinstance(question, str) and isinstance(answer, str):
                    self._always[_asked(question)] = answer
                elif isinstance(question, str) and _is_texts(answer):
                    self._in_order[_asked(question)] = list(answer)
                else:
                    raise ConfigError(f"{origin}: expected question: answer or a list of answers, got {answer!r:.80}")
        elif _is_texts(answers) and answers:
            self._for_anything = list(answers)
        elif isinstance(answers, Sequence) and all(isinstance(entry, Mapping) for entry in answers):
            self._read_entries(answers, origin)
        else:
            raise ConfigError(
                f"{origin}: expected an object question: answer, a list of answers or a list of "
                f'{{"question", "answer"}} objects, got {answers!r:.80}'
            )

    def _read_entries(self, entries: Sequence[Mapping[str, object]], origin: str) -> None:
        anywhere: list[tuple[str, str]] = []
        for number, entry in enumerate(entries):
            question, answer, image = entry.get("question"), entry.get("answer"), entry.get("image")
            if not isinstance(question, str) or not isinstance(answer, (str, type(None))):
                raise ConfigError(
                    f'{origin}: entry {number}: expected texts "question" and "answer", got {entry!r:.80}'
                )
            views = dict(_view_answers(entry, origin=f"{origin}: entry {number}"))
            self._by_image.update({(_asked(question), shown_image): said for shown_image, said in views.items()})
            if "answers" in entry or "key_frame" in entry:  # logs of earlier versions hold one answer a thing
                self._most_in_log = max(self._most_in_log, len(views), 1)
            if answer is None or views:
                continue
            if isinstance(image, str) and image:
                self._by_image[_asked(question), image] = answer
            else:
                anywhere.append((_asked(question), answer))
        times = Counter(question for question, _ in anywhere)
        for question, answer in anywhere:
            if times[question] == 1:
                self._always[question] = answer
            else:
                self._in_order.setdefault(question, []).append(answer)


def most_views(vlm: VLM, views: int) -> int:
    """How many views of a thing to ask a model about: so many, or fewer where its ``most_views`` says so."""
    most: int | None = getattr(vlm, "most_views", None)
    return views if most is None else min(views, most)


def most_at_once(vlm: VLM, concurrency: int) -> int:
    """How many calls of a model may be under way at once: so many, or one where its ``in_order`` says so."""
    return 1 if getattr(vlm, "in_order", False) else concurrency


def images_digest(images: Sequence[Tensor]) -> str:
    """SHA-256, in hexadecimal, of the sizes and pixels of uint8 ``(3, H, W)`` images, in order.

    Raises:
        DTypeError: an image is no uint8 tensor.
        ShapeError: an image is not ``(3, H, W)``.
    """
    digest = hashlib.sha256()
    for image in check_images(images):
        digest.update(repr(tuple(image.shape)).encode())
        digest.update(image.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_images(images: Sequence[Tensor]) -> Sequence[Tensor]:
    """Require uint8 ``(3, H, W)`` tensors with at least one pixel.

    Raises:
        DTypeError: one is no uint8 tensor.
        ShapeError: one has another shape or no pixels.
    """
    for image in images:
        sizes = check_shapes(images=(image, "3 h w"))
        if image.dtype != torch.uint8:
            raise DTypeError(f"images: expected uint8, got {image.dtype}")
        if 0 in sizes.values():
            raise ShapeError(f"images: expected at least one pixel, got {tuple(image.shape)}")
    return images


def _view_answers(entry: Mapping[str, object], *, origin: str) -> Iterator[tuple[str, str]]:
    """Digest and answer of every view of an entry that was answered."""
    views = entry.get("answers", ())
    if not isinstance(views, Sequence) or not all(isinstance(view, Mapping) for view in views):
        raise ConfigError(f'{origin}: answers: expected a list of {{"answer", "image"}} objects, got {views!r:.80}')
    for view in views:
        image, answer = view.get("image"), view.get("answer")
        if not isinstance(image, str) or not isinstance(answer, (str, type(None))):
            raise ConfigError(f'{origin}: answers: expected texts "answer" and "image", got {view!r:.80}')
        if answer is not None:
            yield image, answer


def _asked(question: str) -> str:
    """A question on one line, in the report's words where it is one of `PROMPTS`."""
    line = _one_line(question)
    for prompt in PROMPTS.values():
        line = line.replace(_between(prompt), _between(REPORT_PROMPT))
    return line


def _between(prompt: str) -> str:
    return prompt.partition("{stuff}")[2].partition("{classes}")[0]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _is_texts(value: object) -> TypeGuard[Sequence[str]]:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(text, str) for text in value)
