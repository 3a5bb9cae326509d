"""Asking: one call a view, the vote of a tube's views, several tubes at once, and when to stop.

A tube's class changes only where at least ``agreement`` of its views name the same class; a view whose answer is
unclear or does not come names none. Views are asked one after another and no more than it takes: a first view
that confirms the class the whole tube has ends it, and so does an answer after which the rest cannot agree any more.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor

from mvcseg.errors import VLMAnswerError, VLMUnavailableError
from mvcseg.vlm.changes import Change, Status, ViewAnswer
from mvcseg.vlm.client import VLM, images_digest
from mvcseg.vlm.prompt import LONGEST_ANSWER, in_one_line, parse_answer
from mvcseg.vlm.questions import Question
from mvcseg.vlm.secrecy import api_key, without_key

ImageOf: TypeAlias = Callable[[Question, int], Tensor]
"""The picture of a question in a frame."""
_LEAST_IN_A_ROW = 3
_LEAST_FROM_THE_START = 10
_LONGEST_REASON = 300
_GRACE = 5.0


class Patience:
    """How many calls in a row failed, over all threads; and the word to stop.

    Nobody is there to ask where a call ends with `VLMUnavailableError`, or Python's ``ConnectionError`` or
    ``TimeoutError``. Three calls in a row are enough, or twice ``concurrency`` if that is more. Any other failure may
    be that one question's; but where the first ten calls (or twice ``concurrency``) all fail, so will the rest.

    Args:
        concurrency: how many calls one short outage fails at once.
        is_recorded: answers are recorded, those to the first questions perhaps not: only the end of all counts.

    Attributes:
        stopped: why no more is asked; empty as long as more is.
    """

    def __init__(self, *, concurrency: int = 1, is_recorded: bool = False) -> None:
        self._limit = max(_LEAST_IN_A_ROW, 2 * concurrency)
        self._first_limit = math.inf if is_recorded else max(_LEAST_FROM_THE_START, 2 * concurrency)
        self._lock = threading.Lock()
        self._in_a_row = self._failed = 0
        self._was_answered = False
        self._last = ""
        self.stopped = ""

    @property
    def unavailable(self) -> str:
        """Why no call got an answer, where that holds for every call made; else empty."""
        return "" if self._was_answered else self._last

    def note(self, error: Exception | None) -> None:
        """Say how a call ended; an error that holds an answer, one that decides nothing, is an answer."""
        with self._lock:
            if error is None or (isinstance(error, VLMAnswerError) and error.answer):
                self._was_answered, self._in_a_row = True, 0
                return
            self._last = _told(error)
            self._failed += 1
            is_nobody = isinstance(error, (VLMUnavailableError, ConnectionError, TimeoutError))
            self._in_a_row = self._in_a_row + 1 if is_nobody else 0
            if self.stopped:
                return
            if self._in_a_row >= self._limit:
                self.stopped = f"not asked: {self._limit} calls in a row found nobody to ask: {self._last}"
            elif not self._was_answered and self._failed >= self._first_limit:
                self.stopped = f"not asked: none of the first {self._failed} calls got an answer: {self._last}"

    def stop(self) -> None:
        """Ask no more."""
        self.stopped = self.stopped or "not asked: interrupted"


def ask(
    questions: Sequence[Question],
    image_of: ImageOf,
    *,
    vlm: VLM,
    class_names: Sequence[str],
    agreement: float = 1.0,
    concurrency: int = 1,
    until: Patience | None = None,
) -> Iterator[tuple[int, Change]]:
    """Ask about tubes and yield, as they come, the position of each question and what came of it.

    No failure of the model ends it; what is left when ``until`` has had enough is recorded as skipped.

    Args:
        questions: what to ask.
        image_of: makes a picture when its turn comes; never called by two threads at once. What it raises ends the run.
        vlm: who is asked; by several threads where ``concurrency`` is above 1, else by the caller's own.
        class_names: name of every class, for the records.
        agreement: share of a tube's views that must name one class, in ``(0, 1]``.
        concurrency: tubes asked about at once, each with at most one image in memory.
        until: has had enough after some calls that failed; a fresh one by default.
    """
    patience = Patience(concurrency=concurrency) if until is None else until
    lock = threading.Lock()

    def locked_image(question: Question, frame: int) -> Tensor:
        with lock:
            return image_of(question, frame)

    def work(question: Question) -> Change:
        return _decided(question, locked_image, vlm=vlm, class_names=class_names, agreement=agreement, until=patience)

    if concurrency == 1:
        yield from ((position, work(question)) for position, question in enumerate(questions))
    else:
        yield from _in_threads(work, questions, count=concurrency, until=patience)


def skipped(question: Question, class_names: Sequence[str], *, reason: str) -> Change:
    """The record of a question that was not asked."""
    return _record(question, class_names, status="skipped", reason=reason)


def _decided(
    question: Question,
    image_of: ImageOf,
    *,
    vlm: VLM,
    class_names: Sequence[str],
    agreement: float,
    until: Patience,
) -> Change:
    answers: list[ViewAnswer] = []
    failures = unasked = 0
    for number, frame in enumerate(question.frames, start=1):
        left = len(question.frames) - number
        if until.stopped:
            unasked = left + 1
            break
        known = {answer.image for answer in answers}
        answer = _asked(question, frame, image_of, vlm=vlm, class_names=class_names, known=known, until=until)
        if answer is None:
            continue
        failures += answer.answer is None
        answers.append(answer)
        if _is_confirmed(question, answers) or _is_settled(answers, left=left, agreement=agreement):
            break
    if not answers:
        return skipped(question, class_names, reason=until.stopped)
    return _verdict(question, answers, class_names=class_names, agreement=agreement, failures=failures, unasked=unasked)


def _asked(
    question: Question,
    frame: int,
    image_of: ImageOf,
    *,
    vlm: VLM,
    class_names: Sequence[str],
    known: Set[str],
    until: Patience,
) -> ViewAnswer | None:
    """What the model said about one view; None for a picture that is known, which would be paid for again."""
    image = image_of(question, frame)
    digest = images_digest([image])
    if digest in known:
        return None
    nothing = ViewAnswer(frame=frame, image=digest, answer=None)
    try:
        text = vlm([image], question.text, choices=tuple(question.choices.values()))
    # Whatever a caller's own client raises, the answers already paid for must not be lost with it.
    except Exception as error:
        until.note(error)
        undecided = error.answer if isinstance(error, VLMAnswerError) else ""
        return replace(nothing, reason=_told(error), answer=_kept(undecided) or None)
    if not isinstance(text, str):
        odd = VLMAnswerError(f"expected the answer as a text, got {type(text).__name__}")
        until.note(odd)
        return replace(nothing, reason=_told(odd))
    until.note(None)
    said = replace(nothing, answer=_kept(text))
    names = {name: index for index, name in question.choices.items()}
    try:
        chosen = names[parse_answer(text, choices=list(names), noun=question.noun, question=question.text)]
    except VLMAnswerError as unclear:
        return replace(said, reason=_told(unclear))
    return replace(said, to_class=chosen, to_name=class_names[chosen])


def _kept(answer: str) -> str:
    kept = answer if len(answer) <= LONGEST_ANSWER else answer[:LONGEST_ANSWER] + "…"
    return without_key(kept, key=api_key())


def _is_confirmed(question: Question, answers: Sequence[ViewAnswer]) -> bool:
    """Whether the first view names the class that the whole tube has: nothing to change, whatever the others say."""
    return question.tube.shares == ((answers[0].to_class, question.tube.pixels),)


def _is_settled(answers: Sequence[ViewAnswer], *, left: int, agreement: float) -> bool:
    """Whether the views left cannot change what comes out, whichever class they name."""
    votes = sorted(_votes(answers).values(), reverse=True)
    most, second = (*votes, 0, 0)[:2]
    needed = _needed(len(answers) + left, agreement)
    return most + left < needed or (most >= needed and most > second + left)


def _winner(answers: Sequence[ViewAnswer], *, of: int, agreement: float) -> int | None:
    """The class that enough of so many views name, and more than any other."""
    votes = _votes(answers).most_common(2)
    if not votes or votes[0][1] < _needed(of, agreement):
        return None
    return None if len(votes) == 2 and votes[0][1] == votes[1][1] else votes[0][0]


def _votes(answers: Sequence[ViewAnswer]) -> Counter[int]:
    return Counter(answer.to_class for answer in answers if answer.to_class is not None)


def _needed(views: int, agreement: float) -> int:
    return math.ceil(agreement * views - 1e-9)  # 0.7 of ten views is seven, whatever its last bit says


def _verdict(
    question: Question,
    answers: Sequence[ViewAnswer],
    *,
    class_names: Sequence[str],
    agreement: float,
    failures: int,
    unasked: int,
) -> Change:
    if _is_confirmed(question, answers):
        return _record(question, class_names, status="confirmed", answers=answers, to_class=answers[0].to_class)
    chosen = _winner(answers, of=len(answers) + unasked, agreement=agreement)
    if chosen is not None:
        is_same = question.tube.shares == ((chosen, question.tube.pixels),)
        status: Status = "confirmed" if is_same else "changed"
        return _record(question, class_names, status=status, answers=answers, to_class=chosen)
    votes = _votes(answers)
    is_unclear = len(votes) > 1 or votes.total() + failures < len(answers)
    told = [f"frame {answer.frame}: {answer.to_name or answer.reason}" for answer in answers]
    reason = f"the views do not agree: {'; '.join(told)}" if len(told) > 1 else answers[0].reason
    if unasked:
        reason = f"{unasked} of {len(question.frames)} views were not asked about; {reason or told[0]}"
    return _record(
        question,
        class_names,
        status="unclear" if is_unclear else "failed",
        reason=_one_line(reason),
        answers=answers,
    )


def _record(
    question: Question,
    class_names: Sequence[str],
    *,
    status: Status,
    reason: str = "",
    answers: Sequence[ViewAnswer] = (),
    to_class: int | None = None,
) -> Change:
    tube = question.tube
    first = answers[0] if answers else None
    return Change(
        status=status,
        reason=reason,
        frames=tube.frames,
        region=tube.box,
        pixels=tube.pixels,
        key_frame=tube.key_frame if first is None else first.frame,
        group=question.noun,
        from_class=tube.shares[0][0],
        from_name=", ".join(class_names[index] for index, _ in tube.shares),
        shares=tube.shares,
        to_class=to_class,
        to_name=None if to_class is None else class_names[to_class],
        question=question.text,
        answer=next((answer.answer for answer in answers if answer.answer is not None), None),
        image="" if first is None else first.image,
        answers=tuple(answers),
    )


def _in_threads(
    work: Callable[[Question], Change], questions: Sequence[Question], *, count: int, until: Patience
) -> Iterator[tuple[int, Change]]:
    """The work of several threads, as it is done. An exception of any of them ends all.

    The threads are daemons: whoever presses Ctrl-C waits a moment for answers under way, never for a server that hangs.
    """
    jobs, lock = iter(enumerate(questions)), threading.Lock()
    done: queue.SimpleQueue[tuple[int, Change] | BaseException] = queue.SimpleQueue()
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            with lock:
                position, question = next(jobs, (-1, None))
            if question is None:
                return
            try:
                done.put((position, work(question)))
            except BaseException as error:
                done.put(error)

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(count, len(questions)))]
    for thread in threads:
        thread.start()
    try:
        for _ in questions:
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        is_over.set()
        until.stop()
        deadline = time.monotonic() + _GRACE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _told(error: Exception) -> str:
    return _one_line(str(error) if isinstance(error, VLMAnswerError) else f"{type(error).__name__}: {error}")


def _one_line(text: str) -> str:
    line = in_one_line(without_key(text[: 10 * _LONGEST_REASON], key=api_key()))
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + "…"
