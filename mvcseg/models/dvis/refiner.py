"""The temporal refiner: every query looks at itself over the whole video, then at its frame.

A layer is, each step followed by its norm: attention over time, short convolutions over time, attention between the
queries of a frame, a look at the segmenter's queries of that frame, a feed-forward step. There is no position encoding.
One class vector per query and video is a learned weighted mean over time.

Both versions of DVIS use this refiner, the first at width 256. Its memory differs: see ``refiner_memory`` of
the trackers.

Source: DVIS, arXiv 2306.03413 (temporal refiner); DVIS++, arXiv 2312.13305; parameter names of the published
checkpoints (https://github.com/zhang-tao-whu/DVIS_Plus).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mvcseg.errors import ShapeError
from mvcseg.models.layers.attention import CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer
from mvcseg.models.layers.mlp import MLP
from mvcseg.models.layers.recomputed import recomputed
from mvcseg.shapes import check_float, check_shapes


@dataclass(frozen=True)
class Refined:
    """The refiner's answer for whole videos.

    Attributes:
        class_logits: ``(B, Q, K + 1)``, one per query and video; the last class is no object.
        mask_embeds: ``(B, T, Q, C)``, kernels over the segmenter's C channels of mask features.
        embeds: ``(B, T, Q, D)``, normed.
    """

    class_logits: Tensor
    mask_embeds: Tensor
    embeds: Tensor


class TemporalRefiner(nn.Module):
    """Refines tracked queries with the whole video in view.

    ``refine_spilled`` gives the same for a video of any length in bounded memory.

    Args:
        num_classes: K.
        width: D, channels of a query; 512, or 256 in first-version DVIS.
        hidden: channels inside the feed-forward layers.
        heads: attention heads.
        layers: how many.
        mask_width: channels of the mask features.

    Example:
        >>> import torch
        >>> refiner = TemporalRefiner(10, width=32, hidden=64, layers=2, mask_width=16).eval()
        >>> embeds, memory = torch.randn(2, 1, 5, 7, 32)
        >>> refiner(embeds, memory).class_logits.shape
        torch.Size([1, 7, 11])
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: int = 512,
        hidden: int = 2048,
        heads: int = 8,
        layers: int = 6,
        mask_width: int = 256,
    ) -> None:
        super().__init__()
        self.mask_width = mask_width
        self.transformer_time_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(width, heads=heads) for _ in range(layers)
        )
        self.conv_short_aggregate_layers = nn.ModuleList(
            nn.Sequential(_convolution(width, size=5), nn.ReLU(inplace=True), _convolution(width, size=3))
            for _ in range(layers)
        )
        self.conv_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.transformer_obj_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(width, heads=heads) for _ in range(layers)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(width, heads=heads) for _ in range(layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(width, hidden=hidden) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.class_embed = nn.Linear(width, num_classes + 1)
        self.mask_embed = MLP(width, width, width, mask_width)
        self.activation_proj = nn.Linear(width, 1)

    def forward(self, embeds: Tensor, memory: Tensor) -> Refined:
        """Refine whole videos.

        Args:
            embeds: ``(B, T, Q, D)``, ``embeds`` of ``Tracked`` over the whole video.
            memory: ``(B, T, S, D)``, ``refiner_memory`` of the tracker, in any order.

        Raises:
            ShapeError: the shapes do not agree, or there is no frame.
            DTypeError: not floating point.
        """
        return self.predict(self._run(embeds, memory)[-1])

    def forward_layers(self, embeds: Tensor, memory: Tensor, *, recomputes: int = 0) -> list[Refined]:
        """Every layer's answer, for training; the last is that of ``forward``.

        Args:
            embeds: as in ``forward``.
            memory: as in ``forward``.
            recomputes: of how many layers, the first ones, little is kept for the backward pass, which then computes
                them again.
        """
        return [self.predict(x) for x in self._run(embeds, memory, recomputes)]

    def over_time(self, layer: int, x: Tensor) -> Tensor:
        """First half of a layer: attention and convolutions over time, for each query alone.

        Args:
            layer: its number.
            x: ``(N, T, D)``, N queries, each over all of its video.
        """
        x = self.transformer_time_self_attention_layers[layer](x)
        near = self.conv_short_aggregate_layers[layer](x.transpose(1, 2)).transpose(1, 2)
        return self.conv_norms[layer](x + near)  # type: ignore[no-any-return]

    def over_queries(self, layer: int, x: Tensor, memory: Tensor) -> Tensor:
        """Second half of a layer: attention between queries, to the memory, feed-forward, for each frame alone.

        Args:
            layer: its number.
            x: ``(N, Q, D)``, N frames.
            memory: ``(N, S, D)``.
        """
        x = self.transformer_obj_self_attention_layers[layer](x)
        x = self.transformer_cross_attention_layers[layer](x, x, memory, memory)
        return self.transformer_ffn_layers[layer](x)  # type: ignore[no-any-return]

    def predict(self, x: Tensor) -> Refined:
        """Classes and mask kernels from a layer's output ``(B, T, Q, D)``."""
        normed = self.decoder_norm(x)
        share = self.activation_proj(normed).softmax(dim=1)
        return Refined(self.class_embed((normed * share).sum(dim=1)), self.mask_embed(normed), normed)

    def _run(self, embeds: Tensor, memory: Tensor, recomputes: int = 0) -> list[Tensor]:
        """Output of every layer, ``(B, T, Q, D)``."""
        sizes = check_shapes(embeds=(embeds, "b t q d"), memory=(memory, "b t s d"))
        check_float(embeds=embeds, memory=memory)
        if not sizes["t"]:
            raise ShapeError("embeds: expected at least one frame, got none")
        memory = memory.flatten(0, 1)
        x, outputs = embeds, []
        for layer in range(len(self.conv_norms)):
            x = recomputed(self._layer, layer < recomputes)(layer, x, memory)
            outputs.append(x)
        return outputs

    def _layer(self, layer: int, x: Tensor, memory: Tensor) -> Tensor:
        batch, count, queries, width = x.shape
        x = x.transpose(1, 2).reshape(batch * queries, count, width)
        x = self.over_time(layer, x).view(batch, queries, count, width)
        x = x.transpose(1, 2).reshape(batch * count, queries, width)
        return self.over_queries(layer, x, memory).view(batch, count, queries, width)


def _convolution(width: int, *, size: int) -> nn.Conv1d:
    return nn.Conv1d(width, width, size, padding="same", padding_mode="replicate")
