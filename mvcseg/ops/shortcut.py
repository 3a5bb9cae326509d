"""When an eager CPU shortcut may stand in for the formula as written."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def may_shortcut(*tensors: Tensor) -> bool:
    """Whether nothing but the numbers is wanted of an operation on these tensors, on the CPU.

    Not so where a gradient flows, a graph is compiled, exported or traced, autocast picks the types, or a tensor
    subclass watches the operations.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and all(tensor.device.type == "cpu" for tensor in tensors)
        and all(type(tensor) in (Tensor, nn.Parameter) for tensor in tensors)
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
        and not torch.is_autocast_enabled("cpu")
    )
