"""Who is asked about look-alike classes, and about which, as the options of ``mvcseg correct`` and ``run`` say it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from mvcseg import vlm
from mvcseg.data.files import read_json, shown
from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import ConfigError, DataError, UsageError

ANSWERS_FOLDER = ".answers"
"""Where answers are kept, in the output folder, unless ``--cache`` says otherwise."""


def check_backend(options: argparse.Namespace) -> None:
    """Require options that name a model in full.

    Raises:
        UsageError: one of ``--vlm`` and ``--model`` is missing.
        DataError: the folder of a model is none.
    """
    if (options.vlm is None) != (options.model is None):
        raise UsageError("--vlm URL and --model NAME go together")
    # transformers takes what is no folder for a name on a hub, and asks there
    for folder, kind in ((options.local, "an image-text model"), (options.zero_shot, "a CLIP or SigLIP model")):
        if folder is not None and not Path(folder).is_dir():
            raise DataError(f"{shown(folder)}: expected a folder of {kind}, got none")


def has_backend(options: argparse.Namespace) -> bool:
    """Whether anyone is to be asked."""
    return any(value is not None for value in (options.vlm, options.local, options.zero_shot, options.answers))


def backend_of(options: argparse.Namespace, *, device: torch.device, video: str = "") -> vlm.VLM:
    """The model that the options name.

    Args:
        options: of the command.
        device: for models in this process.
        video: name of the video that is asked about; see `recorded_answers`.

    Raises:
        ConfigError: a URL that may not be, or a key that is missing.
        CheckpointError: a folder holds no such model.
        DataError: recorded answers cannot be read.
        MissingExtraError: a package is not installed.
    """
    if options.answers is not None:
        return recorded_answers(options.answers, video=video)
    if options.local is not None:
        return vlm.LocalVLM(options.local, device=device)
    if options.zero_shot is not None:
        return vlm.ZeroShotScorer(options.zero_shot, device=device)
    return vlm.OpenAIVLM(base_url=options.vlm, model=options.model)


def recorded_answers(path: str | Path, *, video: str) -> vlm.ReplayVLM:
    """Answers from a file; of a log that holds this video and others, those about this video and about none named.

    Others' answers do no harm by themselves, but a log is asked about as many views as it holds of one thing, and
    another video may have been asked about more.

    Raises:
        ConfigError: what the file holds is no answers.
        DataError: it cannot be read.
    """
    entries = read_json(path)
    names = {e.get("video") for e in entries if isinstance(e, dict)} if isinstance(entries, list) else set()
    if video not in names or len(names) == 1:
        return vlm.ReplayVLM(path)
    return vlm.ReplayVLM([e for e in entries if isinstance(e, dict) and e.get("video", "") in ("", video)])


def kept_answers(backend: vlm.VLM, folder: str | Path) -> vlm.VLM:
    """The same model with its answers kept in a folder; recorded answers are kept already.

    Raises:
        DataError: the folder cannot be made.
    """
    return backend if isinstance(backend, vlm.ReplayVLM) else vlm.CachedVLM(backend, folder)


def groups_of(options: argparse.Namespace, class_names: Sequence[str]) -> Sequence[vlm.Group]:
    """The groups from ``--groups``, else VSPW's.

    Raises:
        ConfigError: the classes are not VSPW's and no groups are given.
        DataError: the file cannot be read.
    """
    if options.groups is not None:
        return vlm.read_groups(options.groups, class_names=class_names)
    if tuple(class_names) != VSPW_CLASSES:
        raise ConfigError("groups: the classes are not VSPW's, so name the look-alike ones with --groups F")
    return vlm.VSPW_GROUPS


def prompt_of(name: str | None, *, view: str) -> str:
    """The text of a question: by name, as given, or the one that fits what is shown.

    Example:
        >>> prompt_of(None, view="outline") == vlm.OUTLINE_PROMPT, prompt_of(None, view="frame") == vlm.REPORT_PROMPT
        (True, True)
        >>> prompt_of("What {stuff} is it: {classes}?", view="mark")
        'What {stuff} is it: {classes}?'
    """
    if name is None:
        return vlm.PROMPTS[{"frame": "report"}.get(view, view)]
    return vlm.PROMPTS.get(name, name)
