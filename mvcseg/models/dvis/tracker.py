"""The referring tracker of DVIS++: queries of each frame put in the order of, and denoised by, the frame before.

A frame starts from its own queries in matched order. In six layers it asks this frame's queries, through what the
previous frame became, which of them continues what. The only memory is an explicit ``TrackerState``.

Source: DVIS++, arXiv 2312.13305 (referring tracker, reference vectors); parameter names of the published checkpoints
(https://github.com/zhang-tao-whu/DVIS_Plus).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvcseg.errors import ShapeError
from mvcseg.models.dvis.noise import NoiseDraw, QueryNoise
from mvcseg.models.layers.attention import CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer
from mvcseg.models.layers.initial import keep_variance
from mvcseg.models.layers.mlp import MLP
from mvcseg.models.layers.recomputed import recomputed
from mvcseg.ops.matching import match_frames, take_order
from mvcseg.shapes import check_float, check_shapes


@dataclass(frozen=True)
class TrackerState:
    """What the tracker remembers of the last frame.

    Attributes:
        outputs: ``(B, Q, C)``, the last layer's output, not normed.
        embeds: ``(B, Q, C)``, the segmenter's normed embeddings in tracked order.
    """

    outputs: Tensor
    embeds: Tensor


@dataclass(frozen=True)
class Tracked:
    """The tracker's answer for a clip.

    Attributes:
        class_logits: ``(B, T, Q, K + 1)``, the last class is no object.
        embeds: ``(B, T, Q, C)``, what ``mask_kernels`` and the refiner read.
        references: ``(B, T, Q, C)``, what each frame's queries were looked up by.
        order: ``(B, T, Q)`` int64, the segmenter's query in each place.
        state: to go on from.
    """

    class_logits: Tensor
    embeds: Tensor
    references: Tensor
    order: Tensor
    state: TrackerState


@dataclass(frozen=True)
class MaskKernels:
    """Mask logits are ``weight . mask_features + bias``.

    Attributes:
        weight: ``(..., Q, C)``, C channels of the mask features.
        bias: ``(..., Q)``; None is zero.
    """

    weight: Tensor
    bias: Tensor | None


class ReferringTracker(nn.Module):
    """Tracks the segmenter's queries through a video.

    Any split of a video, with the state handed over, gives the bits of one unbroken run: everything is computed frame
    by frame.

    Args:
        num_classes: K.
        width: C, channels of a query: decoder and re-id embedding together.
        hidden: channels inside the feed-forward layers.
        heads: attention heads.
        layers: how many.
        mask_width: channels of the mask features.

    Example:
        >>> tracker = ReferringTracker(10, width=32, hidden=64, layers=2, mask_width=16).eval()
        >>> embeds = torch.randn(1, 5, 7, 32)
        >>> first = tracker(embeds[:, :3], embeds[:, :3])
        >>> rest = tracker(embeds[:, 3:], embeds[:, 3:], state=first.state)
        >>> rest.class_logits.shape
        torch.Size([1, 2, 7, 11])
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
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(width, heads=heads) for _ in range(layers)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(width, heads=heads) for _ in range(layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(width, hidden=hidden) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.class_embed = nn.Linear(2 * width, num_classes + 1)
        self.mask_embed = MLP(width, width, width, mask_width)
        self.ref_proj = MLP(width, width, width, width)
        self.mask_feature_proj = nn.Conv2d(mask_width, mask_width, 1)
        keep_variance(*self.ref_proj.layers)

    def forward(self, embeds: Tensor, embeds_unnormed: Tensor, *, state: TrackerState | None = None) -> Tracked:
        """Track a clip.

        Args:
            embeds: ``(B, T, Q, C)``, the segmenter's normed embeddings: they decide the order.
            embeds_unnormed: ``(B, T, Q, C)``, the same before the norm: they are tracked.
            state: of the frame before; None begins a video.

        Raises:
            ShapeError: the shapes do not agree.
            DTypeError: not floating point.
        """
        return self._track(embeds, embeds_unnormed, state, [], every_layer=False)[-1]

    def forward_layers(
        self,
        embeds: Tensor,
        embeds_unnormed: Tensor,
        *,
        state: TrackerState | None = None,
        noise: QueryNoise | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        recomputes: int = 0,
    ) -> list[Tracked]:
        """Every layer's answer, for training; the last is that of ``forward``, and all have the same ``state``.

        Args:
            embeds: as in ``forward``.
            embeds_unnormed: as in ``forward``.
            state: as in ``forward``.
            noise: spoils the start of some frames, but never of a video's first; None and ``eval()`` spoil nothing.
            generator: a CPU generator for the noise, or one for each video.
            recomputes: of how many frames, the first ones, little is kept for the backward pass, which then computes
                them again.
        """
        draws: list[list[NoiseDraw | None]] = []
        if noise is not None and self.training:
            batch, count, queries, width = embeds.shape
            each = generator if isinstance(generator, Sequence) else [generator] * batch
            draws = [noise.draw(count, queries=queries, width=width, generator=own) for own in each]
            if state is None:
                draws = [[None, *video[1:]] for video in draws]
        return self._track(embeds, embeds_unnormed, state, draws, every_layer=True, recomputes=recomputes)

    def mask_kernels(self, embeds: Tensor) -> MaskKernels:
        """Kernels over the segmenter's mask features, for ``embeds`` ``(..., Q, C)`` of a ``Tracked``.

        The 1x1 convolution ``mask_feature_proj`` is folded into the kernels: Q products instead of one per pixel.
        """
        kernels = self.mask_embed(self.decoder_norm(embeds))
        return MaskKernels(kernels @ self.mask_feature_proj.weight.flatten(1), kernels @ self.mask_feature_proj.bias)

    def refiner_memory(self, embeds: Tensor, embeds_unnormed: Tensor) -> Tensor:
        """What the refiner of this version looks up: the segmenter's queries before the norm, in their own order."""
        return embeds_unnormed

    def _track(
        self,
        embeds: Tensor,
        unnormed: Tensor,
        state: TrackerState | None,
        draws: Sequence[Sequence[NoiseDraw | None]],
        *,
        every_layer: bool,
        recomputes: int = 0,
    ) -> list[Tracked]:
        check_clip(embeds, unnormed, state)
        given = {
            (b, t): draw.order for b, video in enumerate(draws) for t, draw in enumerate(video) if draw is not None
        }
        order = match_frames(embeds, previous=state.embeds if state else None, given=given)
        frames: list[list[tuple[Tensor, Tensor, Tensor]]] = []
        outputs = state.outputs if state else None
        for t, memory in enumerate(unnormed.unbind(1)):
            # a loop: each frame needs the one before
            start = take_order(memory, order[:, t])
            if given:
                start = torch.stack(
                    [_spoil(video[t], *pair) for video, *pair in zip(draws, memory, start, strict=True)]
                )
            reference = self.ref_proj(memory if outputs is None else outputs)
            layers = recomputed(self._layers, t < recomputes)(start, reference, memory, is_first=outputs is None)
            outputs = layers[-1]
            answers = layers if every_layer else layers[-1:]
            frames.append([(answer, reference, self._classify(reference, answer)) for answer in answers])
        assert outputs is not None, "a clip has a frame"
        end = TrackerState(outputs, take_order(embeds[:, -1], order[:, -1]))
        answers_by_layer = zip(*frames, strict=True)
        return [_join(answers, order, end) for answers in answers_by_layer]

    def _layers(self, start: Tensor, reference: Tensor, memory: Tensor, *, is_first: bool) -> list[Tensor]:
        """Output of every layer for one frame.

        A video's first frame has no reference but itself: every layer asks through a projection of what it has.
        """
        x, query, outputs = start, reference, list[Tensor]()
        for cross, own, feed in zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        ):
            if is_first and outputs:
                query = self.ref_proj(x)
            x = feed(own(cross(x, query, memory, memory)))
            outputs.append(x)
        return outputs

    def _classify(self, reference: Tensor, output: Tensor) -> Tensor:
        return self.class_embed(torch.cat([reference, self.decoder_norm(output)], dim=-1))  # type: ignore[no-any-return]


def check_clip(embeds: Tensor, unnormed: Tensor, state: TrackerState | None) -> None:
    """Require queries of at least one frame and a state that fits them.

    Raises:
        ShapeError: the shapes do not agree, or there is no frame.
        DTypeError: not floating point.
    """
    named = {"embeds": (embeds, "b t q c"), "embeds_unnormed": (unnormed, "b t q c")}
    if state is not None:
        named |= {"state.outputs": (state.outputs, "b q c"), "state.embeds": (state.embeds, "b q c")}
    if not check_shapes(**named)["t"]:
        raise ShapeError("embeds: expected at least one frame, got none")
    check_float(embeds=embeds, embeds_unnormed=unnormed)


def _spoil(draw: NoiseDraw | None, queries: Tensor, start: Tensor) -> Tensor:
    return start if draw is None else draw.apply(queries)


def _join(answers: Sequence[tuple[Tensor, Tensor, Tensor]], order: Tensor, state: TrackerState) -> Tracked:
    embeds, references, class_logits = (torch.stack(parts, dim=1) for parts in zip(*answers, strict=True))
    return Tracked(class_logits, embeds, references, order, state)
