"""Queries that read the image through their own masks: the masked-attention decoder.

Source: Mask2Former (arXiv 2112.01527); the re-identification head is that of CTVIS (arXiv 2307.12616) as DVIS++
(arXiv 2312.13305) uses it. Parameter names of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.models.layers.attention import CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer
from mvcseg.models.layers.initial import keep_variance
from mvcseg.models.layers.mlp import MLP
from mvcseg.models.layers.recomputed import recomputed
from mvcseg.models.mask2former.pixel_decoder import PixelFeatures
from mvcseg.models.mask2former.position import sine_position
from mvcseg.ops.linear import linear

SCALES = 3


@dataclass(frozen=True)
class FrameQueries:
    """What is known of every query after a decoder layer, for N frames.

    Attributes:
        class_logits: ``(N, Q, K + 1)``, the last class means no object.
        mask_embeds: ``(N, Q, D)``, D channels of the mask features.
        embeds: ``(N, Q, C)``, normed decoder output, then the re-identification embedding where there is one.
        embeds_unnormed: ``(N, Q, C)``, the same with the decoder output before its norm.
        mask_features: ``(N, D, h, w)``.
    """

    class_logits: Tensor
    mask_embeds: Tensor
    embeds: Tensor
    embeds_unnormed: Tensor
    mask_features: Tensor

    def masks(self) -> Tensor:
        """Mask logits ``(N, Q, h, w)``, in the type of the mask features."""
        embeds = self.mask_embeds.to(self.mask_features.dtype)  # autocast has halved the one, not the other
        return torch.einsum("nqc,nchw->nqhw", embeds, self.mask_features)


torch.export.register_dataclass(
    FrameQueries, serialized_type_name="mvcseg.FrameQueries"
)  # an exported graph returns it


class QueryDecoder(nn.Module):
    """Learned queries, refined layer by layer; each layer attends inside the mask predicted before it.

    Args:
        num_classes: K, without the no-object class.
        num_queries: Q.
        has_reid: whether there is a re-identification head.
        width: channels of queries and pixel features.
        heads: attention heads.
        hidden: channels inside the feed-forward.
        layers: number of layers; layer i reads scale ``i % 3``.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_queries: int,
        has_reid: bool,
        width: int = 256,
        heads: int = 8,
        hidden: int = 2048,
        layers: int = 9,
    ) -> None:
        super().__init__()
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(width, heads=heads) for _ in range(layers)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(width, heads=heads) for _ in range(layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(width, hidden=hidden) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.query_feat = nn.Embedding(num_queries, width)
        self.query_embed = nn.Embedding(num_queries, width)
        self.level_embed = nn.Embedding(SCALES, width)
        self.class_embed = nn.Linear(width, num_classes + 1)
        self.mask_embed = MLP(width, width, width, width)
        self.reid_embed = MLP(width, width, width, width) if has_reid else None
        if self.reid_embed is not None:
            keep_variance(*self.reid_embed.layers)

    def forward(self, features: PixelFeatures) -> FrameQueries:
        """The last layer's prediction; frames do not see each other."""
        return self._predict(self._states(features)[-1], features.mask_features)

    def layer_predictions(self, features: PixelFeatures, *, recomputes: int = 0) -> tuple[FrameQueries, ...]:
        """Predictions before the first layer and after every layer, for training with deep supervision.

        The last one is what ``forward`` gives.

        Args:
            features: of the pixel decoder.
            recomputes: of how many layers, the first ones, little is kept for the backward pass, which then computes
                them again.
        """
        states = self._states(features, recomputes=recomputes)
        return tuple(self._predict(state, features.mask_features) for state in states)

    def _states(self, features: PixelFeatures, *, recomputes: int = 0) -> list[Tensor]:
        """Queries ``(N, Q, C)`` before the first layer and after every layer."""
        memories = [self._memory(scale, level) for level, scale in enumerate(features.scales)]
        small = [_resized(features.mask_features, like=scale) for scale in features.scales]
        x = self.query_feat.weight.expand(features.mask_features.shape[0], -1, -1)
        states = [x]
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for i, (cross, among, feed_forward) in enumerate(layers):
            layer = recomputed(partial(self._layer, cross, among, feed_forward), i < recomputes)
            x = layer(x, *memories[i % SCALES], self._visible(x, small[i % SCALES]))
            states.append(x)
        return states

    def _layer(
        self,
        cross: nn.Module,
        among: nn.Module,
        feed_forward: nn.Module,
        x: Tensor,
        key: Tensor,
        value: Tensor,
        visible: Tensor,
    ) -> Tensor:
        place = self.query_embed.weight
        x = cross(x, x + place, key, value, visible=visible)
        return feed_forward(among(x, position=place))  # type: ignore[no-any-return]

    def _memory(self, scale: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Keys and values before their projections, each ``(N, S, C)``."""
        height, width = scale.shape[-2:]
        value = scale.flatten(2).transpose(1, 2) + self.level_embed.weight[level]
        position = sine_position(height, width, channels=value.shape[-1], device=value.device, dtype=value.dtype)
        return value + position.flatten(0, 1), value

    def _visible(self, x: Tensor, pixels: Tensor) -> Tensor:
        """``(N, Q, S)`` bool: pixels ``(N, S, C)`` where the query's mask is at least one half, all where none is."""
        kernels = self.mask_embed(self.decoder_norm(x))
        inside = _products(kernels, pixels) >= 0  # the sigmoid is at least 0.5
        return inside | ~inside.any(dim=-1, keepdim=True)

    def _predict(self, x: Tensor, mask_features: Tensor) -> FrameQueries:
        normed = self.decoder_norm(x)
        identity = () if self.reid_embed is None else (self.reid_embed(normed),)
        return FrameQueries(
            class_logits=self.class_embed(normed),
            mask_embeds=self.mask_embed(normed),
            embeds=torch.cat([normed, *identity], dim=-1),
            embeds_unnormed=torch.cat([x, *identity], dim=-1),
            mask_features=mask_features,
        )


def _products(kernels: Tensor, pixels: Tensor) -> Tensor:
    """``(N, Q, S)``: every kernel ``(N, Q, C)`` with every pixel ``(N, S, C)``."""
    if len(kernels) != 1:
        return kernels @ pixels.transpose(1, 2)
    return linear(pixels[0], kernels[0]).t().contiguous().unsqueeze(0)


def _resized(mask_features: Tensor, *, like: Tensor) -> Tensor:
    """Mask features at another scale, ``(N, S, C)``.

    Resizing is linear and acts on pixels, the inner product on channels: small features times queries are the small
    masks, and the full-size masks are never made.
    """
    small = functional.interpolate(mask_features, size=like.shape[-2:], mode="bilinear", align_corners=False)
    return small.flatten(2).transpose(1, 2)
