"""What a checkpoint is, from the names and shapes of its tensors alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from mvcseg.errors import ConfigError
from mvcseg.models.dvis.config import (
    BACKBONES,
    PRESETS,
    BackboneSizes,
    DVISConfig,
    ResNetSizes,
    SwinSizes,
    ViTAdapterSizes,
)

Shapes = Mapping[str, tuple[int, ...]]
_PREDICTOR = "sem_seg_head.predictor."
_ENCODER = "sem_seg_head.pixel_decoder.transformer.encoder.layers."
_SIZES = (
    *("tracker_layers", "refiner_layers", "hidden", "width"),
    *("encoder_layers", "encoder_hidden", "decoder_layers", "decoder_hidden"),
)
"""Sizes of everything but the backbone, which shapes tell."""


@dataclass(frozen=True)
class Identity:
    """What a checkpoint is.

    Attributes:
        kind: in words, "DVIS++ online model with ResNet-50".
        num_classes: K, where there is a class head.
        num_queries: Q, where there are queries.
        config: of the model that it is; None for what is no model of this package.
        preset: the preset with the same parts and backbone, the numbers of classes and queries aside.
    """

    kind: str
    num_classes: int | None = None
    num_queries: int | None = None
    config: DVISConfig | None = None
    preset: str | None = None

    @property
    def load_with(self) -> str | None:
        """What to give as ``preset`` in Python, as an expression; None where nothing fits."""
        if self.config is None:
            return None
        if self.preset is None:
            return _expression(self.config)
        base = PRESETS[self.preset]
        changes: dict[str, int | None] = {}
        if self.config.num_classes != base.num_classes:
            changes |= {"num_classes": self.config.num_classes, "class_order": None}
        if self.config.num_queries != base.num_queries:
            changes |= {"num_queries": self.config.num_queries}
        for name in _SIZES:
            if getattr(self.config, name) != getattr(base, name):
                changes |= {name: getattr(self.config, name)}
        if not changes:
            return f'"{self.preset}"'
        told = ", ".join(f"{name}={value}" for name, value in changes.items())
        return f'dataclasses.replace(PRESETS["{self.preset}"], {told})'


def identify(shapes: Shapes) -> Identity:
    """What tensors of these names and shapes are.

    Args:
        shapes: of a checkpoint's tensors by their names there, ``model`` and ``module.`` removed.

    Example:
        >>> identify({"cls_token": (1, 1, 384), "blocks.0.attn.qkv.weight": (1152, 384)}).kind
        'a plain DINOv2 transformer: the start of a ViT backbone, no segmenter'
    """
    if f"{_PREDICTOR}class_embed.weight" not in shapes or f"{_PREDICTOR}query_feat.weight" not in shapes:
        return Identity(_other_kind(shapes))
    num_classes = _size(shapes, f"{_PREDICTOR}class_embed.weight", 0) - 1
    num_queries = _size(shapes, f"{_PREDICTOR}query_feat.weight", 0)
    backbone = _backbone(shapes)
    parts = {
        "has_reid": f"{_PREDICTOR}reid_embed.layers.0.weight" in shapes,
        "has_tracker": _has(shapes, "tracker."),
        "has_refiner": _has(shapes, "refiner."),
    }
    is_first = parts["has_tracker"] and not _has(shapes, "tracker.ref_proj.")
    kind = f"{_stage(parts, is_first=is_first, num_classes=num_classes)} with {backbone_name(backbone)}"
    if backbone is None:
        return Identity(kind, num_classes, num_queries)
    try:
        config = DVISConfig(
            backbone,
            num_classes=num_classes,
            num_queries=num_queries,
            **parts,
            version=1 if is_first else 2,
            class_order=None,
            tracker_layers=_count(shapes, "tracker.transformer_ffn_layers.") or 6,
            refiner_layers=_count(shapes, "refiner.transformer_ffn_layers.") or 6,
            hidden=_size(shapes, "tracker.transformer_ffn_layers.0.linear1.weight", 0) or 2048,
            width=_size(shapes, f"{_PREDICTOR}query_feat.weight", 1),
            encoder_layers=_count(shapes, _ENCODER) or 6,
            encoder_hidden=_size(shapes, f"{_ENCODER}0.linear1.weight", 0) or 1024,
            decoder_layers=_count(shapes, f"{_PREDICTOR}transformer_ffn_layers.") or 9,
            decoder_hidden=_size(shapes, f"{_PREDICTOR}transformer_ffn_layers.0.linear1.weight", 0) or 2048,
        )
    except ConfigError:  # parts that no model here has together, or more classes than a label map holds
        return Identity(kind, num_classes, num_queries)
    preset = next((name for name, other in PRESETS.items() if _structure(other) == _structure(config)), None)
    if preset is not None:
        order = PRESETS[preset].class_order if num_classes == PRESETS[preset].num_classes else None
        config = dataclasses.replace(config, class_order=order, version=PRESETS[preset].version)
    return Identity(kind, num_classes, num_queries, config, preset)


def backbone_name(backbone: BackboneSizes | None) -> str:
    """The name of a backbone's sizes, or the sizes themselves where they have none."""
    if backbone is None:
        return "an unknown backbone"
    return next((name for name, sizes in BACKBONES.items() if sizes == backbone), str(backbone))


