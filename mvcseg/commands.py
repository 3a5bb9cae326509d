"""What each command does with its arguments: open the inputs, call the library, write and print the result."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvcseg import data, loading, vlm
from mvcseg.compare_command import vlm_compare as vlm_compare
from mvcseg.correct_command import CHANGES_FILE, ask_and_log, print_result
from mvcseg.correct_command import correct as correct
from mvcseg.data.class_list import class_names_of, read_class_list
from mvcseg.data.files import shown, write_aside, write_json
from mvcseg.errors import ConfigError, UsageError, VLMUnavailableError
from mvcseg.eval_command import evaluate as evaluate
from mvcseg.label_folders import (
    check_apart,
    folder_for_labels,
    made_folder,
    names_of_classes,
    predicted_labels,
    write_labels,
)
from mvcseg.option_checks import check_predict, views_of
from mvcseg.progress import frame_progress, progress_bar, watched_frames
from mvcseg.segmenter import Video
from mvcseg.train_command import train as train
from mvcseg.vlm.changes import add_changes, changes_of_others
from mvcseg.vlm_options import (
    ANSWERS_FOLDER,
    backend_of,
    check_backend,
    groups_of,
    has_backend,
    kept_answers,
    prompt_of,
)


def demo(options: argparse.Namespace) -> None:
    """``mvcseg demo``."""
    from mvcseg.demo import demo as run_demo

    run_demo(out=options.out)


def predict(options: argparse.Namespace) -> None:
    """``mvcseg predict``."""
    from mvcseg.causal_prediction import is_causal, predict_causally
    from mvcseg.prediction import predict_to_folder, shard

    check_predict(options)
    views = views_of(options)
    device = loading.choose_device(options.device)
    if options.checkpoint is not None:
        loaded = _load(options.checkpoint, options, device=device)
    else:
        loaded = loading.load_function(options.segmenter, device=device, weights=options.weights)
    class_names = _names_for(loaded, options)
    short_side, long_side = _test_size(loaded, options)
    if options.video == "-" and not options.tta and is_causal(loaded.segmenter):
        count = predict_causally(
            data.iter_frames(sys.stdin.buffer),
            loaded.segmenter,
            out=options.out,
            class_names=class_names,
            short_side=short_side,
            long_side=long_side,
            raw_ids=options.raw_ids,
        )
        print(f"{_counted(count, 'label map')}: {shown(options.out)}")
        return
    with _videos_of(options) as videos, frame_progress() as progress:
        done = predict_to_folder(
            videos if options.shard is None else shard(videos, options.shard),
            loaded.segmenter,
            out=options.out,
            class_names=class_names,
            clip_length=options.clip_length,
            views=views,
            short_side=short_side,
            long_side=long_side,
            raw_ids=options.raw_ids,
            model=loaded.identity,
            progress=progress,
        )
    kept = f" ({done.kept} were there)" if done.kept else ""
    maps = _counted(done.written + done.kept, "label map")
    print(f"{_counted(done.videos, 'video')}, {maps}{kept}: {shown(options.out)}")


def run(options: argparse.Namespace) -> None:
    """``mvcseg run``."""
    from mvcseg.flow import farneback_on
    from mvcseg.pipeline import run_video
    from mvcseg.tta import scaled_views

    check_backend(options)
    views = views_of(options)
    if len(set(options.checkpoint)) != len(options.checkpoint):
        raise UsageError("run: expected different --checkpoint files, got one twice")
    video = data.open_video(options.video)
    check_apart(options.out, video, read=[])
    device = loading.choose_device(options.device)
    loaded = {name: _load(name, options, device=device) for name in options.checkpoint}
    class_names, (short_side, long_side) = _agreed(loaded, options)
    out = made_folder(options.out)
    # what cannot be written or asked is refused before anything is predicted
    folder_for_labels(out, video)
    changes_of_others(out / CHANGES_FILE, video=video.name)
    groups = groups_of(options, class_names) if has_backend(options) else ()
    answering = None
    if has_backend(options):
        answering = kept_answers(backend_of(options, device=device, video=video.name), out / ANSWERS_FOLDER)
    with watched_frames(video) as watched:
        result = run_video(
            watched,
            {name: model.segmenter for name, model in loaded.items()},
            num_classes=len(class_names),
            clip_length=options.clip_length,
            views=scaled_views(video.size, views, short_side=short_side, long_side=long_side),
            flow=farneback_on(device) if len(loaded) > 1 else None,
        )
    labels, correction = result.labels.to(torch.uint8), None
    write_labels(out, video, labels, class_names=class_names)  # kept, whatever becomes of the questions
    write_json(out / "choice.json", {"name": result.choice.name, "scores": result.choice.scores})
    for name, score in result.choice.scores.items():
        print(f"{score:.6f}  {shown(name)}{'  <- chosen' if name == result.choice.name else ''}")
    log = out / CHANGES_FILE
    if answering is None:
        add_changes(log, (), video=video.name)
    else:
        correction, log = ask_and_log(
            video,
            labels,
            out=out,
            vlm=answering,
            groups=groups,
            class_names=class_names,
            prompt=prompt_of(None, view="outline"),
            min_area=options.min_area,
            max_area=options.max_area,
            max_questions=options.max_questions,
        )
        labels = correction.labels
        print_result(correction, answering, options)
    page = _write_looks(out, video, labels, correction, class_names=class_names)
    print(f"{_counted(len(video), 'label map')}, {shown(out / 'overlay.mp4')}, {shown(page)}")
    if correction is not None and correction.unavailable:
        raise VLMUnavailableError(
            f"no question got an answer, the label maps are as predicted: {correction.unavailable}; {shown(log)} holds "
            "the log"
        )


def _agreed(
    loaded: Mapping[str, loading.Loaded], options: argparse.Namespace
) -> tuple[Sequence[str], tuple[int | None, int | None]]:
    """Class names and test size, which the models of a run have in common."""
    first, *others = loaded
    for name in others:
        if loaded[name].class_names != loaded[first].class_names:
            raise ConfigError(f"checkpoint: {shown(name)} has other classes than {shown(first)}")
    sizes = {_test_size(model, options) for model in loaded.values()}
    if len(sizes) > 1:
        raise ConfigError(
            "checkpoint: the models are tested at different sizes; --short-side N|native sets one for all"
        )
    return loaded[first].class_names, sizes.pop()


def _write_looks(
    out: Path, video: Any, labels: Tensor, correction: vlm.Correction | None, *, class_names: Sequence[str]
) -> Path:
    """Write the overlay video and the page; returns the page."""
    from mvcseg.report import PageVideo, write_page

    colours = data.class_colours(class_names)
    fps = video.fps or 15.0
    data.write_video(out / "overlay.mp4", _overlays(video, labels, colours), fps=fps)
    shown_video = PageVideo(
        name=video.name,
        frames=video,
        predictions={"mvcseg run": labels},
        frame_names=video.frame_names,
        fps=fps,
        changes=[] if correction is None else [change.row() for change in correction.changes],
    )
    return write_page(
        out / "report.html", title=video.name, videos=[shown_video], class_names=class_names, colours=colours
    )


def select(options: argparse.Namespace) -> None:
    """``mvcseg select``."""
    from mvcseg.ensemble.flow_ssim import select_model
    from mvcseg.flow import FarnebackFlow

    if len(options.predictions) < 2:
        raise UsageError("select: expected at least two PRED folders to choose from, got one")
    if len(set(options.predictions)) != len(options.predictions):
        raise UsageError("select: expected different PRED folders, got one twice")
    video = data.open_video(options.video)
    folders = {name: predicted_labels(name, video) for name in options.predictions}
    check_apart(options.out, video, read=[labels.folder for labels in folders.values()])
    class_names = names_of_classes(options.predictions, classes=options.classes)
    with watched_frames(video) as watched:
        chosen = select_model(watched, folders, num_classes=len(class_names), flow=FarnebackFlow())
    source = folders[chosen.name].folder
    target = folder_for_labels(options.out, video)
    for name in video.frame_names:
        with write_aside(target / f"{name}.png") as aside:
            shutil.copyfile(source / f"{name}.png", aside)
    data.write_classes(options.out, class_names, data.class_colours(class_names))
    write_json(Path(options.out, "choice.json"), {"name": chosen.name, "scores": chosen.scores})
    if options.json:
        print(json.dumps({"name": chosen.name, "scores": chosen.scores}))
        return
    for name, score in chosen.scores.items():
        print(f"{score:.6f}  {shown(name)}{'  <- chosen' if name == chosen.name else ''}")


def report(options: argparse.Namespace) -> None:
    """``mvcseg report``."""
    from mvcseg.flow import FarnebackFlow
    from mvcseg.reporting import report as write_report
    from mvcseg.reporting import report_run

    if options.video is None and options.run is not None:
        if options.labels or options.changes:
            raise UsageError("report: --labels and --changes go with VIDEO and PRED")
        print(shown(report_run(options.run, out=options.out)))
        return
    if not options.predictions:
        raise UsageError("report: expected VIDEO and at least one PRED, or --run DIR alone")
    with frame_progress() as progress:
        page = write_report(
            options.video,
            options.predictions,
            labels=options.labels,
            changes=options.changes,
            run=options.run,
            flow=FarnebackFlow() if options.flicker else None,
            out=options.out,
            progress=progress,
        )
    print(shown(page))


def inspect(options: argparse.Namespace) -> None:
    """``mvcseg inspect``."""
    from mvcseg.models.dvis import explain

    explanation = explain(options.checkpoint)
    print(json.dumps(explanation.to_dict()) if options.json else explanation)


def check_data(options: argparse.Namespace) -> None:
    """``mvcseg data check``."""
    from mvcseg.data.check import check_folder

    with progress_bar("videos") as progress:
        checked = check_folder(options.folder, progress=progress)
    print(checked)


def _load(path: str, options: argparse.Namespace, *, device: torch.device) -> loading.Loaded:
    return loading.load_checkpoint(path, preset=options.preset, device=device, spill_folder=options.spill_dir)


def _test_size(loaded: loading.Loaded, options: argparse.Namespace) -> tuple[int | None, int | None]:
    """Shorter side of the frames the model sees, and the cap on the longer one; None for the video's own."""
    if options.short_side == "model":
        return loaded.short_side, loaded.long_side
    return (None if options.short_side == "native" else options.short_side), None


