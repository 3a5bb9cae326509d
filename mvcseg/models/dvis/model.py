"""DVIS++ for semantic segmentation: segmenter, referring tracker, temporal refiner, class map.

Source: DVIS++, arXiv 2312.13305; with a tracker alone it is the online model, with neither part MinVIS
(arXiv 2208.02245) or CTVIS (arXiv 2307.12616) read frame by frame as Mask2Former does.

Frames go through backbone and segmenter one at a time: results are the same, bit for bit, for every clip length.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import TypeVar

import torch
from torch import Tensor, nn

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.models.dvis.causal import CausalState, next_masks
from mvcseg.models.dvis.frame_masks import FrameMasks, Tracker, frame_masks
from mvcseg.models.dvis.refiner import TemporalRefiner
from mvcseg.models.dvis.semantic import in_dataset_order, label_clip, semantic_labels, semantic_scores
from mvcseg.models.mask2former import FrameQueries, Mask2FormerHead
from mvcseg.ops.resize import pad_to_multiple
from mvcseg.segmenter import Video, check_video, read_clip, size_of
from mvcseg.shapes import check_float, check_num_classes, check_positive, check_shapes

PIXEL_MEAN = (123.675, 116.28, 103.53)
"""Mean colour (R, G, B) of frames in 0..255 that the checkpoints were trained with."""
PIXEL_STD = (58.395, 57.12, 57.375)
"""Standard deviation likewise."""
SIZE_MULTIPLE = 32
"""Padded sides are multiples of this."""

_Frame = TypeVar("_Frame")


class DVIS(nn.Module):
    """A video segmenter whose class scores are pooled over the whole video.

    Called on frames it gives log scores of their size: ``log sum_q p(k | q) mask_q``, whose soft-max is the
    normalised score. Parameters have the names of the published checkpoints.

    Args:
        backbone: gives maps of strides 4, 8, 16, 32.
        sem_seg_head: the Mask2Former head.
        tracker: of the online and offline model.
        refiner: of the offline model; needs a tracker.
        class_order: data-set class of each class as trained, a permutation of 0..K-1; None where they agree.
        spill_folder: folder of the temporary file that ``stream`` keeps a video's masks in; None takes the
            system's. It needs about 27 MB a frame of 480 x 853 for an offline model, 10 MB for an online one
            of 100 queries.

    Raises:
        ConfigError: a refiner without a tracker, an order that is no permutation, or more than 255 classes.
    """

    class_order: Tensor | None

    def __init__(
        self,
        backbone: nn.Module,
        sem_seg_head: Mask2FormerHead,
        *,
        tracker: Tracker | None = None,
        refiner: TemporalRefiner | None = None,
        class_order: Sequence[int] | None = None,
        spill_folder: str | PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        if refiner is not None and tracker is None:
            raise ConfigError("refiner: expected a tracker with it, since a refiner reads what the tracker gives")
        self.num_classes = check_num_classes(sem_seg_head.predictor.class_embed.out_features - 1)
        if class_order is not None and sorted(class_order) != list(range(self.num_classes)):
            raise ConfigError(
                f"class_order: expected a permutation of 0..{self.num_classes - 1}, got {len(class_order)} numbers"
            )
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.tracker = tracker
        self.refiner = refiner
        order = None if class_order is None else torch.tensor(class_order)
        self.register_buffer("class_order", order, persistent=False)
        self.spill_folder = spill_folder

    def forward(self, frames: Tensor, /) -> Tensor:
        """Log scores ``(B, T, K, H, W)`` of frames ``(B, T, 3, H, W)`` in ``[0, 1]``, K in data-set order.

        Each batch item is one whole video. Gradients flow; while they are recorded, everything stays in memory.

        Raises:
            ShapeError: frames are not five-dimensional or empty.
            DTypeError: they are not floating-point.
            DataError: the spill file cannot be written.
        """
        sizes = check_shapes(frames=(frames, "b t 3 h w"))
        return _log(self.scores(frames, output_size=(sizes["h"], sizes["w"])))

    def scores(self, frames: Tensor, *, output_size: tuple[int, int]) -> Tensor:
        """Plain scores ``sum_q p(k | q) mask_q``, at any size.

        Args:
            frames: ``(B, T, 3, H, W)`` in ``[0, 1]``; each batch item is one whole video.
            output_size: ``(height, width)``; mask probabilities are resized to it.

        Returns:
            ``(B, T, K, height, width)``, not negative.

        Raises:
            ShapeError: frames are not five-dimensional or empty.
            DTypeError: they are not floating-point.
            ConfigError: the output size is not two whole numbers above 0.
            DataError: the spill file cannot be written.
        """
        sizes = check_shapes(frames=(frames, "b t 3 h w"))
        check_float(frames=frames)
        if 0 in frames.shape:
            raise ShapeError(f"frames: expected (b t 3 h w) with no empty axis, got {tuple(frames.shape)}")
        size, output = (sizes["h"], sizes["w"]), _checked(output_size)
        frames = frames.to(self._dtype)
        return torch.stack([torch.stack(list(self._scores(torch.split(clip, 1), size, output))) for clip in frames])

    @torch.no_grad()
    def stream(self, video: Video, /, *, clip_length: int) -> Iterator[Tensor]:
        """Consecutive log scores ``(1, t, K, H, W)`` of a stored video, ``t <= clip_length``, in bounded memory.

        Raises:
            ShapeError: the video is empty or not ``(T, 3, H, W)``.
            DTypeError: its frames are not uint8.
            ConfigError: ``clip_length`` is below 1.
            DataError: the spill file cannot be written.
        """
        size = self._check_stream(video, clip_length)
        scores = self._scores(self._frames_of(video, clip_length), size, size)
        for clip in _clips(scores, clip_length):
            yield _log(torch.stack(clip).unsqueeze(0))

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
            ShapeError, DTypeError, ConfigError, DataError: as ``stream``; DataError also where scores are NaN.
        """
        size = self._check_stream(video, clip_length)
        output = size if output_size is None else _checked(output_size)
        masks = self._frame_masks(self._frames_of(video, clip_length))
        labels = (self._label_map(frame, size, output) for frame in masks)
        for index, clip in enumerate(_clips(labels, clip_length)):
            yield label_clip(clip, first=index * clip_length)

    @torch.no_grad()
    def stream_causal(
        self,
        frames: Iterable[Tensor],
        *,
        state: CausalState | None = None,
        output_size: tuple[int, int] | None = None,
    ) -> Iterator[Tensor]:
        """Class ids of frames as they come, each from it and those before; the source may have no end.

        Args:
            frames: uint8 frames ``(3, H, W)``, or clips ``(t, 3, H, W)`` of them.
            state: of the frames before, brought up to date with each frame; None begins a video.
            output_size: ``(height, width)`` of the labels; None keeps the frames'.

        Yields:
            ``(height, width)`` uint8 for every frame given, ``(t, height, width)`` for every clip.

        Raises:
            ConfigError: the model has a refiner, which needs the whole video.
            ShapeError: an item is neither a frame nor a clip, or empty.
            DTypeError: it is no uint8 tensor, or ``state`` is something else.
            DataError: scores are NaN.

        Example:
            >>> state = CausalState()
            >>> for labels in model.stream_causal(camera, state=state):  # doctest: +SKIP
            ...     show(labels)
        """
        if self.refiner is not None:
            raise ConfigError(
                "stream_causal: expected an online model, but a refiner needs the whole video; build or load "
                "one with an online preset, or set model.refiner = None"
            )
        state = CausalState() if state is None else state
        if not isinstance(state, CausalState):
            raise DTypeError(f"state: expected a CausalState or None, got {type(state).__name__}")
        output = None if output_size is None else _checked(output_size)
        for item in frames:
            clip = _clip_of(item)
            size, first = (clip.shape[-2], clip.shape[-1]), state.frames
            masks = (
                next_masks(self.segment(self._scaled(frame)), state, tracker=self.tracker)
                for frame in torch.split(clip, 1)
            )
            labels = label_clip([self._label_map(frame, size, output or size) for frame in masks], first=first)
            yield labels[0] if item.ndim == 3 else labels

    def segment(self, frames: Tensor) -> FrameQueries:
        """The segmenter's queries of N frames ``(N, 3, H, W)`` in ``[0, 1]``, normalised and padded here."""
        features = iter(self.backbone(self.normalise(frames)))  # an iterator: maps are let go of once they are used
        return self.sem_seg_head(features)  # type: ignore[no-any-return]

    @staticmethod
    def normalise(frames: Tensor) -> Tensor:
        """What the backbone sees of frames ``(N, 3, H, W)`` in ``[0, 1]``: ``(N, 3, Hp, Wp)``, channels-last.

        Padding to multiples of 32, right and bottom, is the mean colour.
        """
        # numbers, not buffers: a buffer made double keeps its float32 rounding
        channels = zip(frames.unbind(1), PIXEL_MEAN, PIXEL_STD, strict=True)
        images = torch.stack([(channel * 255 - mean) / std for channel, mean, std in channels], dim=1)
        return pad_to_multiple(images, multiple=SIZE_MULTIPLE).contiguous(memory_format=torch.channels_last)

    def _scores(
        self, frames: Iterable[Tensor], size: tuple[int, int], output_size: tuple[int, int]
    ) -> Iterator[Tensor]:
        """Scores ``(K, height, width)`` of each frame of one video, given one by one as ``(1, 3, H, W)``."""
        for masks in self._frame_masks(frames):
            yield semantic_scores(*self._for_semantics(masks), size=size, output_size=output_size)

    def _label_map(
        self, masks: FrameMasks, size: tuple[int, int], output_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        return semantic_labels(*self._for_semantics(masks), size=size, output_size=output_size)

    def _frame_masks(self, frames: Iterable[Tensor]) -> Iterator[FrameMasks]:
        queries = (self.segment(frame) for frame in frames)
        return frame_masks(queries, tracker=self.tracker, refiner=self.refiner, spill_folder=self.spill_folder)

    def _for_semantics(self, masks: FrameMasks) -> tuple[Tensor, Tensor]:
        """Mask logits and class table in data-set order."""
        return masks.logits, in_dataset_order(masks.table, self.class_order)

    @property
    def _dtype(self) -> torch.dtype:
        return self.sem_seg_head.predictor.query_feat.weight.dtype

    def _check_stream(self, video: Video, clip_length: int) -> tuple[int, int]:
        check_positive(clip_length=clip_length)
        check_video(video)
        return size_of(video)

    def _frames_of(self, video: Video, clip_length: int) -> Iterator[Tensor]:
        for start in range(0, len(video), clip_length):
            for frame in torch.split(read_clip(video, start, min(start + clip_length, len(video))), 1):
                yield self._scaled(frame)

    def _scaled(self, frames: Tensor) -> Tensor:
        weight = self.sem_seg_head.predictor.query_feat.weight
        return frames.to(weight.device, non_blocking=True).to(weight.dtype) / 255


def _checked(output_size: Sequence[int]) -> tuple[int, int]:
    try:
        height, width = (operator.index(side) for side in output_size)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"output_size: expected (height, width) in pixels, got {output_size!r}") from error
    check_positive(height=height, width=width)
    return height, width


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


def _log(scores: Tensor) -> Tensor:
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()


def _clips(frames: Iterator[_Frame], clip_length: int) -> Iterator[list[_Frame]]:
    clip: list[_Frame] = []
    for frame in frames:
        clip.append(frame)
        if len(clip) == clip_length:
            yield clip
            clip = []
    if clip:
        yield clip
