"""The frame-wise segmenter against transformers' Mask2Former, and semantic output against upstream's way.

ResNet-50, 100 queries, 124 classes, a frame of 480 x 853 padded to 480 x 864, float32, the same weights (drawn at
random) in both, so that what they give can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from peers_inputs import VIDEO, Size, photograph, smooth_masks
from peers_row import Row, share_that_differs
from peers_transformers import same_result, transformers_segmenter
from torch import Tensor
from torch.nn import functional

from mvcseg.models.dvis import build_dvis, official_state_dict
from mvcseg.models.dvis.semantic import class_table, semantic_labels

QUERIES, CLASSES = 100, 124
MEASURE = "largest difference, of the largest value"
PADDING = 32


def rows(*, device: str = "cpu", size: Size = VIDEO) -> Iterator[Row]:
    torch.manual_seed(0)
    model = build_dvis("vspw_minvis_r50").requires_grad_(False)
    peer = transformers_segmenter(official_state_dict(model), num_classes=CLASSES, num_queries=QUERIES).to(device)
    model.to(device)
    backbone, head = model.backbone, model.sem_seg_head
    images = model.normalise(photograph(size)[None].to(device).float() / 255)
    maps = backbone(images)
    pixel_level = peer.model.pixel_level_module
    yield Row(
        "segmenter/frame/transformers",
        f"segmenter, R50, {QUERIES} queries: frame to mask logits",
        "transformers' Mask2Former, same weights",
        ours=lambda: head(backbone(images)).masks(),
        theirs=lambda: peer(pixel_values=images).masks_queries_logits,
        difference=on_average,
        tolerance=1e-2,
        measure="mean difference, of the mean (a mask within rounding of its threshold may hide a key from a query)",
        target=1.4,
        turns=3,
        at_most=12,
    )
    yield Row(
        "segmenter/backbone/transformers",
        "its backbone, ResNet-50",
        "transformers' ResNet, same weights",
        ours=lambda: backbone(images)[-1],
        theirs=lambda: pixel_level.encoder(images).feature_maps[-1],
        difference=same_result,
        tolerance=1e-4,
        measure=MEASURE,
        turns=5,
        at_most=4,
    )
    yield Row(
        "segmenter/pixels/transformers",
        "its pixel decoder: six layers of deformable attention and the mask features",
        "transformers' pixel decoder, same weights",
        ours=lambda: head.pixel_decoder(maps).mask_features,
        theirs=lambda: pixel_level.decoder(maps).mask_features,
        difference=same_result,
        tolerance=1e-4,
        measure=MEASURE,
        turns=5,
        at_most=6,
    )


def on_average(ours: Tensor, theirs: Tensor) -> float:
    """Mean difference as a share of the mean value."""
    return float((ours - theirs).abs().mean() / theirs.abs().mean())


def semantic_rows(*, device: str = "cpu", size: Size = VIDEO) -> Iterator[Row]:
    padded = size[0] + -size[0] % PADDING, size[1] + -size[1] % PADDING
    masks = smooth_masks(QUERIES, size=(padded[0] // 4, padded[1] // 4), seed=0).to(device)
    gen = torch.Generator().manual_seed(0)
    table = class_table(3 * torch.randn(QUERIES, CLASSES + 1, generator=gen)).to(device)
    innermost = masks[0].permute(1, 2, 0).contiguous()
    yield Row(
        "semantic/labels/upstream",
        f"mask logits to labels, {QUERIES} masks, {CLASSES} classes",
        "upstream's way written down: full-size masks, then einsum",
        ours=lambda: semantic_labels(innermost, table, size=size, output_size=size)[0],
        theirs=lambda: upstream_labels(masks, table, size=size, padded=padded),
        difference=share_that_differs,
        tolerance=1e-4,
        measure="share of pixels that differ (scores equal up to rounding)",
        at_most=5,
    )


def upstream_labels(masks: Tensor, table: Tensor, *, size: Size, padded: Size) -> Tensor:
    """Logits enlarged, cropped, made probabilities, resized to the output, multiplied, arg-max: all full-size."""
    full = functional.interpolate(masks, size=padded, mode="bilinear", align_corners=False)
    shares = full[..., : size[0], : size[1]].sigmoid()
    shares = functional.interpolate(shares, size=size, mode="bilinear", align_corners=False)[0]
    return torch.einsum("qk,qhw->khw", table, shares).argmax(dim=0)
