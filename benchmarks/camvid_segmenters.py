"""ENet and ESPNet for CamVid as segmenters, for the study and for ``mvcseg predict --segmenter FILE.py:FUNCTION``.

The weights are looked for under ``$MVCSEG_SHARED_DATA/weights``, else in ``shared/data/weights`` beside the
repository.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from mvcseg import PerFrame

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:  # the command line loads this file by its path, from any folder
    sys.path.insert(0, str(HERE))

import camvid_nets  # noqa: E402

CLASS_NAMES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign_symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
"""CamVid's classes in the order of the nets' logits and of the data set's train ids."""
NUM_CLASSES = len(CLASS_NAMES)
# statistics of the train frames that ESPNet was trained with, BGR, 0..255 (the checkpoint's description)
ESPNET_MEAN_BGR = (110.33102643, 108.40886315, 105.03319369)
ESPNET_STD_BGR = (72.12571015, 72.69074534, 69.90434816)


def data_root() -> Path:
    """Folder that holds ``camvid/`` and ``weights/``."""
    return Path(os.environ.get("MVCSEG_SHARED_DATA", HERE.parent.parent / "shared" / "data"))


def enet(weights: Path | None = None) -> PerFrame:
    """ENet: frames in ``[0, 1]`` as they are; black where a side is padded to a multiple of 8."""
    torch.set_flush_denormal(True)  # subnormal activations cost a CPU many times the arithmetic
    net = camvid_nets.load_enet(_file("enet_camvid", weights))
    return _named(PerFrame(net, num_classes=NUM_CLASSES, logits_of=_labelled, multiple_of=8))


def espnet(weights: Path | None = None) -> PerFrame:
    """ESPNet: frames normalised and turned to BGR; the train frames' mean where a side is padded."""
    torch.set_flush_denormal(True)
    net = nn.Sequential(_ToBGR(), camvid_nets.load_espnet(_file("espnet_camvid", weights)))
    # ((255 x - mean) / std) / 255 = (x - mean / 255) / std
    mean = [value / 255 for value in reversed(ESPNET_MEAN_BGR)]
    std = list(reversed(ESPNET_STD_BGR))
    return _named(PerFrame(net, num_classes=NUM_CLASSES, logits_of=_labelled, mean=mean, std=std, multiple_of=8))


def _file(name: str, folder: Path | None) -> Path:
    return (folder or data_root() / "weights") / name / "model.safetensors"


def _named(segmenter: PerFrame) -> PerFrame:
    segmenter.class_names = CLASS_NAMES  # the command line writes them beside its label maps
    return segmenter


def _labelled(logits: Tensor) -> Tensor:
    """The classes without the last logit, "unlabelled", which no pixel may win."""
    return logits[:, :NUM_CLASSES]


class _ToBGR(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flip(1)
