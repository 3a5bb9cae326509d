"""Training a compact segmenter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvcseg.data.files import shown
from mvcseg.errors import CheckpointError, ConfigError
from mvcseg.losses import Objective, PixelObjective
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.compact_checkpoint import load_compact, save_compact
from mvcseg.training.config import TrainConfig
from mvcseg.training.run_folder import MODEL_FILE
from mvcseg.training.trainee import Trainee, check_names, plain_groups


def compact_trainee(
    config: TrainConfig, *, class_names: tuple[str, ...], objective: Objective | None = None
) -> Trainee:
    """A ``CompactSegmenter``, new or from ``start_from``."""
    if config.objective == "queries":
        raise ConfigError('objective: expected "pixel" or null for a compact segmenter, which has no queries')
    segmenter = CompactSegmenter(len(class_names), width=config.width, depth=config.depth, heads=config.heads)
    if config.start_from is not None:
        _start_compact(segmenter, config, class_names)
    segmenter.class_names = class_names

    def save(trained: CompactSegmenter, folder: Path, facts: Mapping[str, Any]) -> Path:
        save_compact(trained, folder / MODEL_FILE, metadata=facts)
        return folder / MODEL_FILE

    return Trainee(segmenter.train(), objective or PixelObjective(), segmenter, plain_groups(segmenter, config), save)


def _start_compact(segmenter: CompactSegmenter, config: TrainConfig, class_names: tuple[str, ...]) -> None:
    path = str(config.start_from)
    found = load_compact(path)
    state = found.state_dict()
    own = segmenter.state_dict()
    if config.new_classes:
        state |= {name: tensor for name, tensor in own.items() if name.startswith("classifier.")}
    else:
        if found.num_classes != segmenter.num_classes:
            raise ConfigError(
                f"start_from: {shown(path)} has {found.num_classes} classes, the data set {segmenter.num_classes}; "
                "new_classes true draws the class head anew"
            )
        check_names(found.class_names, class_names, of=f"start_from: {shown(path)}")
    try:
        segmenter.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"start_from: {shown(path)} is of {found.architecture}; set width, depth and heads like it"
        ) from error
