"""Mask2Former put together: backbone, pixel decoder, query decoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mvcseg.models.mask2former.pixel_decoder import PixelDecoder
from mvcseg.models.mask2former.query_decoder import FrameQueries, QueryDecoder


class Mask2FormerHead(nn.Module):
    """Everything after the backbone.

    Args:
        in_channels: channels of the backbone's four maps, strides 4 to 32.
        num_classes: K, without the no-object class.
        num_queries: Q.
        has_reid: whether queries get a re-identification embedding.
    """

    def __init__(self, in_channels: Sequence[int], *, num_classes: int, num_queries: int, has_reid: bool) -> None:
        super().__init__()
        self.pixel_decoder = PixelDecoder(in_channels)
        self.predictor = QueryDecoder(num_classes, num_queries=num_queries, has_reid=has_reid)

    def forward(self, features: tuple[Tensor, Tensor, Tensor, Tensor]) -> FrameQueries:
        """Queries of N frames from backbone maps of strides 4, 8, 16, 32."""
        return self.predictor(self.pixel_decoder(features))  # type: ignore[no-any-return]


class Mask2Former(nn.Module):
    """The frame-wise segmenter.

    Args:
        backbone: gives four maps, strides 4, 8, 16, 32, of normalised images.
        sem_seg_head: its head.
    """

    def __init__(self, backbone: nn.Module, sem_seg_head: Mask2FormerHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head

    def forward(self, images: Tensor) -> FrameQueries:
        """Queries of N frames.

        Args:
            images: normalised, sides padded to multiples of 32, ``(N, 3, Hp, Wp)``.
        """
        return self.sem_seg_head(self.backbone(images))  # type: ignore[no-any-return]
