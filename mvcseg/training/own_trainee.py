"""Training any segmenter, by cross-entropy or, where it answers with queries, by the set loss."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mvcseg.data.files import shown, write_aside
from mvcseg.errors import CheckpointError, ConfigError, DataError
from mvcseg.losses import Objective, PixelObjective
from mvcseg.losses.set_matching import Matching
from mvcseg.segmenter import Segmenter
from mvcseg.training.config import TrainConfig
from mvcseg.training.run_folder import MODEL_FILE, MODEL_FOLDER
from mvcseg.training.trainee import Trainee, check_names, plain_groups

OWN_FORMAT = "mvcseg.own"
"""What the header of a file calls the weights of a segmenter of one's own."""


def own_trainee(
    config: TrainConfig,
    segmenter: Segmenter,
    *,
    class_names: tuple[str, ...],
    objective: Objective | None = None,
) -> Trainee:
    """Any segmenter that is a module; with ``predict_queries(frames) -> QueryClip`` it can learn by the set loss.

    A parameter ``generators`` of that method gets one generator for each clip, for whatever the model draws.
    """
    if not isinstance(segmenter, nn.Module) or not any(weight.requires_grad for weight in segmenter.parameters()):
        raise ConfigError(
            f"segmenter: expected a torch.nn.Module with weights to train, got {type(segmenter).__name__}"
        )
    if segmenter.num_classes != len(class_names):
        raise ConfigError(
            f"segmenter: has {segmenter.num_classes} classes, the data set {len(class_names)}; build it for as many"
        )
    own_names = tuple(getattr(segmenter, "class_names", ()) or ())
    check_names(own_names, class_names, of="segmenter")
    has_queries = hasattr(segmenter, "predict_queries")
    if config.objective == "queries" and not has_queries:
        raise ConfigError('objective: "queries" needs a segmenter with predict_queries(frames) -> QueryClip')
    module: nn.Module = segmenter
    if objective is None and has_queries and config.objective != "pixel":
        matching: Matching = getattr(segmenter, "matching", "frame")
        module, objective = _Queries(segmenter), query_objective(config, matching=matching)
    segmenter.train()

    def save(trained: nn.Module, folder: Path, facts: Mapping[str, Any]) -> Path:
        return _save_own(trained, folder, class_names=class_names, facts=facts)

    return Trainee(
        module,
        objective or PixelObjective(),
        segmenter,
        plain_groups(segmenter, config),
        save,
        has_idle_parameters=True,
    )


def query_objective(config: TrainConfig, *, matching: Matching = "frame") -> Objective:
    """The set loss with the configuration's weights, for a model that says ``QueryClip`` of frames."""
    from mvcseg.losses.mask_set import MaskSetObjective

    return MaskSetObjective(
        predict=_predict,
        matching=matching,
        class_weight=config.loss_weights["class"],
        mask_weight=config.loss_weights["mask"],
        dice_weight=config.loss_weights["dice"],
        no_object_weight=config.no_object_weight,
        num_points=config.num_points,
    )


class _Queries(nn.Module):
    """Calls ``predict_queries`` from ``forward``, which is all that several processes see of a module."""

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, frames: Tensor, /, *, generators: Sequence[torch.Generator] | None = None) -> Any:
        predict: Any = self.segmenter.predict_queries
        if "generators" in inspect.signature(predict).parameters:
            return predict(frames, generators=generators)
        return predict(frames)


def _predict(queries: Any, frames: Tensor, generators: Sequence[torch.Generator] | None) -> Any:
    """What the set loss asks of ``_Queries``, also of one prepared for several processes."""
    return queries(frames, generators=generators)


def _save_own(segmenter: nn.Module, folder: Path, *, class_names: Sequence[str], facts: Mapping[str, Any]) -> Path:
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    save_pretrained = getattr(segmenter, "save_pretrained", None)
    try:
        if save_pretrained is not None:
            part, final = folder / f".{MODEL_FOLDER}.part", folder / MODEL_FOLDER
            shutil.rmtree(part, ignore_errors=True)
            save_pretrained(part)
            shutil.rmtree(final, ignore_errors=True)
            part.replace(final)
            return final
        header = {"format": OWN_FORMAT, "class_names": json.dumps(list(class_names)), "metadata": json.dumps(facts)}
        with write_aside(folder / MODEL_FILE) as aside:
            save_model(segmenter, str(aside), metadata=header)
        return folder / MODEL_FILE
    except (OSError, SafetensorError, DataError) as error:
        raise CheckpointError(f"{shown(folder)}: the model cannot be written ({error})") from error
