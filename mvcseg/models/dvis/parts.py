"""The modules of a DVIS++ model that hold its weights, from a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from mvcseg.models.backbones.resnet import ResNet
from mvcseg.models.backbones.swin import Swin
from mvcseg.models.backbones.vit import VisionTransformer
from mvcseg.models.backbones.vit_adapter import ViTAdapter
from mvcseg.models.dvis.config import BackboneSizes, DVISConfig, ResNetSizes, SwinSizes
from mvcseg.models.dvis.refiner import TemporalRefiner
from mvcseg.models.dvis.tracker import ReferringTracker
from mvcseg.models.dvis.tracker_v1 import FirstReferringTracker
from mvcseg.models.mask2former.segmenter import Mask2FormerHead


def build_parts(config: DVISConfig) -> dict[str, nn.Module]:
    """The modules that hold a model's weights, by their name in the state dict."""
    backbone = build_backbone(config.backbone)
    parts: dict[str, nn.Module] = {
        "backbone": backbone,
        "sem_seg_head": Mask2FormerHead(
            backbone.channels,
            num_classes=config.num_classes,
            num_queries=config.num_queries,
            has_reid=config.has_reid,
            width=config.width,
            encoder_layers=config.encoder_layers,
            encoder_hidden=config.encoder_hidden,
            decoder_layers=config.decoder_layers,
            decoder_hidden=config.decoder_hidden,
        ),
    }
    sizes = {"width": config.query_width, "hidden": config.hidden, "mask_width": config.width}
    if config.has_tracker:
        tracker = FirstReferringTracker if config.version == 1 else ReferringTracker
        parts["tracker"] = tracker(config.num_classes, layers=config.tracker_layers, **sizes)
    if config.has_refiner:
        parts["refiner"] = TemporalRefiner(config.num_classes, layers=config.refiner_layers, **sizes)
    return parts


def outline_parts(config: DVISConfig) -> dict[str, nn.Module]:
    """``build_parts`` on the meta device: names, shapes and types without memory or values.

    Normal numbers are not drawn, since drawing them there imports PyTorch's compiler: 160 MiB and seconds for nothing.
    """
    with torch.device("meta"), _Undrawn():
        return build_parts(config)


class _Undrawn(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in (torch.Tensor.normal_, nn.init.normal_):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def build_backbone(sizes: BackboneSizes) -> ResNet | Swin | ViTAdapter:
    """The backbone of these sizes.

    Raises:
        ConfigError: the sizes fit no backbone.
    """
    if isinstance(sizes, ResNetSizes):
        return ResNet(sizes.depth)
    if isinstance(sizes, SwinSizes):
        return Swin(sizes.width, depths=sizes.depths, heads=sizes.heads, window=sizes.window)
    vit = VisionTransformer(sizes.width, depth=sizes.depth, heads=sizes.heads, is_gated=sizes.is_gated, grid=sizes.grid)
    return ViTAdapter(vit, stem_width=sizes.stem_width)
