"""DVIS++: segmenter, referring tracker, temporal refiner, and the class map of a whole video."""

from mvcseg.models.dvis.build import build_dvis
from mvcseg.models.dvis.checkpoint import load_official, official_state_dict
from mvcseg.models.dvis.config import BACKBONES, PRESETS, DVISConfig
from mvcseg.models.dvis.explain import Explanation, explain, preset_for
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.trained import TrainedDVIS, load_trained, save_trained

__all__ = [
    "BACKBONES",
    "DVIS",
    "PRESETS",
    "DVISConfig",
    "Explanation",
    "TrainedDVIS",
    "build_dvis",
    "explain",
    "load_official",
    "load_trained",
    "official_state_dict",
    "preset_for",
    "save_trained",
]
