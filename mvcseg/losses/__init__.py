"""Losses, and the objectives that masked video consistency takes twice."""

from mvcseg.losses.class_memory import ClassMemory
from mvcseg.losses.contrastive import Contrast, RefinerContrast, TrackerContrast
from mvcseg.losses.cross_entropy import pixel_cross_entropy
from mvcseg.losses.mask_set import MaskSetObjective
from mvcseg.losses.objective import Objective, PixelObjective
from mvcseg.losses.queries import DenseMasks, FactoredMasks, LayerPrediction, QueryClip, QueryMasks
from mvcseg.losses.reid import ReidContrast
from mvcseg.losses.targets import Targets, targets_of_instances, targets_of_labels, targets_of_masks

__all__ = [
    "ClassMemory",
    "Contrast",
    "DenseMasks",
    "FactoredMasks",
    "LayerPrediction",
    "MaskSetObjective",
    "Objective",
    "PixelObjective",
    "QueryClip",
    "QueryMasks",
    "RefinerContrast",
    "ReidContrast",
    "Targets",
    "TrackerContrast",
    "pixel_cross_entropy",
    "targets_of_instances",
    "targets_of_labels",
    "targets_of_masks",
]
