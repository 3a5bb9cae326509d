"""Segmenters from files, as the commands name them: a checkpoint, or a function in the user's own file."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mvcseg.data.files import shown
from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import CheckpointError, ConfigError, MvcsegError
from mvcseg.segmenter import Segmenter
from mvcseg.shapes import check_num_classes

if TYPE_CHECKING:
    from mvcseg.models.dvis import DVISConfig


@dataclass(frozen=True)
class Loaded:
    """A segmenter with what a file says about it.

    Attributes:
        segmenter: in eval mode where it is a module.
        class_names: K names.
        identity: tells these weights from others.
        short_side: shorter side of the frames it is tested with, in pixels; None is the video's own size.
        long_side: what their longer side does not exceed.
    """

    segmenter: Segmenter
    class_names: tuple[str, ...]
    identity: str
    short_side: int | None = None
    long_side: int | None = None


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    preset: str | None = None,
    device: str | torch.device = "cpu",
    spill_folder: str | None = None,
) -> Loaded:
    """The model of a checkpoint: one that ``mvcseg train`` wrote, or a published DVIS++, DVIS, CTVIS or MinVIS.

    The first kind says itself what it is, so it needs no preset.

    Args:
        path: the file, or ``hf://owner/repo/file``.
        preset: a name of ``mvcseg.models.dvis.PRESETS``, or a JSON file that describes another model
            (``DVISConfig``); None finds the preset that fits.
        device: where the model goes.
        spill_folder: where a published model keeps what it needs of each frame; None takes the system's.

    Raises:
        CheckpointError: the file is missing, broken or of another kind, or fits no preset.
        ConfigError: no preset has the name, or the JSON file describes no model.
    """
    from mvcseg.models.compact_checkpoint import load_compact
    from mvcseg.models.dvis import explain, load_official, load_trained
    from mvcseg.models.dvis.config import VSPW_CLASS_ORDER, find_config, to_json
    from mvcseg.models.dvis.explain import preset_for
    from mvcseg.models.dvis.sources import fetch
    from mvcseg.models.dvis.trained import FORMAT as TRAINED_FORMAT

    config = None if preset is None else find_config(_read_config(preset) if preset.endswith(".json") else preset)
    file = fetch(path)
    if preset is None or config is None:
        if format_of(file) == TRAINED_FORMAT:
            trained = load_trained(file, device=device)
            trained.model.spill_folder = spill_folder
            names = trained.class_names or numbered_classes(trained.config.num_classes)
            short_side, long_side = trained.test_size
            return Loaded(trained.model, names, f"checkpoint {_digest(file)}", short_side, long_side)
        explanation = explain(file)
        if explanation.kind == "CompactSegmenter":
            compact = load_compact(file, device=device)
            names = compact.class_names or numbered_classes(compact.num_classes)
            return Loaded(compact, tuple(names), f"checkpoint {_digest(file)}")
        preset = preset_for(file, explanation=explanation)
        config = find_config(preset)
    model = load_official(file, preset=config, device=device)
    model.spill_folder = spill_folder
    names = VSPW_CLASSES if config.class_order == VSPW_CLASS_ORDER else numbered_classes(config.num_classes)
    kind = f"configuration {_digest_of(to_json(config))}" if preset.endswith(".json") else preset
    identity = f"checkpoint {_digest(file)} as {kind}"
    return Loaded(model, names, identity, short_side=config.short_side, long_side=config.long_side)


def format_of(path: str | os.PathLike[str]) -> str:
    """What the header of a safetensors file calls its format; empty for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return str((file.metadata() or {}).get("format", ""))
    except (SafetensorError, OSError, UnicodeDecodeError):
        return ""


