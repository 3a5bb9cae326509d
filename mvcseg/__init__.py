"""Video semantic segmentation that is right and steady over time.

The parts of the report "Semantic Segmentation on VSPW Dataset through Masked Video Consistency"
(arXiv 2406.04979), each usable alone: masked video consistency, test-time voting, selection between models
by flow and SSIM, class correction by vision-language models, and the official VSPW scores.
"""

from mvcseg.segmenter import IGNORE_INDEX, IMAGENET_MEAN, IMAGENET_STD, PerFrame, Segmenter, Video, VideoSegmenter

__version__ = "0.1.0"

__all__ = [
    "IGNORE_INDEX",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PerFrame",
    "Segmenter",
    "Video",
    "VideoSegmenter",
]
