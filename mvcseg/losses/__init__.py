"""Losses, and the objectives that masked video consistency takes twice."""

from mvcseg.losses.cross_entropy import pixel_cross_entropy
from mvcseg.losses.objective import Objective, PixelObjective

__all__ = ["Objective", "PixelObjective", "pixel_cross_entropy"]
