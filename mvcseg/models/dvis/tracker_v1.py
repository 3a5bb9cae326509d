"""The referring tracker of first-version DVIS, half as wide and without reference projection.

What the published code (https://github.com/zhang-tao-whu/DVIS, file ``dvis/video_dvis_modules.py``) computes, where it
differs from DVIS++:

- One stream of queries, the segmenter's normed ones, is matched, tracked and looked up.
- On a video's first frame every layer asks with its own input, the first layer with the frame's queries, and nothing
  is re-ordered. On later frames every layer asks with the previous frame's final output, not projected and not normed.
- Later frames are re-ordered by the *inverse* of the matching: the assignment is solved from the current to the
  previous queries, and its answer indexes the current ones. That is the intended order only where the permutation is
  its own inverse. Kept, since the released weights go with that code.
- Classes and masks come from the normed output alone, masks from the segmenter's features as they are, and the normed
  output is what goes to the refiner.
- The refiner looks up every frame's queries after they have passed through the tracker as a first frame would.

Source: DVIS, arXiv 2306.03413.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvcseg.models.dvis.tracker import MaskKernels, Tracked, TrackerState, check_clip
from mvcseg.models.layers.attention import CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer
from mvcseg.models.layers.mlp import MLP
from mvcseg.models.layers.recomputed import recomputed
from mvcseg.ops.matching import assign_inverse, match_frames, take_order


class FirstReferringTracker(nn.Module):
    """The tracker of first-version DVIS; used as ``ReferringTracker`` is.

    Args:
        num_classes: K.
        width: C, channels of a query.
        hidden: channels inside the feed-forward layers.
        heads: attention heads.
        layers: how many.
        mask_width: channels of the mask features.

    Example:
        >>> tracker = FirstReferringTracker(10, width=32, hidden=64, layers=2, mask_width=16).eval()
        >>> embeds = torch.randn(1, 5, 7, 32)
        >>> tracker(embeds, embeds).class_logits.shape
        torch.Size([1, 5, 7, 11])
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: int = 256,
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
        self.class_embed = nn.Linear(width, num_classes + 1)
        self.mask_embed = MLP(width, width, width, mask_width)

    def forward(self, embeds: Tensor, embeds_unnormed: Tensor, *, state: TrackerState | None = None) -> Tracked:
        """Track a clip.

        Args:
            embeds: ``(B, T, Q, C)``, the segmenter's normed embeddings.
            embeds_unnormed: of the same shape; this version does not read it.
            state: of the frame before; None begins a video.

        Returns:
            ``embeds`` of the answer are normed here, unlike those of ``ReferringTracker``; ``references`` are what each
            frame's first layer asked with.

        Raises:
            ShapeError: the shapes do not agree, or there is no frame.
            DTypeError: not floating point.
        """
        return self.forward_layers(embeds, embeds_unnormed, state=state)[-1]

    def forward_layers(
        self,
        embeds: Tensor,
        embeds_unnormed: Tensor,
        *,
        state: TrackerState | None = None,
        recomputes: int = 0,
    ) -> list[Tracked]:
        """Every layer's answer, for training; the last is that of ``forward``, and all have the same ``state``.

        Args:
            embeds: as in ``forward``.
            embeds_unnormed: as in ``forward``.
            state: as in ``forward``.
            recomputes: of how many frames, the first ones, little is kept for the backward pass, which then computes
                them again.
        """
        check_clip(embeds, embeds_unnormed, state)
        order = match_frames(embeds, previous=state.embeds if state else None, solve=assign_inverse)
        previous = state.outputs if state else None
        outputs, references = list[list[Tensor]](), list[Tensor]()
        for t, frame in enumerate(embeds.unbind(1)):
            # a loop: each frame needs the one before
            run = recomputed(self._layers, t < recomputes)
            if previous is None:
                references.append(frame)
                outputs.append(run(frame, None, frame))
            else:
                references.append(previous)
                outputs.append(run(take_order(frame, order[:, t]), previous, frame))
            previous = outputs[-1][-1]
        assert previous is not None, "a clip has a frame"
        end = TrackerState(previous, take_order(embeds[:, -1], order[:, -1]))
        looked_up_by = torch.stack(references, dim=1)
        return [self._answer(list(frames), looked_up_by, order, end) for frames in zip(*outputs, strict=True)]

    def mask_kernels(self, embeds: Tensor) -> MaskKernels:
        """Kernels over the segmenter's mask features, for ``embeds`` ``(..., Q, C)`` of a ``Tracked``."""
        return MaskKernels(self.mask_embed(embeds), None)

    def refiner_memory(self, embeds: Tensor, embeds_unnormed: Tensor) -> Tensor:
        """What the refiner looks up, ``(B, T, Q, C)``: every frame tracked as if it began a video.

        Args:
            embeds: ``(B, T, Q, C)``, the segmenter's normed embeddings.
            embeds_unnormed: of the same shape; this version does not read it.
        """
        # frame by frame, so that the bits do not depend on the length of a clip
        return torch.stack([self.decoder_norm(self._first(frame)[-1]) for frame in embeds.unbind(1)], dim=1)

    def _first(self, frame: Tensor) -> list[Tensor]:
        return self._layers(frame, None, frame)

    def _layers(self, start: Tensor, reference: Tensor | None, memory: Tensor) -> list[Tensor]:
        """Output of every layer for one frame; without a reference a layer asks with its own input."""
        x, outputs = start, list[Tensor]()
        for cross, own, feed in zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        ):
            x = feed(own(cross(x, x if reference is None else reference, memory, memory)))
            outputs.append(x)
        return outputs

    def _answer(self, frames: list[Tensor], references: Tensor, order: Tensor, state: TrackerState) -> Tracked:
        normed = [self.decoder_norm(frame) for frame in frames]
        logits = [self.class_embed(frame) for frame in normed]
        return Tracked(torch.stack(logits, dim=1), torch.stack(normed, dim=1), references, order, state)
