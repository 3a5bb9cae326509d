"""EoMT and VidEoMT: a plain vision transformer whose last blocks see queries beside the patches.

Source: arXiv 2503.19108 (EoMT), and tue-mps/videomt for the video model. The blocks, heads and weights are those of
the transformers library; they are called one by one here, so that frames may have any size and every block's own
prediction can be trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.adapters.query_segmenter import FrameLayer, Generators, query_segmenter
from mvcseg.errors import ConfigError, DTypeError


def embed(net: Any, images: Tensor) -> Tensor:
    """Class, register and patch tokens ``(N, L, C)`` of images ``(N, 3, H, W)``, sides multiples of the patch.

    Learned positions are resized to the images' grid (bicubic, antialiased, as timm does for such nets); a net of
    the native size gets them as they are.
    """
    embeddings = net.embeddings
    if not hasattr(embeddings, "position_embeddings"):  # rotary positions: any size
        tokens: Tensor = net.dropout(embeddings(images))
        return tokens
    patches = embeddings.patch_embeddings(images)
    patches = patches + _positions(embeddings.position_embeddings.weight, net.grid_size, grid_of(net, images))
    leading = (embeddings.cls_token, embeddings.register_tokens)
    tokens = torch.cat([*(token.expand(len(images), -1, -1) for token in leading), patches], dim=1)
    dropped: Tensor = embeddings.dropout(tokens)
    return dropped


def rotary(net: Any, images: Tensor) -> dict[str, Any]:
    """Keyword arguments of a block: rotary positions where the net has them."""
    return {"position_embeddings": net.rope_embeddings(images)} if hasattr(net, "rope_embeddings") else {}


def grid_of(net: Any, images: Tensor) -> tuple[int, int]:
    """Rows and columns of patches."""
    return images.shape[-2] // net.config.patch_size, images.shape[-1] // net.config.patch_size


def blocks_of(net: Any) -> tuple[Sequence[nn.Module], Sequence[nn.Module]]:
    """The blocks before the queries join, and those after."""
    first = len(net.layers) - net.config.num_blocks
    return net.layers[:first], net.layers[first:]


def heads(net: Any, tokens: Tensor, grid: tuple[int, int]) -> FrameLayer:
    """Classes and masks of the queries, the first ``num_queries`` of the tokens ``(N, L, C)``."""
    queries, patches = tokens[:, : net.config.num_queries], tokens[:, -grid[0] * grid[1] :]
    features = net.upscale_block(rearrange(patches, "n (h w) c -> n c h w", h=grid[0]))
    masks = torch.einsum("nqc, nchw -> nqhw", net.mask_head(queries), features)
    return FrameLayer(net.class_predictor(queries), masks)


def eomt_layers(net: Any, images: Tensor, *, every_layer: bool, generators: Generators | None) -> list[FrameLayer]:
    """Layers of an EoMT; one prediction ahead of each of its last blocks, then the final one.

    Where ``net.attn_mask_probs`` of a block is above 0, queries attend only to patches in their own mask, each
    query with that probability: drawn in train mode, and in eval mode the first such share of the queries.
    """
    clips, frames = images.shape[:2]
    images, keywords = images.flatten(0, 1), rotary(net, images.flatten(0, 1))
    grid = grid_of(net, images)
    before, after = blocks_of(net)
    tokens = embed(net, images)
    for block in before:
        tokens = block(tokens, **keywords)
    tokens = torch.cat([net.query.weight.expand(len(tokens), -1, -1), tokens], dim=1)
    draws = _draws(net, clips, frames, generators)
    layers = []
    # which blocks mask decides what is computed at all, so the host must know
    for block, probability in zip(after, net.attn_mask_probs.tolist(), strict=True):
        if every_layer or probability > 0:
            layers.append(heads(net, net.layernorm(tokens), grid))
        mask = None
        if probability > 0:
            is_masked = next(draws).to(tokens.device) < probability
            mask = _attention_mask(layers[-1].masks, is_masked, tokens, grid)
        tokens = block(tokens, attention_mask=mask, **keywords)
    last = heads(net, net.layernorm(tokens), grid)
    return [*layers, last] if every_layer else [last]


def anneal_attention_masks(segmenter: object, *, progress: float) -> None:
    """Set how often each block of an EoMT uses attention masks, as its training does.

    Of N blocks, block i (from 0) masks always until ``(i + 1) / (N + 1)`` of the run, then less and less often
    (power 0.9), and from ``(i + 2) / (N + 1)`` on never; so a trained model needs no masks. Call it before each step.

    Args:
        segmenter: an EoMT from ``from_transformers``, also one prepared by DDP or Accelerate.
        progress: share of the run that is done, in ``[0, 1]``.

    Raises:
        DTypeError: the segmenter has no such masks.
        ConfigError: ``progress`` is outside ``[0, 1]``.

    Source: tue-mps/eomt, the schedule of EoMT-L.
    """
    if not 0 <= progress <= 1:
        raise ConfigError(f"progress: expected a share in [0, 1], got {progress!r}")
    inner = query_segmenter(segmenter)
    if inner.layers_of is not eomt_layers:
        raise DTypeError(f"segmenter: expected an EoMT, got {type(inner.net).__name__}, which has no such masks")
    shares: Any = inner.net.attn_mask_probs
    block = torch.arange(len(shares), dtype=torch.float64)
    passed = (progress * (len(shares) + 1) - block - 1).clamp(0, 1)
    shares.copy_((1 - passed).pow(0.9))


def _positions(table: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Positions ``(L, C)`` of another grid."""
    if grid == wanted:
        return table
    plane = rearrange(table.float(), "(h w) c -> 1 c h w", h=grid[0])
    resized = functional.interpolate(plane, size=wanted, mode="bicubic", antialias=True, align_corners=False)
    return rearrange(resized[0], "c h w -> (h w) c").to(table.dtype)


def _draws(net: Any, clips: int, frames: int, generators: Generators | None) -> Iterator[Tensor]:
    """Uniform numbers ``(B T, Q)`` for each block that asks."""
    queries = net.config.num_queries
    while True:
        if not net.training:
            yield torch.arange(queries).expand(clips * frames, -1) / queries
        elif not generators:
            yield torch.rand(clips * frames, queries)
        else:
            own = generators if len(generators) == clips else [generators[0]] * clips
            draws = [torch.rand(frames, queries, generator=one, device=one.device).cpu() for one in own]
            yield torch.cat(draws)


def _attention_mask(masks: Tensor, is_masked: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """What is added to attention scores, ``(N, 1, L, L)``: little for patches outside a masked query's mask."""
    count, queries = is_masked.shape
    inside = functional.interpolate(masks.detach(), size=grid, mode="bilinear", align_corners=False).flatten(2) > 0
    hidden = ~inside & is_masked.unsqueeze(-1)
    mask = tokens.new_zeros(count, 1, tokens.shape[1], tokens.shape[1])
    mask[:, 0, :queries, -grid[0] * grid[1] :].masked_fill_(hidden, torch.finfo(tokens.dtype).min)
    return mask
