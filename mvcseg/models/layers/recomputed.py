"""Less memory in training: a step keeps its inputs only and is computed again when its gradient is asked for.

Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv 1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar, cast

from torch.utils.checkpoint import checkpoint

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def recomputed(step: Callable[Arguments, Result], is_wanted: bool = True) -> Callable[Arguments, Result]:
    """A step with the same result and gradients that keeps nothing but its arguments for the backward pass.

    Args:
        step: draws nothing at random, since it runs twice.
        is_wanted: False gives the step as it is.

    Example:
        >>> import torch
        >>> x = torch.ones(2, requires_grad=True)
        >>> recomputed(lambda x: (x * 3).exp())(x).sum().backward()
        >>> x.grad
        tensor([60.2566, 60.2566])
    """
    if not is_wanted:
        return step
    again = partial(checkpoint, step, use_reentrant=False, preserve_rng_state=False)
    return cast("Callable[Arguments, Result]", again)
