"""How much of its trained part a stage computes again, so that a masked pass fits where the clean one did.

While the masked graph is alive, so are the gradients that the clean pass left: their bytes are what is to be spared.
A layer whose inputs alone are kept spares what it would have kept itself, a number that follows from its sizes. Layers
are spared until they make up for the gradients, and no more, since each is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from mvcseg.models.dvis.frame_masks import Tracker
from mvcseg.models.dvis.refiner import TemporalRefiner
from mvcseg.models.mask2former import Mask2FormerHead

SPARED = 0.85
"""Share of the gradients' bytes that is spared; the rest is less than a fiftieth of what a step needs at its peak."""
ATTENTION = 6.5
"""Numbers a channel that an attention layer keeps of a query: its input, q, k, v, what was gathered, the sum before the
norm, and now and then the input with its position."""


def bytes_to_spare(parameters: Iterable[nn.Parameter]) -> float:
    """What gradients that are there already ask a pass to do without; 0 before any backward pass."""
    return SPARED * sum(p.grad.numel() * p.grad.element_size() for p in parameters if p.grad is not None)


def count_spared(kept: Sequence[float], wanted: float) -> int:
    """How many layers, from the first on, keep at least ``wanted`` bytes together; all where they do not.

    Example:
        >>> [count_spared([3.0, 3.0, 4.0], wanted) for wanted in (0.0, 2.0, 3.5, 99.0)]
        [0, 1, 2, 3]
    """
    count = 0
    while wanted > 0 and count < len(kept):
        wanted -= kept[count]
        count += 1
    return count


def spared_of_segmenter(head: Mask2FormerHead, maps: Sequence[Tensor], wanted: float) -> tuple[int, int]:
    """Feed-forward steps of the pixel decoder and layers of the query decoder to compute again.

    Args:
        head: what is trained.
        maps: of the backbone, strides 4 to 32, ``(N, ..., h, w)``.
        wanted: bytes.
    """
    sizes = [m.shape[-2] * m.shape[-1] for m in reversed(maps[1:])]
    frame = len(maps[0]) * maps[0].element_size()
    encoder, decoder = list(head.pixel_decoder.transformer.encoder["layers"].children()), head.predictor
    pixels = [frame * sum(sizes) * (_hidden(layer) + decoder.query_feat.embedding_dim) for layer in encoder]
    queries, width = decoder.query_feat.weight.shape
    layers = [
        frame * (queries * (2 * ATTENTION * width + _hidden(feed)) + 2 * sizes[i % len(sizes)] * width)
        for i, feed in enumerate(decoder.transformer_ffn_layers)
    ]
    first = count_spared(pixels, wanted)
    return first, count_spared(layers, wanted - sum(pixels[:first]))


def spared_of_tracker(tracker: Tracker, embeds: Tensor, wanted: float) -> int:
    """Frames to compute again; ``embeds`` ``(B, T, Q, C)``."""
    batch, count, queries, width = embeds.shape
    hidden = sum(2 * ATTENTION * width + _hidden(feed) for feed in tracker.transformer_ffn_layers)
    return count_spared([batch * queries * hidden * embeds.element_size()] * count, wanted)


def spared_of_refiner(refiner: TemporalRefiner, embeds: Tensor, wanted: float) -> int:
    """Layers to compute again; ``embeds`` ``(B, T, Q, C)``. Two convolutions keep what half an attention layer does."""
    width = embeds.shape[-1]
    number = embeds.numel() // width * embeds.element_size()
    kept = [number * (3.5 * ATTENTION * width + _hidden(feed)) for feed in refiner.transformer_ffn_layers]
    return count_spared(kept, wanted)


def _hidden(feed: Any) -> int:
    """Channels inside a feed-forward step."""
    return int(feed.linear1.out_features)