def _structure(config: DVISConfig) -> tuple[object, ...]:
    # Without a tracker, the versions do not differ.
    version = config.version if config.has_tracker else None
    return config.backbone, config.has_reid, config.has_tracker, config.has_refiner, version


def _stage(parts: Mapping[str, bool], *, is_first: bool, num_classes: int) -> str:
    if parts["has_tracker"]:
        version = "first-version DVIS" if is_first else "DVIS++"
        return f"{version} {'offline' if parts['has_refiner'] else 'online'} model"
    if parts["has_refiner"]:
        return "refiner without a tracker"
    if parts["has_reid"]:
        return "CTVIS segmenter"
    coco = {133: "COCO panoptic ", 80: "COCO instance "}.get(num_classes)
    return f"{coco}Mask2Former" if coco else "MinVIS segmenter (Mask2Former)"


def _other_kind(shapes: Shapes) -> str:
    if "blocks.0.attn.qkv.weight" in shapes and "cls_token" in shapes:
        return "a plain DINOv2 transformer: the start of a ViT backbone, no segmenter"
    if "patch_embed.proj.weight" in shapes and _has(shapes, "layers.0.blocks.0.attn."):
        return "a plain Swin Transformer: the start of a backbone, no segmenter"
    if _has(shapes, "res2.0.") or "conv1_w" in shapes or "res2_0_branch2a_w" in shapes:
        return "a detectron2 ImageNet ResNet: the start of a backbone, no segmenter"
    if "conv1.weight" in shapes and _has(shapes, "layer1.0."):
        return "a torchvision-style ImageNet ResNet: the start of a backbone, no segmenter"
    if _has(shapes, "model.pixel_level_module."):
        return "a Mask2Former of transformers, whose names differ"
    if any(".clip_model." in name for name in shapes):
        return "an open-vocabulary model on CLIP (FC-CLIP, OV-DVIS++), which is not supported"
    if _has(shapes, "tracker.") and not _has(shapes, "backbone."):
        return "a tracker without its segmenter"
    return "not a checkpoint of a known kind"


def _backbone(shapes: Shapes) -> BackboneSizes | None:
    if "backbone.stem.conv1.weight" in shapes:
        depth = {
            (2, False): 18,
            (6, False): 34,
            (6, True): 50,
            (23, True): 101,
        }.get((_count(shapes, "backbone.res4."), "backbone.res4.0.conv3.weight" in shapes))
        return None if depth is None else ResNetSizes(depth)
    if "backbone.vit_module.cls_token" in shapes:
        width = _size(shapes, "backbone.vit_module.cls_token", -1)
        tokens = _size(shapes, "backbone.vit_module.pos_embed", 1)
        return ViTAdapterSizes(
            width,
            depth=_count(shapes, "backbone.vit_module.blocks."),
            heads=max(width // 64, 1),  # shapes do not tell; every DINOv2 model has heads of 64 channels
            is_gated="backbone.vit_module.blocks.0.mlp.w12.weight" in shapes,
            grid=math.isqrt(max(tokens - 1, 0)),
            stem_width=_size(shapes, "backbone.spm.stem.0.weight", 0),
        )
    if "backbone.patch_embed.proj.weight" in shapes:
        blocks = [f"backbone.layers.{stage}.blocks." for stage in range(4)]
        tables = [f"{block}0.attn.relative_position_bias_table" for block in blocks]
        depths = tuple(_count(shapes, block) for block in blocks)
        heads = tuple(_size(shapes, table, 1) for table in tables)
        window = (math.isqrt(_size(shapes, tables[0], 0)) + 1) // 2
        return SwinSizes(_size(shapes, "backbone.patch_embed.proj.weight", 0), depths, heads, window)  # type: ignore[arg-type]
    return None


def _has(shapes: Shapes, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)


def _count(shapes: Shapes, prefix: str) -> int:
    """How many different parts follow a prefix."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)})


def _size(shapes: Shapes, name: str, axis: int) -> int:
    """The size of an axis, 0 where there is no such tensor or axis."""
    shape = shapes.get(name, ())
    return shape[axis] if -len(shape) <= axis < len(shape) else 0


def _expression(config: DVISConfig) -> str:
    name = backbone_name(config.backbone)
    given = {"num_classes": config.num_classes, "num_queries": config.num_queries}
    given |= {part: True for part in ("has_reid", "has_tracker", "has_refiner") if getattr(config, part)}
    given |= {"version": 1} if config.version == 1 else {}
    usual = DVISConfig(config.backbone, class_order=None, num_classes=config.num_classes)
    given |= {name: getattr(config, name) for name in _SIZES if getattr(config, name) != getattr(usual, name)}
    told = ", ".join(f"{key}={value}" for key, value in given.items())
    backbone = f'BACKBONES["{name}"]' if name in BACKBONES else name
    return f"DVISConfig({backbone}, {told}, class_order=None)"
