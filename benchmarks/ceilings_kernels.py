"""Kernels by public names of the library, their inputs, and the least that each must do (``ceilings_counts.py``)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ceilings_counts as counts
import torch
from ceilings_counts import Least
from peers_attention import PIXEL_DECODER, Shapes, arguments
from peers_inputs import VIDEO, Size, moving_scene, pan, photograph, smooth_masks
from peers_scores import CLASSES, LabelMaps, coherent_video
from peers_segmenter import PADDING, QUERIES
from peers_ssim import one_hot, two_maps
from peers_vote import stacks
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mvcseg.ensemble.flow_ssim import select_model
from mvcseg.flow import FarnebackFlow, TensorFarnebackFlow
from mvcseg.metrics import MeanIoU, clip_consistency
from mvcseg.models.dvis import build_dvis
from mvcseg.models.dvis.semantic import class_table, semantic_labels
from mvcseg.ops.deform_attn import deformable_attention
from mvcseg.ops.linear import linear
from mvcseg.ops.ssim import label_ssim, ssim
from mvcseg.ops.vote import majority
from mvcseg.ops.warp import warp_labels

POINTS = 4
"""Samples of a head and level of deformable attention."""
PRESET = "vspw_minvis_r50"
"""The model whose backbone and pixel decoder are timed."""


@dataclass(frozen=True)
class Scale:
    """How much work the kernels get.

    Attributes:
        size: ``(height, width)`` of frames.
        views: maps of a vote; as many are moved along a flow.
        frames: of a video that is scored.
        pairs: of neighbouring frames, for flow and its users.
        classes: of label maps that SSIM compares.
        maps: ``(height, width)`` of each level of deformable attention.
        heads: of deformable attention.
        width: channels of all heads, of linear maps and of the attention's output.
    """

    size: Size = VIDEO
    views: int = 8
    frames: int = 70
    pairs: int = 24
    classes: int = 8
    maps: Shapes = PIXEL_DECODER["480p"]
    heads: int = 8
    width: int = 256

    @property
    def pixels(self) -> int:
        """Of a frame."""
        return self.size[0] * self.size[1]

    @property
    def padded(self) -> Size:
        """Size of a frame as a model sees it."""
        return self.size[0] + -self.size[0] % PADDING, self.size[1] + -self.size[1] % PADDING


@dataclass(frozen=True)
class Kernel:
    """A piece of work, the least it must do, and how it is called; None where it is not measured.

    ``formula`` is the function of ``ceilings_counts`` whose docstring says how ``least`` was counted.
    """

    name: str
    formula: Callable[..., Least]
    least: Least
    call: Callable[[], Any] | None

    def record(self) -> dict[str, Any]:
        """As a row of JSON, nothing of it measured."""
        return {
            "kernel": self.name,
            "bytes": self.least.moved,
            "operations": dict(self.least.operations),
            "formula": " ".join((inspect.getdoc(self.formula) or "").split()),
        }


def kernel(name: str, formula: Callable[..., Least], numbers: Sequence[Any], call: Callable[[], Any] | None) -> Kernel:
    return Kernel(name, formula, formula(*numbers), call)


def on_the_cpu(scale: Scale) -> Iterator[Kernel]:
    """Each made when it is asked for."""
    yield from votes(scale)
    yield from scores(scale)
    yield from similarities(scale)
    yield from motions(scale)
    yield from maps_of_numbers(scale)
    yield from networks(scale)


def votes(scale: Scale) -> Iterator[Kernel]:
    for dtype in (torch.uint8, torch.int64):
        stack = stacks(scale.size, scale.views)["moved borders"].to(dtype)
        yield kernel(
            f"vote of {scale.views} maps, {str(dtype).removeprefix('torch.')}",
            counts.vote,
            (scale.views, scale.pixels, dtype.itemsize),
            lambda stack=stack: majority(stack, num_classes=CLASSES),
        )


def scores(scale: Scale) -> Iterator[Kernel]:
    video: LabelMaps = coherent_video(scale.size, scale.frames)
    pred, labels, raw = map(torch.from_numpy, (video.pred, video.labels, video.raw))
    about = f"of {scale.frames} frames"
    amount = scale.frames, scale.pixels
    yield kernel(f"mIoU {about}", counts.counting, amount, lambda: MeanIoU(CLASSES).update(pred, labels))
    yield kernel(
        f"VC8 and VC16 {about}",
        counts.consistency,
        amount,
        lambda: clip_consistency(pred, raw, clip_lengths=(8, 16)),
    )


def similarities(scale: Scale) -> Iterator[Kernel]:
    height, width = scale.size
    canvas = photograph((height + 1, width + 2))[None].float() / 255
    x, y = canvas[..., :height, :width].contiguous(), canvas[..., 1:, 2:].contiguous()
    yield kernel("SSIM of an RGB frame", counts.plane_ssim, (3, scale.pixels), lambda: ssim(x, y, data_range=1.0))
    a, b = two_maps(scale.size, scale.classes)
    yield kernel(
        f"SSIM of label maps, {scale.classes} classes, one thread",
        counts.label_ssim,
        (scale.pixels, windows_that_differ(a, b, scale.classes)),
        lambda: label_ssim(a, b, num_classes=scale.classes),
    )


def windows_that_differ(a: Tensor, b: Tensor, num_classes: int) -> int:
    """Windows, over all classes, in which two maps disagree about the class."""
    differs = (one_hot(a, num_classes) != one_hot(b, num_classes)).float()
    return int(functional.max_pool2d(differs, counts.WINDOW, stride=1).sum())


def motions(scale: Scale) -> Iterator[Kernel]:
    frames = scale.pairs + 1
    video, candidates = moving_scene(frames, size=scale.size, num_classes=scale.classes)
    real = video / 255
    estimate = FarnebackFlow()
    labels = candidates["steady"][:-1][: scale.views]
    motion = estimate(real[1:], real[:-1])[: scale.views]
    yield kernel(
        f"warp of {len(labels)} label maps",
        counts.warp,
        (len(labels), scale.pixels),
        lambda: warp_labels(labels, motion),
    )
    yield kernel(
        f"Farneback flow of {scale.pairs} pairs",
        counts.flow,
        (scale.pairs, scale.pixels),
        lambda: estimate(real[1:], real[:-1]),
    )
    yield kernel(
        f"choice between {len(candidates)} models, {scale.pairs} pairs",
        counts.selection,
        (len(candidates), frames, scale.pixels),
        lambda: select_model(video, candidates, num_classes=scale.classes, flow=estimate),
    )


def maps_of_numbers(scale: Scale) -> Iterator[Kernel]:
    """Deformable attention, a linear map, semantic decoding."""
    value, places, weights = arguments(scale.maps, heads=scale.heads, depth=scale.width // scale.heads, device="cpu")
    tokens = value.shape[1]
    yield kernel(
        f"deformable attention, {tokens} tokens",
        counts.attention,
        attention_numbers(scale),
        lambda: deformable_attention(value, places, weights, spatial_shapes=scale.maps),
    )
    gen = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, scale.width, generator=gen) for rows in (tokens, scale.width))
    yield kernel(
        f"linear map, {tokens} rows, {scale.width} to {scale.width}",
        counts.linear,
        (tokens, scale.width, scale.width),
        lambda: linear(x, weight),
    )
    quarter = scale.padded[0] // 4, scale.padded[1] // 4
    masks = smooth_masks(QUERIES, size=quarter, seed=0)[0].permute(1, 2, 0).contiguous()
    table = class_table(3 * torch.randn(QUERIES, CLASSES + 1, generator=gen))
    yield kernel(
        f"semantic decoding, {QUERIES} masks, {CLASSES} classes",
        counts.decoding,
        decoding_numbers(scale),
        lambda: semantic_labels(masks, table, size=scale.size, output_size=scale.size),
    )


def attention_numbers(scale: Scale) -> tuple[int, int, int, int]:
    """Tokens, heads, channels of a head, samples of a head."""
    tokens = sum(height * width for height, width in scale.maps)
    return tokens, scale.heads, scale.width // scale.heads, POINTS * len(scale.maps)


def decoding_numbers(scale: Scale) -> tuple[int, int, int, int]:
    return QUERIES, CLASSES, scale.padded[0] * scale.padded[1] // 16, scale.pixels


def networks(scale: Scale) -> Iterator[Kernel]:
    torch.manual_seed(0)
    model = build_dvis(PRESET).requires_grad_(False).eval()
    images = model.normalise(photograph(scale.size)[None].float() / 255)
    backbone, decoder = model.backbone, model.sem_seg_head.pixel_decoder
    maps = backbone(images)
    for name, part, inputs in (("ResNet-50", backbone, images), ("pixel decoder", decoder, maps)):
        with FlopCounterMode(display=False) as counter:
            result = part(inputs)
        given, made = tensors_in(inputs), tensors_in(result)
        yield kernel(
            name,
            counts.network,
            (
                sum(parameter.numel() for parameter in part.parameters()),
                [one.shape for one in given],
                [one.shape for one in made],
                counter.get_total_flops(),
            ),
            lambda part=part, inputs=inputs: part(inputs),
        )


def tensors_in(value: Any) -> list[Tensor]:
    """Tensors of a tensor, a sequence of them, or an object that holds either."""
    if isinstance(value, Tensor):
        return [value]
    parts = value if isinstance(value, (list, tuple)) else vars(value).values()
    return [tensor for part in parts for tensor in tensors_in(part)]


def on_a_gpu(scale: Scale) -> Iterator[Kernel]:
    """Kernels that wait for a GPU to be measured on: their counts alone."""
    numbers = attention_numbers(scale)
    yield kernel("deformable attention, forward", counts.attention, numbers, None)
    yield kernel("deformable attention, backward", counts.attention_backward, numbers, None)
    yield kernel("semantic decoding", counts.decoding, decoding_numbers(scale), None)
    traffic = flow_traffic(scale.size)
    yield kernel("Farneback flow as tensor operations, a pair", counts.tensor_flow, (scale.pixels, traffic), None)


def flow_traffic(size: Size) -> int:
    """Bytes that `TensorFarnebackFlow` moves for a pair of frames, counted on the CPU."""
    video = pan(photograph((size[0] + 1, size[1] + 3)), frames=2, size=size) / 255
    with counts.Traffic() as traffic:
        TensorFarnebackFlow()(video[1:], video[:-1])
    return traffic.moved
