"""Checkpoints of DVIS++ models with made-up weights, small enough to run in a test."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from mvcseg.models.dvis import DVISConfig, build_dvis, official_state_dict
from mvcseg.models.dvis.config import SwinSizes, to_json

CLASSES = 5
SEGMENTER = DVISConfig(
    SwinSizes(16, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=4),
    num_classes=CLASSES,
    num_queries=7,
    class_order=None,
    tracker_layers=1,
    refiner_layers=1,
    hidden=32,
    short_side=64,
    long_side=100,
)
ONLINE = dataclasses.replace(SEGMENTER, has_reid=True, has_tracker=True)
OFFLINE = dataclasses.replace(ONLINE, has_refiner=True)


@dataclass(frozen=True)
class DVISFiles:
    """Checkpoints and the JSON files of their configurations, in one folder."""

    folder: Path

    def checkpoint(self, name: str) -> str:
        """Path of ``online``, ``offline`` or ``vspw_minvis_r50``."""
        return str(self.folder / f"{name}.pth")

    def config(self, name: str) -> str:
        """Path of the JSON file of ``online`` or ``offline``."""
        return str(self.folder / f"{name}.json")

    def remove(self) -> None:
        """Give the disk space back."""
        for path in self.folder.glob("*.pth"):
            path.unlink()


def write_dvis_files(folder: Path) -> DVISFiles:
    """An online and an offline model of one small configuration each, and one that the smallest preset fits."""
    configs = {"online": ONLINE, "offline": OFFLINE, "vspw_minvis_r50": "vspw_minvis_r50"}
    for name, config in configs.items():
        torch.manual_seed(0)
        state = official_state_dict(build_dvis(config))
        for key, tensor in state.items():
            # queries that stay apart, and masks and classes sharper than fresh weights give, for varied label maps
            if key.endswith(("class_embed.weight", "mask_embed.layers.2.weight")):
                state[key] = tensor * 30
            elif key.endswith(("out_proj.weight", "linear2.weight")) and "pixel_decoder" not in key:
                state[key] = tensor / 10
        half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
        torch.save({"model": half}, folder / f"{name}.pth")
        if isinstance(config, DVISConfig):
            (folder / f"{name}.json").write_text(to_json(config))
    return DVISFiles(folder)
