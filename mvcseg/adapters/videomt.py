"""VidEoMT, the video model of EoMT: each frame's queries begin where those of the frame before ended.

Source: tue-mps/videomt: queries that left the last block pass through a linear layer and are added to the learned
ones (the gradient flows back through all frames); no attention masks; in training also the prediction ahead of each
of the last blocks, read off its tokens without their norm; a target's query is the best at its first appearance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from mvcseg.adapters.eomt import blocks_of, embed, grid_of, heads
from mvcseg.adapters.query_segmenter import FrameLayer, Generators, QuerySegmenter, log_of, per_frame
from mvcseg.errors import DTypeError, ShapeError
from mvcseg.models.dvis.semantic import label_clip, semantic_labels, semantic_scores
from mvcseg.segmenter import Video, check_video, read_clip, size_of
from mvcseg.shapes import check_positive, check_shapes


@dataclass
class VideomtState:
    """What a VidEoMT carries from frame to frame; made empty, then brought up to date with every frame.

    Its size does not grow. Hand the same object over to go on where an earlier call stopped.

    Attributes:
        queries: as they left the last block on the last frame, ``(B, Q, C)``; None before the first.
        frames: how many were seen.
    """

    queries: Tensor | None = None
    frames: int = 0


def videomt_layers(net: Any, images: Tensor, *, every_layer: bool, generators: Generators | None) -> list[FrameLayer]:
    """Layers of a VidEoMT on clips ``(B, T, 3, H, W)``, each the beginning of a video."""
    encoded = rearrange(_encode(net, images.flatten(0, 1)), "(b t) l c -> t b l c", b=len(images))
    state = VideomtState()
    frames = [next_layers(net, tokens, state, grid=grid_of(net, images), every_layer=every_layer) for tokens in encoded]
    return [
        FrameLayer(
            torch.stack([layer.class_logits for layer in same], dim=1).flatten(0, 1),
            torch.stack([layer.masks for layer in same], dim=1).flatten(0, 1),
        )
        for same in zip(*frames, strict=True)
    ]


def next_layers(
    net: Any, encoded: Tensor, state: VideomtState, *, grid: tuple[int, int], every_layer: bool
) -> list[FrameLayer]:
    """Layers of the next frame of B videos; ``state`` is brought up to date.

    Args:
        net: the net.
        encoded: tokens ``(B, L, C)`` ahead of the blocks that see queries.
        state: of the frames before.
        grid: rows and columns of patches.
        every_layer: also what is read ahead of each block.
    """
    queries = net.query.weight.expand(len(encoded), -1, -1)
    if state.queries is not None:
        queries = net.query_updater(state.queries) + queries
    tokens, layers = torch.cat([queries, encoded], dim=1), []
    for block in blocks_of(net)[1]:
        if every_layer:
            layers.append(heads(net, tokens, grid))
        tokens = block(tokens)
    state.queries, state.frames = tokens[:, : queries.shape[1]], state.frames + 1
    return [*layers, heads(net, net.layernorm(tokens), grid)]


class VideomtSegmenter(QuerySegmenter):
    """A VidEoMT as a segmenter: called on a clip it begins a video; a stored video or a camera it streams.

    Classes are each frame's own. Frames are streamed one at a time: results are the same, bit for bit, for every
    clip length.
    """

    @torch.no_grad()
    def stream(self, video: Video, /, *, clip_length: int) -> Iterator[Tensor]:
        """Consecutive log scores ``(1, t, K, H, W)`` of a stored video, ``t <= clip_length``.

        Raises:
            ShapeError: the video is empty or not ``(T, 3, H, W)``.
            DTypeError: its frames are not uint8.
            ConfigError: ``clip_length`` is below 1.
        """
        size, state = _check_stream(video, clip_length), VideomtState()
        for clip in _clips_of(video, clip_length):
            scores = [
                semantic_scores(*self._next(frame, state), size=size, output_size=size)
                for frame in torch.split(clip, 1)
            ]
            yield log_of(torch.stack(scores).unsqueeze(0))

    @torch.no_grad()
    def stream_labels(
        self, video: Video, /, *, clip_length: int, output_size: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """Consecutive class ids ``(t, height, width)`` uint8 of a stored video, without full-size scores.

        Args:
            video: uint8 ``(T, 3, H, W)``, or anything with ``len`` and slices that give such tensors.
            clip_length: most frames at once; the labels do not depend on it.
            output_size: ``(height, width)``; None keeps the frames'. Mask probabilities are resized to it.

        Raises:
            ShapeError, DTypeError, ConfigError: as ``stream``.
            DataError: scores are NaN.
        """
        _check_stream(video, clip_length)
        yield from self.stream_causal(_clips_of(video, clip_length), output_size=output_size)

    @torch.no_grad()
    def stream_causal(
        self,
        frames: Iterable[Tensor],
        *,
        state: VideomtState | None = None,
        output_size: tuple[int, int] | None = None,
    ) -> Iterator[Tensor]:
        """Class ids of frames as they come; the source may have no end.

        Args:
            frames: uint8 frames ``(3, H, W)``, or clips ``(t, 3, H, W)`` of them.
            state: of the frames before, brought up to date with each frame; None begins a video.
            output_size: ``(height, width)`` of the labels; None keeps the frames'.

        Yields:
            ``(height, width)`` uint8 for every frame given, ``(t, height, width)`` for every clip.

        Raises:
            ShapeError: an item is neither a frame nor a clip, or empty.
            DTypeError: it is no uint8 tensor, or ``state`` is something else.
            DataError: scores are NaN.

        Example:
            >>> state = VideomtState()
            >>> for labels in segmenter.stream_causal(camera, state=state):  # doctest: +SKIP
            ...     show(labels)
        """
        state = VideomtState() if state is None else state
        if not isinstance(state, VideomtState):
            raise DTypeError(f"state: expected a VideomtState or None, got {type(state).__name__}")
        for item in frames:
            clip, first = _clip_of(item), state.frames
            labels = label_clip(
                [self._labels(frame, state, output_size) for frame in torch.split(clip, 1)], first=first
            )
            yield labels[0] if item.ndim == 3 else labels

    def _labels(self, frame: Tensor, state: VideomtState, output_size: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        size = (frame.shape[-2], frame.shape[-1])
        return semantic_labels(*self._next(frame, state), size=size, output_size=output_size or size)

    def _next(self, frame: Tensor, state: VideomtState) -> tuple[Tensor, Tensor]:
        """Mask logits and class table of the next frame, uint8 ``(1, 3, H, W)``; ``state`` is brought up to date."""
        scaled = frame.to(next(self.net.parameters()).device, non_blocking=True).float() / 255
        images = self.normalise(scaled.unsqueeze(0))
        grid, encoded = grid_of(self.net, images), _encode(self.net, images[0])
        (layer,) = next_layers(self.net, encoded, state, grid=grid, every_layer=False)
        return next(per_frame(self.in_dataset_terms(layer, images)))


def _encode(net: Any, images: Tensor) -> Tensor:
    """Tokens ``(N, L, C)`` of images ahead of the blocks that see queries."""
    tokens = embed(net, images)
    for block in blocks_of(net)[0]:
        tokens = block(tokens)
    return tokens


def _check_stream(video: Video, clip_length: int) -> tuple[int, int]:
    check_positive(clip_length=clip_length)
    check_video(video)
    return size_of(video)


def _clips_of(video: Video, clip_length: int) -> Iterator[Tensor]:
    for start in range(0, len(video), clip_length):
        yield read_clip(video, start, min(start + clip_length, len(video)))


def _clip_of(item: Tensor) -> Tensor:
    """A frame or clip as a clip."""
    if not isinstance(item, Tensor) or item.dtype != torch.uint8:
        got = item.dtype if isinstance(item, Tensor) else type(item).__name__
        raise DTypeError(f"frames: expected uint8 tensors, got {got}")
    clip = item.unsqueeze(0) if item.ndim == 3 else item
    check_shapes(frames=(clip, "t 3 h w"))
    if 0 in clip.shape:
        raise ShapeError(f"frames: expected no empty axis, got {tuple(item.shape)}")
    return clip
