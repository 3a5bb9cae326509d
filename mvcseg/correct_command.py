"""What ``mvcseg correct`` does with its arguments: the bill before, the questions, the summary after."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from mvcseg import data, vlm
from mvcseg.data.files import shown
from mvcseg.errors import UsageError, VLMUnavailableError
from mvcseg.flow import FarnebackFlow
from mvcseg.label_folders import (
    check_apart,
    folder_for_labels,
    made_folder,
    names_of_classes,
    predicted_labels,
    write_labels,
)
from mvcseg.loading import choose_device
from mvcseg.prediction import NamedVideo
from mvcseg.progress import progress_bar, watched_frames
from mvcseg.segmenter import Video
from mvcseg.vlm.changes import Status, add_changes, changes_of_others
from mvcseg.vlm_options import (
    ANSWERS_FOLDER,
    backend_of,
    check_backend,
    groups_of,
    has_backend,
    kept_answers,
    prompt_of,
    recorded_answers,
)

CHANGES_FILE = "changes.json"
"""Record of a correction, beside the label maps' folder."""
FAILED_FILE = "changes.failed.json"
"""The same of a run that found nobody to ask: it leaves the record of a better one alone."""
_WIDTH = 80
_MOST_LINES = 40


def correct(options: argparse.Namespace) -> None:
    """``mvcseg correct``."""
    check_backend(options)
    if not options.dry_run and not has_backend(options):
        raise UsageError(
            "correct: expected one of --vlm URL --model NAME, --local DIR, --zero-shot DIR, --answers F or --dry-run"
        )
    video = data.open_video(options.video)
    labels = predicted_labels(options.prediction, video)
    class_names = names_of_classes([options.prediction], classes=options.classes)
    asked: dict[str, Any] = {
        "groups": groups_of(options, class_names),
        "class_names": class_names,
        "flow": FarnebackFlow() if options.flow == "farneback" else None,
        "min_area": options.min_area,
        "max_area": options.max_area,
        "views": options.views,
        "view": options.view,
        "prompt": prompt_of(options.prompt, view=options.view),
        "max_questions": options.max_questions,
    }
    if options.dry_run:
        if options.answers is not None:
            asked["views"] = vlm.most_views(recorded_answers(options.answers, video=video.name), options.views)
        with watched_frames(video) as watched:
            plan = vlm.plan_questions(watched, labels, **asked)
        _print_bill(plan, options)
        _print_questions(plan.questions, class_names)
        return
    check_apart(options.out, video, read=[labels.folder])
    out = made_folder(options.out)
    # what cannot be written is refused before anything is paid for
    folder_for_labels(out, video)
    changes_of_others(out / CHANGES_FILE, video=video.name)
    backend = backend_of(options, device=choose_device(options.device), video=video.name)
    answering = kept_answers(backend, options.cache or out / ANSWERS_FOLDER)
    correction, log = ask_and_log(
        video,
        labels,
        out=out,
        vlm=answering,
        agreement=options.agreement,
        concurrency=options.concurrency,
        **asked,
    )
    print_result(correction, answering, options)
    if correction.unavailable:
        raise VLMUnavailableError(
            f"no question got an answer, no label map is written: {correction.unavailable}; {shown(log)} holds the log"
        )
    print(shown(options.out))


def ask_and_log(
    video: NamedVideo, labels: Video, *, out: Path, class_names: Sequence[str], **asked: Any
) -> tuple[vlm.Correction, Path]:
    """Correct the labels of a video and write the log, and the label maps unless no question got an answer.

    Args:
        video: the frames.
        labels: class ids ``(T, H, W)``.
        out: folder to write to.
        class_names: name of every class, by id.
        asked: further arguments of `correct_labels`.

    Returns:
        What came of it, and the log: ``changes.json``, or ``changes.failed.json`` where no question got one.

    Raises:
        DataError: something cannot be written.
    """
    with watched_frames(video) as watched, progress_bar("regions") as progress:
        correction = vlm.correct_labels(watched, labels, class_names=class_names, progress=progress, **asked)
    log = out / (FAILED_FILE if correction.unavailable else CHANGES_FILE)
    add_changes(log, correction.changes, video=video.name)
    if not correction.unavailable:
        write_labels(out, video, correction.labels, class_names=class_names)
    return correction, log