def _read_config(path: str) -> DVISConfig:
    from mvcseg.models.dvis.config import from_json

    try:
        return from_json(Path(path).read_text(encoding="utf-8"))
    except ConfigError as error:
        raise ConfigError(f"preset: {shown(path)}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"preset: {shown(path)} cannot be read ({reason})") from error


def load_function(
    reference: str, *, device: str | torch.device = "cpu", weights: str | os.PathLike[str] | None = None
) -> Loaded:
    """The segmenter that a function in a Python file returns; that file is run.

    Args:
        reference: ``FILE.py:FUNCTION``. The function takes no arguments and returns a Segmenter; an attribute
            ``class_names`` of it names the classes.
        device: where a module is moved to.
        weights: file that ``mvcseg train`` saved of this module, loaded into it, class names included; or the folder
            that it saved of a model of transformers, loaded into the segmenter's ``net``.

    Raises:
        CheckpointError: the weights cannot be read or are another module's.
        ConfigError: the reference is not of that form, the file or function is missing, what it returns has no
            ``num_classes``, or running it fails.
    """
    name, colon, function = reference.rpartition(":")
    path = Path(name)
    if not colon or path.suffix != ".py" or not function.isidentifier():
        raise ConfigError(f"segmenter: expected FILE.py:FUNCTION, got {reference!r}")
    if not path.is_file():
        raise ConfigError(f"segmenter: {shown(path)} is no file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"segmenter: {shown(path)} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        segmenter = getattr(module, function)()
    except MvcsegError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's own code raises is told as one message
        reason = " ".join(str(error).split())
        raise ConfigError(f"segmenter: {reference} raised {type(error).__name__}: {reason}") from error
    if not callable(segmenter) or not hasattr(segmenter, "num_classes"):
        raise ConfigError(
            f"segmenter: expected {function}() to return a Segmenter (a callable with num_classes), "
            f"got {type(segmenter).__name__}"
        )
    check_num_classes(segmenter.num_classes)
    if isinstance(segmenter, nn.Module):
        segmenter = segmenter.to(device).eval()
    stored = () if weights is None else _load_weights(segmenter, weights)
    names = stored or tuple(getattr(segmenter, "class_names", ()) or numbered_classes(segmenter.num_classes))
    if len(names) != segmenter.num_classes:
        raise ConfigError(f"segmenter: expected {segmenter.num_classes} class_names, got {len(names)}")
    trained = "" if weights is None else f" with {_digest(weights)}"
    return Loaded(segmenter, names, f"{function} of {_digest(path)}{trained}")


def _load_weights(segmenter: Segmenter, path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Fill a module; the class names that the file states."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_model

    if not isinstance(segmenter, nn.Module):
        raise ConfigError(f"weights: expected a segmenter that is a torch.nn.Module, got {type(segmenter).__name__}")
    if Path(path).is_dir():
        _load_folder(segmenter, Path(path))
        return ()
    try:
        load_model(segmenter, os.fspath(path))
        with safe_open(path, framework="pt") as file:
            return tuple(str(name) for name in json.loads((file.metadata() or {}).get("class_names", "[]")))
    except (SafetensorError, OSError, UnicodeDecodeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{shown(path)}: cannot be loaded into the segmenter ({reason:.300})") from error


def _load_folder(segmenter: nn.Module, folder: Path) -> None:
    """Fill the transformers model inside, as that library reads it: files may name tensors otherwise than models do."""
    net: Any = getattr(segmenter, "net", None)
    if not isinstance(net, nn.Module) or not hasattr(net, "from_pretrained"):
        raise CheckpointError(f"{shown(folder)}: is a folder; expected a segmenter whose net is a transformers model")
    try:
        kind: Any = type(net)
        stored, told = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        amiss = {key: sorted(map(str, told[key])) for key in ("missing_keys", "unexpected_keys") if told[key]}
        if amiss:
            raise ValueError("; ".join(f"{key} {', '.join(names)}" for key, names in amiss.items()))
        net.load_state_dict(stored.state_dict())
    except Exception as error:  # whatever transformers raises of a folder that does not fit is told as one message
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{shown(folder)}: cannot be loaded into the segmenter ({reason:.300})") from error


def choose_device(name: str) -> torch.device:
    """The device a name means; ``auto`` is the first GPU where there is one, else the CPU.

    Raises:
        ConfigError: the name is unknown or the device not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()  # fails on "meta" too, which holds no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first_line = str(error).partition("\n")[0]
        raise ConfigError(f"device: {name!r} cannot be used ({first_line})") from error
    return device


def numbered_classes(num_classes: int) -> tuple[str, ...]:
    """Names for classes that have none: ``class 0``, ``class 1`` and so on."""
    return tuple(f"class {index}" for index in range(num_classes))


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest(path: str | os.PathLike[str]) -> str:
    files = sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else [Path(path)]
    try:
        digest = hashlib.sha256()
        for each in files:
            with each.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()[:16]
    except OSError as error:
        raise CheckpointError(f"{shown(path)}: cannot be read ({error.strerror or error})") from error
