"""Mask2Former (arXiv 2112.01527): pixel decoder, masked-attention query decoder, and both on a backbone."""

from mvcseg.models.mask2former.pixel_decoder import PixelDecoder, PixelFeatures
from mvcseg.models.mask2former.query_decoder import FrameQueries, QueryDecoder
from mvcseg.models.mask2former.segmenter import Mask2Former, Mask2FormerHead

__all__ = ["FrameQueries", "Mask2Former", "Mask2FormerHead", "PixelDecoder", "PixelFeatures", "QueryDecoder"]
