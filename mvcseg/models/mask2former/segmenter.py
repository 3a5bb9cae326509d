"""Mask2Former put together: backbone, pixel decoder, query decoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
        width: channels of queries and pixel features, a multiple of 32.
        encoder_layers: of the pixel decoder.
        encoder_hidden: channels inside their feed-forward layers.
        decoder_layers: of the query decoder.
        decoder_hidden: channels inside their feed-forward layers.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        num_classes: int,
        num_queries: int,
        has_reid: bool,
        width: int = 256,
        encoder_layers: int = 6,
        encoder_hidden: int = 1024,
        decoder_layers: int = 9,
        decoder_hidden: int = 2048,
    ) -> None:
        super().__init__()
        self.pixel_decoder = PixelDecoder(in_channels, width=width, hidden=encoder_hidden, layers=encoder_layers)
        self.predictor = QueryDecoder(
            num_classes,
            num_queries=num_queries,
            has_reid=has_reid,
            width=width,
            hidden=decoder_hidden,
            layers=decoder_layers,
        )

    def forward(self, features: Iterable[Tensor]) -> FrameQueries:
        """Queries of N frames from backbone maps of strides 4, 8, 16, 32; of an iterator, as in ``PixelDecoder``."""
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
        return self.sem_seg_head(iter(self.backbone(images)))  # type: ignore[no-any-return]
