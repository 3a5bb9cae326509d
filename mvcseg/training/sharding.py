"""Models whose weights are spread over the processes (FSDP), and their whole weights where these are needed.

``accelerate launch`` with a configuration of FSDP, version 2, spreads parameters, gradients and optimizer state. What
reads the model outside of its training forward (evaluation, pictures, the finished file) works on a copy of it, which
gets the whole weights each time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mvcseg.errors import ConfigError


def is_sharded(accelerator: Any) -> bool:
    """Whether the processes share the weights.

    Raises:
        ConfigError: they would in the way of FSDP's first version.
    """
    from accelerate.utils import DistributedType

    if accelerator.distributed_type != DistributedType.FSDP:
        return False
    if not accelerator.is_fsdp2:
        raise ConfigError("fsdp_version: expected 2 in the configuration of accelerate, got 1")
    return True


def make_contiguous(module: nn.Module) -> None:
    """Bring weights into the plain layout, the only one that can be spread."""
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()


@torch.no_grad()
def load_whole(module: nn.Module, sharded: nn.Module) -> None:
    """Copy spread weights into a module that is whole on every process; all processes must call it."""
    from torch.distributed.tensor import DTensor

    def whole(tensor: Tensor) -> Tensor:
        return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor.cpu()

    module.load_state_dict({name: whole(tensor) for name, tensor in sharded.state_dict().items()})
