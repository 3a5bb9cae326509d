"""The reference DVIS++ from a copy of its sources, for measuring only: its offline ResNet-50 model for VSPW on the CPU.

Nothing is compiled. What its import asks for but this model on a CPU never runs stands empty: detectron2's compiled
part, the CUDA operation of deformable attention (without it the reference takes its own PyTorch formula, as on every
CPU) and panopticapi, which only its panoptic data reads.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

CONFIG = "configs/dvis_Plus/VSPW/DVIS_Plus_Offline_R50.yaml"
PACKAGES = ("fvcore", "iopath", "omegaconf", "hydra", "yacs", "pycocotools", "cloudpickle", "tabulate", "termcolor")
"""What the sources import beside ours."""
_EMPTY = {
    "detectron2._C": (),
    "MultiScaleDeformableAttention": (),
    "panopticapi": (),
    "panopticapi.utils": ("rgb2id", "IdGenerator"),
}


class MissingSources(Exception):
    """Something that measuring the reference needs is not there; the message is one line."""


def check_sources(dvis_plus: Path, detectron2: Path) -> tuple[Path, Path]:
    """The folders to import from: that of ``dvis_Plus`` and that of the package ``detectron2``.

    Raises:
        MissingSources: a folder holds no such sources, or a package they import is not installed.
    """
    found = next((folder for folder in (dvis_plus / "DVIS_Plus", dvis_plus) if (folder / CONFIG).is_file()), None)
    if found is None:
        raise MissingSources(f"--dvis-plus {dvis_plus}: holds no {CONFIG}; give a clone of zhang-tao-whu/DVIS_Plus")
    if not (detectron2 / "detectron2" / "modeling" / "__init__.py").is_file():
        raise MissingSources(f"--detectron2 {detectron2}: holds no detectron2/modeling; give a clone of detectron2")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingSources(f"the reference imports {', '.join(missing)}, which is not installed; see --help")
    return found, detectron2


def import_upstream(dvis_plus: Path, detectron2: Path) -> Any:
    """Its configuration of the offline ResNet-50 model for VSPW, on the CPU, after all imports.

    Raises:
        MissingSources: as ``check_sources``.
    """
    folder, other = check_sources(dvis_plus, detectron2)
    sys.path[:0] = [str(folder), str(other)]
    for name, attributes in _EMPTY.items():
        empty = sys.modules.setdefault(name, ModuleType(name))
        for attribute in attributes:
            setattr(empty, attribute, None)
    with quiet():
        config = importlib.import_module("detectron2.config").get_cfg()
        importlib.import_module("detectron2.projects.deeplab").add_deeplab_config(config)
        importlib.import_module("mask2former").add_maskformer2_config(config)
        importlib.import_module("mask2former_video").add_maskformer2_video_config(config)
        dvis = importlib.import_module("dvis_Plus")
        for add in (dvis.add_minvis_config, dvis.add_dvis_config, dvis.add_ctvis_config):
            add(config)
        config.merge_from_file(str(folder / CONFIG))
    config.MODEL.DEVICE = "cpu"
    return config


def build_upstream(config: Any) -> nn.Module:
    """The model in eval mode, weights drawn afresh."""
    with quiet():
        model: nn.Module = importlib.import_module("detectron2.modeling").build_model(config)
    return model.eval()


@torch.no_grad()
def upstream_labels(model: nn.Module, video: Tensor) -> Tensor:
    """Labels ``(T, H, W)`` int64, in its order of classes, of uint8 ``(T, 3, H, W)`` at the frames' own size."""
    labels: Tensor = model([{"image": list(video), "height": video.shape[-2], "width": video.shape[-1]}])["pred_masks"]
    return labels


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and messages of old interfaces; errors come through."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def clocked(owner: Any, methods: dict[str, str]) -> Iterator[dict[str, float]]:
    """Seconds of each stage while the block runs, by its name.

    Args:
        owner: the model.
        methods: dotted path of a method, by name of the stage.
    """
    seconds: dict[str, float] = defaultdict(float)
    changed: list[tuple[Any, str]] = []
    for stage, path in methods.items():
        *parents, method = path.split(".")
        holder = owner
        for parent in parents:
            holder = getattr(holder, parent)
        inner = getattr(holder, method)

        def call(*args: Any, inner: Callable[..., Any] = inner, stage: str = stage, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = inner(*args, **kwargs)
            seconds[stage] += time.perf_counter() - start
            return result

        changed.append((holder, method, holder.__dict__.get(method)))
        holder.__dict__[method] = call
    try:
        yield seconds
    finally:
        for holder, method, before in changed:
            if before is None:
                del holder.__dict__[method]
            else:
                holder.__dict__[method] = before
