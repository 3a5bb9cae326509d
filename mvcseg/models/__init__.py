"""Models that meet the segmenter protocol."""
