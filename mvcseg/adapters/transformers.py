"""Models of Hugging Face's transformers as segmenters: SegFormer, Mask2Former, EoMT and VidEoMT.

The model stays what it was: ``segmenter.save_pretrained(folder)`` writes what was trained, and its own
``from_pretrained`` reads that. Normalisation is inside; frames may have any size.
"""

from __future__ import annotations

import importlib
import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvcseg.adapters.eomt import eomt_layers
from mvcseg.adapters.query_segmenter import FrameLayer, Generators, QuerySegmenter, own_names, save_net
from mvcseg.adapters.videomt import VideomtSegmenter, videomt_layers
from mvcseg.errors import ConfigError, DTypeError, MissingExtraError
from mvcseg.segmenter import IMAGENET_MEAN, IMAGENET_STD, PerFrame
from mvcseg.shapes import check_num_classes


def from_transformers(
    model: nn.Module,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> SegformerSegmenter | QuerySegmenter:
    """A model of the transformers library as a segmenter.

    Args:
        model: a ``SegformerForSemanticSegmentation``, ``Mask2FormerForUniversalSegmentation``,
            ``EomtForUniversalSegmentation``, ``EomtDinov3ForUniversalSegmentation`` or
            ``VideomtForUniversalSegmentation``.
        num_classes: K of the data set, to be compared with the model's; None takes the model's.
        class_names: names of the data set's classes in its order. Where the model names its own (``id2label``),
            its columns are put into that order by name; else they are taken to be in it.
        mean: per-channel mean that frames in ``[0, 1]`` are normalised with.
        std: per-channel standard deviation.

    Returns:
        A ``SegformerSegmenter``, ``QuerySegmenter`` or, for VidEoMT, ``VideomtSegmenter``; the model is its ``net``.

    Raises:
        MissingExtraError: transformers is not installed.
        DTypeError: the model is of another kind.
        ConfigError: it has another number of classes, or names other classes.

    Example:
        >>> from transformers import SegformerConfig, SegformerForSemanticSegmentation
        >>> config = SegformerConfig(num_labels=4, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, decoder_hidden_size=8)
        >>> segmenter = from_transformers(SegformerForSemanticSegmentation(config), num_classes=4)
        >>> segmenter(torch.rand(1, 2, 3, 40, 56)).shape
        torch.Size([1, 2, 4, 40, 56])
    """
    try:
        importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtraError.for_package("transformers", extra="hf") from error
    kind = _kind_of(model)
    net: Any = model
    order = _class_order(net, num_classes, class_names)
    names = tuple(class_names or own_names(net) or ())
    _freeze_unused(net)
    if kind == "SegformerForSemanticSegmentation":
        return SegformerSegmenter(net, class_order=order, class_names=names, mean=mean, std=std)
    if kind == "Mask2FormerForUniversalSegmentation":
        return QuerySegmenter(
            net, layers_of=mask2former_layers, class_order=order, class_names=names, mean=mean, std=std
        )
    multiple_of = math.lcm(4, net.config.patch_size)
    if kind == "VideomtForUniversalSegmentation":
        return VideomtSegmenter(
            net,
            layers_of=videomt_layers,
            class_order=order,
            class_names=names,
            multiple_of=multiple_of,
            matching="first",
            mean=mean,
            std=std,
        )
    return QuerySegmenter(
        net,
        layers_of=eomt_layers,
        class_order=order,
        class_names=names,
        multiple_of=multiple_of,
        mean=mean,
        std=std,
    )


class SegformerSegmenter(PerFrame):
    """A SegFormer as a segmenter: every frame on its own.

    Args:
        net: the model.
        class_order: column of ``net`` of each of the K data-set classes.
        class_names: names of the data set's classes; empty where there are none.
        mean: per-channel mean.
        std: per-channel standard deviation.
    """

    class_order: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        class_order: Sequence[int],
        class_names: Sequence[str] = (),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(
            net, num_classes=len(class_order), logits_of=self._logits_of, mean=mean, std=std, multiple_of=32
        )
        self.class_names = tuple(class_names)
        self.register_buffer("class_order", torch.tensor(class_order), persistent=False)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the net as transformers does, class names included; its ``from_pretrained`` reads it."""
        save_net(self.net, folder, class_names=self.class_names)

    def _logits_of(self, output: Any) -> Tensor:
        logits: Tensor = output.logits
        return logits.index_select(1, self.class_order)


def mask2former_layers(
    net: Any, images: Tensor, *, every_layer: bool, generators: Generators | None
) -> list[FrameLayer]:
    """Layers of a Mask2Former: the learned queries' own prediction, then one after each layer of the decoder."""
    output = net(pixel_values=images.flatten(0, 1), output_auxiliary_logits=every_layer)
    auxiliary = output.auxiliary_logits if every_layer else []
    layers = [FrameLayer(layer["class_queries_logits"], layer["masks_queries_logits"]) for layer in auxiliary]
    return [*layers, FrameLayer(output.class_queries_logits, output.masks_queries_logits)]


_KINDS = (
    "SegformerForSemanticSegmentation",
    "Mask2FormerForUniversalSegmentation",
    "EomtForUniversalSegmentation",
    "EomtDinov3ForUniversalSegmentation",
    "VideomtForUniversalSegmentation",
)


def _kind_of(model: object) -> str:
    # by name: older releases of transformers lack some of these classes
    names = [parent.__name__ for parent in type(model).__mro__ if parent.__module__.startswith("transformers.")]
    for kind in _KINDS:
        if kind in names:
            return kind
    raise DTypeError(
        f"model: expected one of {', '.join(_KINDS)} of transformers, got {type(model).__name__}; "
        "mvcseg.PerFrame(net, num_classes=..., logits_of=...) takes any image model"
    )


def _freeze_unused(net: Any) -> None:
    """Parameters that no output depends on need no gradient: data-parallel training would wait for theirs."""
    for name, parameter in net.named_parameters():
        if name == "embeddings.mask_token" or name.startswith("model.pixel_level_module.encoder.swin.layernorm."):
            parameter.requires_grad_(False)


def _class_order(net: Any, num_classes: int | None, class_names: Sequence[str] | None) -> list[int]:
    """Column of the model of each class of the data set."""
    columns: int = net.config.num_labels
    for argument, expected in (("num_classes", num_classes), ("class_names", class_names and len(class_names))):
        if expected is not None and expected != columns:
            raise ConfigError(
                f"{argument}: expected the model's {columns} classes, got {expected}; "
                f"from_pretrained(..., num_labels={expected}, ignore_mismatched_sizes=True) gives it a new head"
            )
    check_num_classes(columns)
    own = own_names(net)
    if class_names is None or own is None:
        return list(range(columns))
    missing = sorted((Counter(class_names) - Counter(own)).elements())
    if missing or len(set(own)) < columns:
        found = f"none for {', '.join(map(repr, missing[:5]))}" if missing else "a name twice"
        raise ConfigError(
            f"class_names: expected the {columns} names in model.config.id2label in any order, got {found}; "
            "where the names differ but the classes do not, set model.config.id2label"
        )
    return [own.index(name) for name in class_names]
