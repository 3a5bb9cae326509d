"""Optimizer groups of the published training.

Weights of norms and of embedding tables (queries, levels, relative positions) do not decay; everything else does,
biases included. The backbone learns at a rate of its own.

Source: the public training code of DVIS++ (https://github.com/zhang-tao-whu/DVIS_Plus), after Mask2Former's.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

NO_DECAY = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.Embedding)
"""Modules whose parameters do not decay."""
TABLE = "relative_position_bias_table"
"""Parameter of Swin that does not decay, though no module of those holds it."""


def published_groups(
    model: nn.Module, *, learning_rate: float, weight_decay: float, backbone_rate: float = 0.1
) -> list[dict[str, Any]]:
    """Groups of the parameters that learn, for AdamW.

    Args:
        model: of ``build_dvis``, or a stage; what is below a module called ``backbone`` learns at the backbone's rate.
        learning_rate: of all but the backbone.
        weight_decay: of what decays.
        backbone_rate: factor on the learning rate for the backbone, 0.1 in the published training.

    Returns:
        At most four groups with "params", "lr" and "weight_decay", none empty, each parameter in one of them.

    Example:
        >>> net = nn.ModuleDict({"backbone": nn.Conv2d(3, 4, 1), "norm": nn.LayerNorm(4)})
        >>> groups = published_groups(net, learning_rate=1e-4, weight_decay=0.05)
        >>> [(len(group["params"]), group["lr"], group["weight_decay"]) for group in groups]
        [(2, 1e-05, 0.05), (2, 0.0001, 0.0)]
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            decays = not isinstance(module, NO_DECAY) and name != TABLE
            groups.setdefault(("backbone" in path.split("."), decays), []).append(parameter)
    return [
        {
            "params": groups[in_backbone, decays],
            "lr": learning_rate * (backbone_rate if in_backbone else 1.0),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for in_backbone in (True, False)
        for decays in (True, False)
        if (in_backbone, decays) in groups
    ]