def _print_bill(plan: vlm.Plan, options: argparse.Namespace) -> None:
    print(
        f"at most {_counted(plan.count, 'question')}, one image each, about {_counted(len(plan.questions), 'region')}"
    )
    print(f"about {plan.prompt_tokens:,} tokens of questions and images, {plan.completion_tokens:,} of answers")
    cost = _cost(plan.prompt_tokens, plan.completion_tokens, options)
    if cost:
        print(f"cost at most about {cost}, at the prices given")
    if plan.too_small:
        print(f"left alone as smaller than --min-area: {_counted(plan.too_small, 'region')}")
    if plan.too_large:
        print(f"left alone as larger than --max-area: {_counted(plan.too_large, 'region')}")
    if plan.skipped:
        print(f"left out by --max-questions: {_counted(len(plan.skipped), 'region')}")


def _print_questions(questions: Sequence[vlm.Question], class_names: Sequence[str]) -> None:
    """Every text once, and below it the regions it is asked about."""
    for text in dict.fromkeys(question.text for question in questions):
        print()
        _print_wrapped(text)
        print("  frames     left  top right bottom  shown in frames, class now")
        for question in questions:
            if question.text == text:
                frames = f"{question.tube.frames[0]}-{question.tube.frames[1]}"
                box = "{:4} {:4} {:5} {:6}".format(*question.tube.box)
                names = ", ".join(class_names[index] for index, _ in question.tube.shares)
                print(shown(f"  {frames:<10} {box}  {', '.join(map(str, question.frames))}: {names}"))


def print_result(correction: vlm.Correction, answering: vlm.VLM, options: argparse.Namespace) -> None:
    """Print what became of the regions, how many questions were asked, and what they cost."""
    lines = list(_lines(correction.changes))
    for line in lines[:_MOST_LINES]:
        _print_wrapped(line)
    if len(lines) > _MOST_LINES:
        print(f"... and {len(lines) - _MOST_LINES} more in {CHANGES_FILE}")
    counts = ", ".join(f"{number} {status}" for status in get_args(Status) if (number := correction.count(status)))
    print(f"{_counted(len(correction.changes), 'region')}{': ' if counts else ''}{counts}")
    asked = sum(len(change.answers) for change in correction.changes)
    if isinstance(answering, vlm.CachedVLM) and answering.found:
        print(f"{_counted(asked, 'question')} asked, {answering.found} of them answered by what was kept")
    else:
        print(f"{_counted(asked, 'question')} asked")
    usage = getattr(answering, "usage", None)
    if isinstance(usage, vlm.Usage) and usage.requests:
        cost = _cost(usage.prompt_tokens, usage.completion_tokens, options)
        unknown = f"; {_counted(usage.unreported, 'answer')} did not say" if usage.unreported else ""
        print(
            f"tokens by the server's count: {usage.prompt_tokens:,} in, {usage.completion_tokens:,} out{unknown}"
            f"{f'; cost about {cost}' if cost else ''}"
        )


def _lines(changes: Sequence[vlm.Change]) -> Iterator[str]:
    """A line for each region that was changed or not decided, and one for all that were not asked about."""
    for change in changes:
        first, last = change.frames
        where = f"frames {first}-{last}, {change.from_name}"
        if change.status == "changed":
            yield f"changed: {where} -> {change.to_name}"
        elif change.status in ("unclear", "failed"):
            yield f"{change.status}: {where} ({change.reason})"
    for reason in dict.fromkeys(change.reason for change in changes if change.status == "skipped"):
        count = sum(change.status == "skipped" and change.reason == reason for change in changes)
        yield f"skipped: {_counted(count, 'region')} ({reason})"


def _cost(prompt_tokens: int, completion_tokens: int, options: argparse.Namespace) -> str:
    """The money that tokens cost, as a text; empty where no price is given."""
    if options.price_input is None and options.price_output is None:
        return ""
    millions = prompt_tokens * (options.price_input or 0) + completion_tokens * (options.price_output or 0)
    return f"{millions / 1e6:.2f}" if millions >= 1e6 else f"{millions / 1e6:.4f}"


def _print_wrapped(text: str) -> None:
    print(textwrap.fill(shown(text), width=_WIDTH, subsequent_indent="  ", break_on_hyphens=False))


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
