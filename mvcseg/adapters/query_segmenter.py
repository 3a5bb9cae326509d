"""A query model as a segmenter: one forward for per-pixel scores, and for what the set loss reads.

The class scores are ``log sum_q p(k | q) sigmoid(mask_q)``, the semantic inference of Mask2Former
(arXiv 2112.01527): masks are resized to the padded frame as logits, cropped, made probabilities, then summed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, overload

import torch
from einops import rearrange
from torch import Tensor, nn

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.losses import DenseMasks, LayerPrediction, MaskSetObjective, QueryClip
from mvcseg.losses.set_matching import Matching
from mvcseg.models.dvis.semantic import STRIDE, class_table, semantic_labels, semantic_scores
from mvcseg.ops.resize import pad_to_multiple, resize_scores
from mvcseg.segmenter import IMAGENET_MEAN, IMAGENET_STD, Segmenter, check_numbers
from mvcseg.shapes import check_float, check_num_classes, check_shapes

Generators = Sequence[torch.Generator]
"""One generator for each clip of a batch, or one for all."""


@dataclass(frozen=True)
class FrameLayer:
    """What one layer of a net says of N frames.

    Attributes:
        class_logits: ``(N, Q, K + 1)`` in the net's own class order, the last class means no object.
        masks: mask logits ``(N, Q, h, w)``.
    """

    class_logits: Tensor
    masks: Tensor


class LayersOf(Protocol):
    """How a net of some kind is read."""

    def __call__(
        self, net: Any, images: Tensor, *, every_layer: bool, generators: Generators | None
    ) -> list[FrameLayer]:
        """Layers of a net on clips of images.

        Args:
            net: the net.
            images: ``(B, T, 3, H, W)``, normalised and padded.
            every_layer: all layers that the loss looks at; else the last alone.
            generators: of whatever the net draws.

        Returns:
            The last layer last, each of ``B T`` frames, a clip's frames together.
        """
        ...


class QuerySegmenter(nn.Module):
    """A net that answers with queries, as a segmenter.

    ``segmenter(frames)`` gives log scores; ``segmenter(frames, queries=True)``, or ``predict_queries``, what the
    set loss reads. Both come through ``forward``, since a net prepared for several processes is entered there.

    Args:
        net: the net; its weights are read and written through its own library, as ``segmenter.net``.
        layers_of: reads it.
        class_order: column of ``net`` of each of the K data-set classes, a permutation of 0..K-1.
        class_names: names of the data-set's classes; empty where there are none.
        multiple_of: sides are padded right and bottom to a multiple of this, a multiple of 4.
        matching: how its queries meet targets in training: each frame alone, or as one video.
        mean: per-channel mean subtracted from frames in ``[0, 1]``.
        std: per-channel standard deviation.

    Raises:
        ConfigError: there are more than 255 classes, or ``mean`` and ``std`` are not three numbers each with ``std``
            above 0.
    """

    class_order: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        layers_of: LayersOf,
        class_order: Sequence[int],
        class_names: Sequence[str] = (),
        multiple_of: int = 32,
        matching: Matching = "frame",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError(f"mean, std: expected three numbers each, std above 0, got {mean} and {std}")
        self.net = net
        self.layers_of = layers_of
        self.num_classes = check_num_classes(len(class_order))
        self.class_names = tuple(class_names)
        self.multiple_of = multiple_of
        self.matching = matching
        columns = torch.tensor([*class_order, self.num_classes])
        self.register_buffer("class_order", columns, persistent=False)
        self.mean = tuple(mean)
        self.std = tuple(std)

    @overload
    def forward(self, frames: Tensor, /, *, generators: Generators | None = None) -> Tensor: ...
    @overload
    def forward(
        self, frames: Tensor, /, *, queries: Literal[True], generators: Generators | None = None
    ) -> QueryClip: ...
    def forward(
        self, frames: Tensor, /, *, queries: bool = False, generators: Generators | None = None
    ) -> Tensor | QueryClip:
        """Log scores of frames in ``[0, 1]``, or the queries behind them.

        Args:
            frames: ``(B, T, 3, H, W)``; each batch item begins a video.
            queries: answer with a ``QueryClip`` instead.
            generators: of whatever the net draws itself in train mode; None takes torch's own.

        Returns:
            ``(B, T, K, H, W)`` in float32 at least, whose soft-max is the normalised score.

        Raises:
            ShapeError: frames are not five-dimensional or empty.
            DTypeError: they are not floating-point.
        """
        images = self.normalise(frames)
        layers = self.layers(images, every_layer=queries, generators=generators)
        if queries:
            covered = (images.shape[-2], images.shape[-1])
            return QueryClip(tuple(_of_clips(layer, clips=len(frames)) for layer in layers), covered=covered)
        size = (frames.shape[-2], frames.shape[-1])
        scores = torch.stack([semantic_scores(*pair, size=size, output_size=size) for pair in per_frame(layers[-1])])
        return rearrange(log_of(scores), "(b t) k h w -> b t k h w", b=len(frames))

    @torch.no_grad()
    def clip_labels(self, frames: Tensor, /, *, output_size: tuple[int, int]) -> Tensor:
        """Class ids ``(B, T, height, width)`` uint8 of frames ``(B, T, 3, H, W)``, without full-size scores.

        They are the arg-max of ``forward``'s scores; to another size than the frames' mask probabilities are resized.

        Raises:
            ShapeError, DTypeError: as ``forward``.
            DataError: scores are NaN.
        """
        layer = self.layers(self.normalise(frames), every_layer=False)[-1]
        size = (frames.shape[-2], frames.shape[-1])
        decoded = [semantic_labels(*pair, size=size, output_size=output_size) for pair in per_frame(layer)]
        labels, are_numbers = (torch.stack(parts) for parts in zip(*decoded, strict=True))
        check_numbers(are_numbers.all())
        return rearrange(labels, "(b t) h w -> b t h w", b=len(frames))

    def predict_queries(self, frames: Tensor, *, generators: Generators | None = None) -> QueryClip:
        """Classes and masks of every query of every layer that is trained, of frames ``(B, T, 3, H, W)``.

        Class columns are in data-set order; masks cover the frames padded right and bottom, a quarter of that size.

        Raises:
            ShapeError, DTypeError: as ``forward``.
        """
        clip: QueryClip = self(frames, queries=True, generators=generators)
        return clip

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the net as transformers does, class names included; its ``from_pretrained`` reads it."""
        save_net(self.net, folder, class_names=self.class_names)

    def normalise(self, frames: Tensor) -> Tensor:
        """What the net sees of frames ``(B, T, 3, H, W)`` in ``[0, 1]``: padding is the mean colour.

        Raises:
            ShapeError: frames are not ``(B, T, 3, H, W)`` or empty.
            DTypeError: they are not floating-point.
        """
        check_shapes(frames=(frames, "b t 3 h w"))
        check_float(frames=frames)
        if 0 in frames.shape:
            raise ShapeError(f"frames: expected (b t 3 h w) with no empty axis, got {tuple(frames.shape)}")
        # numbers, not buffers: a buffer made half keeps few digits
        channels = zip(frames.unbind(2), self.mean, self.std, strict=True)
        images = torch.stack([(channel - mean) / std for channel, mean, std in channels], dim=2)
        return pad_to_multiple(images, multiple=self.multiple_of).to(next(self.net.parameters()).dtype)

    def layers(self, images: Tensor, *, every_layer: bool, generators: Generators | None = None) -> list[FrameLayer]:
        """Layers of normalised images ``(B, T, 3, H, W)``: classes in data-set order, masks a quarter of their size."""
        layers = self.layers_of(self.net, images, every_layer=every_layer, generators=generators)
        return [self.in_dataset_terms(layer, images) for layer in layers]

    def in_dataset_terms(self, layer: FrameLayer, images: Tensor) -> FrameLayer:
        """A layer with its columns in data-set order, and masks of a quarter of the images' size."""
        quarter = (images.shape[-2] // STRIDE, images.shape[-1] // STRIDE)  # as published models of this kind give
        return FrameLayer(
            layer.class_logits.index_select(-1, self.class_order), resize_scores(layer.masks, size=quarter)
        )


def predict_queries(segmenter: Segmenter, frames: Tensor, generators: Generators | None = None) -> QueryClip:
    """What ``MaskSetObjective(predict=predict_queries)`` asks of a query model, also one prepared by DDP or Accelerate.

    Raises:
        DTypeError: the segmenter is no ``QuerySegmenter``, nor one wrapped for several processes.
    """
    query_segmenter(segmenter)
    entered: Any = segmenter  # wrappers take gradients together only where their own forward was entered
    clip: QueryClip = entered(frames, queries=True, generators=generators)
    return clip


def set_objective(segmenter: object, **numbers: Any) -> MaskSetObjective:
    """The set loss of a query model, matched as models of its kind are; ``numbers`` as in ``MaskSetObjective``.

    Raises:
        DTypeError: the segmenter is no ``QuerySegmenter``, nor one wrapped for several processes.
        ConfigError: a number is outside its range.
    """
    numbers = {"matching": query_segmenter(segmenter).matching, **numbers}
    return MaskSetObjective(predict=predict_queries, **numbers)


def query_segmenter(segmenter: object) -> QuerySegmenter:
    """The query model itself, without what wraps it for several processes or compiles it.

    Raises:
        DTypeError: there is none inside.
    """
    inner = segmenter
    while not isinstance(inner, QuerySegmenter):
        wrapped = getattr(inner, "module", None) or getattr(inner, "_orig_mod", None)
        if not isinstance(wrapped, nn.Module):
            raise DTypeError(
                f"segmenter: expected a model with queries (Mask2Former, EoMT or VidEoMT from from_transformers), got "
                f"{type(inner).__name__}; train it with PixelObjective"
            )
        inner = wrapped
    return inner


def own_names(net: Any) -> list[str] | None:
    """Names of the columns of a transformers model; None where it has only the library's placeholders."""
    names = [str(net.config.id2label[column]) for column in range(net.config.num_labels)]
    return None if names == [f"LABEL_{column}" for column in range(len(names))] else names


def save_net(net: Any, folder: str | os.PathLike[str], *, class_names: Sequence[str]) -> None:
    """Write a transformers model; one that has no class names of its own gets these."""
    if class_names and own_names(net) is None:
        net.config.id2label = dict(enumerate(class_names))
        net.config.label2id = {name: column for column, name in enumerate(class_names)}
    net.save_pretrained(folder)


def log_of(scores: Tensor) -> Tensor:
    """Log scores; where every mask underflows, the smallest number instead of minus infinity."""
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()


def per_frame(layer: FrameLayer) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each frame its mask logits ``(h, w, Q)`` and class table ``(Q, K)``."""
    for class_logits, masks in zip(layer.class_logits, layer.masks, strict=True):
        yield masks.permute(1, 2, 0), class_table(class_logits)


def _of_clips(layer: FrameLayer, *, clips: int) -> LayerPrediction:
    return LayerPrediction(
        rearrange(layer.class_logits, "(b t) q k -> b t q k", b=clips),
        DenseMasks(rearrange(layer.masks, "(b t) q h w -> b t q h w", b=clips)),
    )
