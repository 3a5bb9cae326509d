"""Video semantic segmentation that is right and steady over time.

The parts of the report "Semantic Segmentation on VSPW Dataset through Masked Video Consistency"
(arXiv 2406.04979), each usable alone: masked video consistency, test-time voting, selection between models
by flow and SSIM, class correction by vision-language models, and the official VSPW scores.
"""

from mvcseg import data, ensemble, errors, flow, losses, masking, metrics, models, ops, pipeline, report, tta, vlm
from mvcseg.inference import iter_labels, predict_labels
from mvcseg.masking import PatchMask, apply_mask, patch_mask
from mvcseg.mvc import MVCWrapper
from mvcseg.segmenter import IGNORE_INDEX, IMAGENET_MEAN, IMAGENET_STD, PerFrame, Segmenter, Video, VideoSegmenter

__version__ = "0.1.0"

__all__ = [
    "IGNORE_INDEX",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MVCWrapper",
    "PatchMask",
    "PerFrame",
    "Segmenter",
    "Video",
    "VideoSegmenter",
    "apply_mask",
    "data",
    "ensemble",
    "errors",
    "flow",
    "iter_labels",
    "losses",
    "masking",
    "metrics",
    "models",
    "ops",
    "patch_mask",
    "pipeline",
    "predict_labels",
    "report",
    "tta",
    "vlm",
]
