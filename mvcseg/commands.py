"""What each command does with its arguments: open the inputs, call the library, write and print the result."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvcseg import data, loading, vlm
from mvcseg.data.class_list import class_names_of, read_class_list
from mvcseg.data.files import shown, write_aside, write_json
from mvcseg.data.label_maps import CLASSES_FILE
from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import ConfigError, DataError, UsageError
from mvcseg.eval_command import evaluate as evaluate
from mvcseg.option_checks import check_predict, views_of
from mvcseg.progress import frame_progress, progress_bar, watched_frames
from mvcseg.segmenter import Video
from mvcseg.train_command import train as train

CHANGES_FILE = "changes.json"
"""Record of a correction, beside the label maps' folder."""


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
    from mvcseg.flow import FarnebackFlow
    from mvcseg.pipeline import run_video
    from mvcseg.report import PageVideo, write_page
    from mvcseg.tta import scaled_views

    _check_backend(options)
    views = views_of(options)
    if len(set(options.checkpoint)) != len(options.checkpoint):
        raise UsageError("run: expected different --checkpoint files, got one twice")
    video = data.open_video(options.video)
    device = loading.choose_device(options.device)
    loaded = {name: _load(name, options, device=device) for name in options.checkpoint}
    class_names = next(iter(loaded.values())).class_names
    for name, model in loaded.items():
        if model.class_names != class_names:
            raise ConfigError(f"checkpoint: {shown(name)} has other classes than {shown(options.checkpoint[0])}")
    test_sizes = {_test_size(model, options) for model in loaded.values()}
    if len(test_sizes) > 1:
        raise ConfigError(
            "checkpoint: the models are tested at different sizes; --short-side N|native sets one for all"
        )
    short_side, long_side = test_sizes.pop()
    out = _new_folder(options.out)
    is_asked = options.vlm is not None or options.answers is not None
    with watched_frames(video) as watched:
        result = run_video(
            watched,
            {name: model.segmenter for name, model in loaded.items()},
            num_classes=len(class_names),
            clip_length=options.clip_length,
            views=scaled_views(video.size, views, short_side=short_side, long_side=long_side),
            flow=FarnebackFlow() if len(loaded) > 1 else None,
            vlm=_backend(options, out) if is_asked else None,
            groups=_groups(options, class_names) if is_asked else (),
            class_names=class_names,
        )
    colours = data.class_colours(class_names)
    _write_labels(out, video, result.labels, class_names)
    write_json(out / "choice.json", {"name": result.choice.name, "scores": result.choice.scores})
    vlm.write_changes(out / CHANGES_FILE, result.changes)
    fps = video.fps or 15.0
    data.write_video(out / "overlay.mp4", _overlays(video, result.labels, colours), fps=fps)
    shown_video = PageVideo(
        name=video.name,
        frames=video,
        predictions={"mvcseg run": result.labels},
        frame_names=video.frame_names,
        fps=fps,
        changes=[change.row() for change in result.changes],
    )
    page = write_page(
        out / "report.html", title=video.name, videos=[shown_video], class_names=class_names, colours=colours
    )
    for name, score in result.choice.scores.items():
        print(f"{score:.6f}  {shown(name)}{'  <- chosen' if name == result.choice.name else ''}")
    for status in ("changed", "confirmed", "unclear", "failed"):
        count = sum(change.status == status for change in result.changes)
        if count:
            print(f"{_counted(count, 'region')} {status}")
    print(f"{_counted(len(video), 'label map')}, {shown(out / 'overlay.mp4')}, {shown(page)}")


def select(options: argparse.Namespace) -> None:
    """``mvcseg select``."""
    from mvcseg.ensemble.flow_ssim import select_model
    from mvcseg.flow import FarnebackFlow

    if len(options.predictions) < 2:
        raise UsageError("select: expected at least two PRED folders to choose from, got one")
    if len(set(options.predictions)) != len(options.predictions):
        raise UsageError("select: expected different PRED folders, got one twice")
    video = data.open_video(options.video)
    folders = {name: _label_folder(name, video) for name in options.predictions}
    class_names = _class_names(options)
    with watched_frames(video) as watched:
        chosen = select_model(watched, folders, num_classes=len(class_names), flow=FarnebackFlow())
    source = folders[chosen.name].folder
    target = _labels_folder(options.out, video)
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


