"""Training a stage of DVIS++: its refiner if the model has one, else its tracker, else its segmenter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvcseg.errors import ConfigError
from mvcseg.losses import Objective
from mvcseg.losses.class_memory import ClassMemory
from mvcseg.models.dvis.build import build_dvis
from mvcseg.models.dvis.config import DVISConfig
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.noise import QueryNoise
from mvcseg.models.dvis.tracker import ReferringTracker
from mvcseg.models.dvis.trained import TestSize, save_trained
from mvcseg.training.config import TrainConfig
from mvcseg.training.config_values import dvis_config
from mvcseg.training.groups import published_groups
from mvcseg.training.run_folder import MODEL_FILE
from mvcseg.training.stage_objective import stage_objective
from mvcseg.training.stages import build_stage
from mvcseg.training.start import start_stage
from mvcseg.training.trainee import Trainee


def dvis_trainee(config: TrainConfig, *, class_names: tuple[str, ...], objective: Objective | None = None) -> Trainee:
    """The stage that follows from the model's parts, new or from ``start_from``.

    Raises:
        ConfigError: the configuration contradicts itself or the data.
        CheckpointError: ``start_from`` cannot be read, has other classes, or is no start for this stage.
    """
    if config.objective == "pixel":
        raise ConfigError('objective: expected "queries" or null for a stage of DVIS++, got "pixel"')
    sizes = dvis_config(config.model, num_classes=len(class_names))
    if config.start_from is None:
        model = build_dvis(sizes)
    else:
        model = start_stage(sizes, config.start_from, new_classes=config.new_classes, class_names=class_names)
    stage = build_stage(
        model,
        noise=_noise(config, model),
        masked_parts=config.masked_parts,
        is_contrasted=config.contrast_weight != 0,
    )
    remembers = model.refiner is not None and sizes.has_reid and config.contrast_weight != 0
    memory = ClassMemory(len(class_names), width=sizes.query_width) if remembers else None
    loss = objective or stage_objective(
        stage,
        num_points=config.num_points,
        class_weight=config.loss_weights["class"],
        mask_weight=config.loss_weights["mask"],
        dice_weight=config.loss_weights["dice"],
        no_object_weight=config.no_object_weight,
        contrast_weight=config.contrast_weight,
        guide_until=config.guide_until,
        memory=memory,
    )
    size = suited_size(config, sizes)

    def save(trained: DVIS, folder: Path, facts: Mapping[str, Any]) -> Path:
        path = folder / MODEL_FILE
        save_trained(trained, path, config=sizes, class_names=class_names, test_size=size, metadata=facts)
        return path

    groups = published_groups(
        stage,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        backbone_rate=config.backbone_rate,
    )
    return Trainee(
        stage,
        loss,
        model,
        groups,
        save,
        memories=() if memory is None else (memory,),
        has_idle_parameters=True,
        test_size=size,
    )


def suited_size(config: TrainConfig, sizes: DVISConfig) -> TestSize:
    """The size of frames that suits a model trained so: shorter side and cap on the longer one.

    The model's own where it lies among the sizes trained on, else the middle of these; the video's own size where
    clips were zoomed by ``scales``.
    """
    sides = config.short_sides
    if sides is None:
        return (None, None)
    if min(sides) <= sizes.short_side <= max(sides):
        return (sizes.short_side, sizes.long_side)
    return (sorted(sides)[len(sides) // 2], config.long_side)


def _noise(config: TrainConfig, model: DVIS) -> QueryNoise | None:
    is_tracker = model.refiner is None and isinstance(model.tracker, ReferringTracker)
    mode = config.noise or ("wa" if is_tracker else "none")
    return None if mode == "none" else QueryNoise(mode, probability=config.noise_probability)
