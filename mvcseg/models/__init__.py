"""Models that meet the segmenter protocol."""

from mvcseg.models import compact, dvis

__all__ = ["compact", "dvis"]