def _names_for(loaded: loading.Loaded, options: argparse.Namespace) -> Sequence[str]:
    """Names from --classes, else the model's own, else the data set's where it has as many classes."""
    own, count = loaded.class_names, len(loaded.class_names)
    if options.classes is not None:
        return read_class_list(options.classes)
    if options.vspw is None:
        return own
    names = class_names_of(options.vspw)
    if len(names) != count:
        print(f"note: the model has {count} classes, {shown(options.vspw)} has {len(names)}", file=sys.stderr)
        return own
    return names if own == loading.numbered_classes(count) else own


@contextmanager
def _videos_of(options: argparse.Namespace) -> Iterator[list[Any]]:
    """The split's videos, the one named, or the one on standard input."""
    if options.vspw is not None:
        yield [video.frames for video in data.VSPW(options.vspw, split=options.split)]
    elif options.video == "-":
        with data.spool_video(sys.stdin.buffer) as video:
            yield [video]
    else:
        yield [data.open_video(options.video)]


def _overlays(video: Video, labels: Tensor, colours: np.ndarray[Any, np.dtype[np.uint8]]) -> Iterator[Tensor]:
    from mvcseg.report import overlay

    for start in range(0, len(video), 8):
        stop = min(start + 8, len(video))
        yield overlay(video[start:stop], labels[start:stop].to(torch.uint8).cpu(), colours=torch.from_numpy(colours))


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