def correct(options: argparse.Namespace) -> None:
    """``mvcseg correct``."""
    _check_backend(options)
    if not options.dry_run and options.vlm is None and options.local is None and options.answers is None:
        raise UsageError("correct: expected one of --vlm URL --model NAME, --local DIR, --answers F or --dry-run")
    video = data.open_video(options.video)
    labels = _label_folder(options.prediction, video)
    class_names = _class_names(options)
    groups = _groups(options, class_names)
    if options.dry_run:
        plan = vlm.plan_questions(video, labels, groups=groups, class_names=class_names)
        asked = plan.questions[: options.max_questions]
        print(f"{_counted(len(asked), 'question')}, one image each; regions too small to ask about: {plan.too_small}")
        for question in asked:
            first, last = question.tube.frames
            print(f"frames {first}-{last}, box {question.tube.box}: {question.text}")
        return
    out = _new_folder(options.out)
    with progress_bar("questions") as progress:
        correction = vlm.correct_labels(
            video,
            labels,
            vlm=_backend(options, out),
            groups=groups,
            class_names=class_names,
            max_questions=options.max_questions,
            progress=progress,
        )
    _write_labels(out, video, correction.labels, class_names)
    vlm.write_changes(out / CHANGES_FILE, correction.changes)
    for change in correction.changes:
        told = f"{change.from_name} -> {change.to_name}" if change.to_name else change.from_name
        reason = f" ({change.reason})" if change.reason else ""
        print(f"{change.status}: frames {change.frames[0]}-{change.frames[1]}, {told}{reason}")
    print(f"{correction.count('changed')} of {_counted(len(correction.changes), 'region')} changed: {shown(out)}")


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


def _label_folder(prediction: str, video: Any) -> data.LabelFolder:
    """Label maps of a video, from a folder of them or one that holds a folder of the video's name."""
    folder = Path(prediction)
    own = folder / video.name
    return data.LabelFolder(own if own.is_dir() else folder, frame_names=video.frame_names)


def _class_names(options: argparse.Namespace) -> tuple[str, ...]:
    """Class names from --classes, else beside the predictions, else VSPW's."""
    predictions = getattr(options, "predictions", None) or [options.prediction]
    if options.classes is not None:
        return read_class_list(options.classes)
    lists: dict[Path, tuple[str, ...]] = {}
    for prediction in predictions:
        for path in (Path(prediction, CLASSES_FILE), Path(prediction).parent / CLASSES_FILE):
            if path.is_file():
                lists[path] = tuple(data.read_classes(path))
                break
    for path, names in lists.items():
        first, expected = next(iter(lists.items()))
        if names != expected:
            raise ConfigError(
                f"predictions: {shown(path)} lists other classes than {shown(first)}; --classes FILE names them for all"
            )
    return next(iter(lists.values()), VSPW_CLASSES)


def _groups(options: argparse.Namespace, class_names: Sequence[str]) -> Sequence[vlm.Group]:
    if options.groups is not None:
        return vlm.read_groups(options.groups, class_names=class_names)
    if tuple(class_names) != VSPW_CLASSES:
        raise ConfigError("groups: the classes are not VSPW's, so name the look-alike ones with --groups F")
    return vlm.VSPW_GROUPS


def _check_backend(options: argparse.Namespace) -> None:
    if (options.vlm is None) != (options.model is None):
        raise UsageError("--vlm URL and --model NAME go together")
    # transformers takes what is no folder for a name on a hub, and asks there
    if options.local is not None and not Path(options.local).is_dir():
        raise DataError(f"{shown(options.local)}: expected a folder of an image-text model, got none")


def _backend(options: argparse.Namespace, out: Path) -> vlm.VLM:
    if options.answers is not None:
        return vlm.ReplayVLM(options.answers)
    asked = vlm.LocalVLM(options.local) if options.local else vlm.OpenAIVLM(base_url=options.vlm, model=options.model)
    return vlm.CachedVLM(asked, out / ".answers")


def _new_folder(path: str | os.PathLike[str]) -> Path:
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot be made ({error.strerror or error})") from error
    return folder


def _labels_folder(out: str | os.PathLike[str], video: Any) -> Path:
    """The folder for a video's label maps; one that holds others than its own is refused."""
    folder = _new_folder(Path(out, video.name))
    extra = sorted({path.stem for path in folder.glob("*.png")}.difference(video.frame_names))
    if extra:
        raise DataError(
            f"{shown(folder)}: holds {len(extra)} label maps that are no frame of this video, first "
            f"{shown(extra[0])}.png; remove them or choose another output folder"
        )
    return folder


def _write_labels(out: Path, video: Any, labels: Tensor, class_names: Sequence[str]) -> None:
    colours = data.class_colours(class_names)
    folder = _labels_folder(out, video)
    for name, label_map in zip(video.frame_names, labels, strict=True):
        data.write_label_map(folder / f"{name}.png", label_map.cpu(), colours=colours)
    data.write_classes(out, class_names, colours)


def _overlays(video: Video, labels: Tensor, colours: np.ndarray[Any, np.dtype[np.uint8]]) -> Iterator[Tensor]:
    from mvcseg.report import overlay

    for start in range(0, len(video), 8):
        stop = min(start + 8, len(video))
        yield overlay(video[start:stop], labels[start:stop].to(torch.uint8).cpu(), colours=torch.from_numpy(colours))


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
