"""The VSPW scores: mean IoU, video consistency VC_n, temporal consistency TC."""

from mvcseg.metrics.miou import MeanIoU
from mvcseg.metrics.temporal_consistency import TemporalConsistency
from mvcseg.metrics.video_consistency import VideoConsistency, clip_consistency

__all__ = ["MeanIoU", "TemporalConsistency", "VideoConsistency", "clip_consistency"]
