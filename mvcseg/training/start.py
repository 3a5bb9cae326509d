"""The model that a training stage begins with: drawn weights, those of a file where it has them.

A stage goes on from the one before: an online model from a segmenter, an offline model from an online one. The part
that is new is drawn, everything else must be in the file. Segmenters also begin with Mask2Former trained on COCO
(other classes) or with a backbone alone, trained on ImageNet or by DINOv2.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.errors import CheckpointError
from mvcseg.models.backbones import resnet, swin
from mvcseg.models.backbones.dinov2 import from_dinov2
from mvcseg.models.dvis.build import build_dvis
from mvcseg.models.dvis.checkpoint import not_finite
from mvcseg.models.dvis.config import DVISConfig, ResNetSizes, SwinSizes, ViTAdapterSizes, find_config
from mvcseg.models.dvis.identify import identify
from mvcseg.models.dvis.mismatch import compare, grouped, reason
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.names import entries_of, expected_entries, from_official, normalised
from mvcseg.models.dvis.reading import StoredState, read_state
from mvcseg.models.dvis.sources import fetch

REID = "sem_seg_head.predictor.reid_embed."
CLASS_HEAD = "class_embed."
"""In the name of every tensor whose size is the number of classes."""


def start_stage(
    preset_or_config: str | DVISConfig,
    path: str | os.PathLike[str],
    *,
    new_classes: bool = False,
    class_names: Sequence[str] = (),
) -> DVIS:
    """The model of a configuration with the weights of the stage before, what that lacks drawn from torch's generator.

    Args:
        preset_or_config: of the stage to be trained.
        path: checkpoint of the stage before or of this one, in the published layout or written by ``mvcseg train``;
            for a segmenter also Mask2Former trained on COCO, or the backbone alone (torchvision, timm, detectron2 or
            DINOv2 files). A local file or ``hf://owner/repo/file``.
        new_classes: draw the class heads anew, whatever the file's classes are.
        class_names: of the data set; compared with those in the file where both are known.

    Raises:
        ConfigError: no preset has the name, or the sizes fit no model.
        CheckpointError: the file is missing or broken, has other classes (the message names both numbers), lacks more
            than the part that this stage adds, or holds something the model has no place for.
    """
    config = find_config(preset_or_config)
    stored = read_state(fetch(path))
    state = normalised(stored.tensors)
    backbone = backbone_state(state, config)
    if backbone is not None and not config.has_tracker:
        return _fill(build_dvis(config), {f"backbone.{name}": tensor for name, tensor in backbone.items()}, path)
    if not new_classes:
        _check_classes(stored, state, config, class_names, path)
    expected = dict(expected_entries(config))
    for name in _drawn(state, config, new_classes=new_classes):
        expected.pop(name)
    if new_classes:
        state = {name: tensor for name, tensor in state.items() if CLASS_HEAD not in name}
    mismatch = compare(expected, entries_of(state))
    if mismatch:
        identity = identify({name: tuple(tensor.shape) for name, tensor in normalised(stored.tensors).items()})
        why = reason(identity, config, mismatch, tells_what_fits=False)  # a preset that fits is no start either
        raise CheckpointError(f"{shown(path)}: no start for {_stage_of(config)}: {mismatch}: {why}")
    return _fill(build_dvis(config), state, path)


def backbone_state(state: Mapping[str, Tensor], config: DVISConfig) -> dict[str, Tensor] | None:
    """Tensors of a backbone alone under their names in ``DVIS.backbone`` in the published layout; None for all else.

    Args:
        state: a file's tensors.
        config: of the model that the backbone is for.
    """
    sizes = config.backbone
    if isinstance(sizes, ResNetSizes) and "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        kept = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
        return {resnet.to_official(name): tensor for name, tensor in kept.items() if not name.startswith("fc.")}
    if isinstance(sizes, ResNetSizes) and "stem.conv1.weight" in state and "res2.0.conv1.weight" in state:
        return {name: tensor for name, tensor in state.items() if not name.startswith("stem.fc.")}
    if isinstance(sizes, ViTAdapterSizes) and "cls_token" in state and "blocks.0.attn.qkv.weight" in state:
        return {f"vit_module.{name}": tensor for name, tensor in from_dinov2(state).items()}
    if isinstance(sizes, SwinSizes) and "patch_embed.proj.weight" in state:
        named = {swin.from_timm(name): tensor for name, tensor in state.items()}
        return {name: tensor for name, tensor in named.items() if name.startswith(("patch_embed.", "layers."))}
    return None


def _fill(model: DVIS, state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> DVIS:
    """Copy what the file has into a drawn model, everything it has into a place of its shape."""
    broken = not_finite(state)
    if broken:
        raise CheckpointError(f"{shown(path)}: {shown(broken[0])} holds NaN or infinite numbers; training diverged")
    own = model.state_dict()
    named = {from_official(name, backbone=model.backbone): tensor for name, tensor in state.items()}
    wrong = [name for name, tensor in named.items() if name not in own or own[name].shape != tensor.shape]
    if wrong:
        raise CheckpointError(f"{shown(path)}: is a backbone of other sizes than the model's: {grouped(wrong)}")
    # index tables follow from the window and are right already
    model.load_state_dict(
        {name: tensor for name, tensor in named.items() if not name.endswith("relative_position_index")}, strict=False
    )
    return model


def _drawn(state: Mapping[str, Tensor], config: DVISConfig, *, new_classes: bool) -> list[str]:
    """Names of the tensors that this stage draws instead of reading them."""
    names = list(expected_entries(config))
    added = "refiner." if config.has_refiner else "tracker." if config.has_tracker else REID
    is_new = not any(name.startswith(added) for name in state)
    return [name for name in names if (is_new and name.startswith(added)) or (new_classes and CLASS_HEAD in name)]


def _check_classes(
    stored: StoredState,
    state: Mapping[str, Tensor],
    config: DVISConfig,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
) -> None:
    fix = '; new_classes=True ("new_classes": true in a configuration) draws the class heads anew'
    head = state.get("sem_seg_head.predictor.class_embed.weight")
    if head is not None and len(head) != config.num_classes + 1:
        raise CheckpointError(
            f"{shown(path)}: has {len(head) - 1} classes, the model to be trained has {config.num_classes}{fix}"
        )
    try:
        order = json.loads(stored.metadata.get("config", "{}")).get("class_order", ())
        names = json.loads(stored.metadata.get("class_names", "[]"))
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{shown(path)}: its header is damaged ({error})") from error
    wanted = None if config.class_order is None else list(config.class_order)
    if "config" in stored.metadata and order != wanted:
        raise CheckpointError(f"{shown(path)}: numbers its classes in another class_order than the model{fix}")
    for index, (here, there) in enumerate(zip(names, class_names, strict=False)):
        if here != there:
            raise CheckpointError(
                f"{shown(path)}: its class {index} is {shown(str(here))!r}, that of the data is {there!r}{fix}"
            )


def _stage_of(config: DVISConfig) -> str:
    if config.has_refiner:
        return "training a refiner, which starts from an online model"
    if config.has_tracker:
        return "training a tracker, which starts from a segmenter" + (
            " with a trained re-identification head" if config.has_reid else ""
        )
    return "training a segmenter"
