"""The mean of several segmenters' class probabilities, as a segmenter again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.segmenter import Segmenter
from mvcseg.shapes import check_num_classes


class Average(nn.Module):
    """Log of the weighted mean of class probabilities: a Segmenter made of Segmenters.

    Log-probabilities are valid logits, so averages nest and go wherever a segmenter goes. Nothing is moved
    between devices: all members answer on one. There is no ``stream``: members that need the whole video
    answer clip by clip here.

    Args:
        segmenters: at least one, all with the same number of classes; those that are modules become
            submodules (parameters, ``train()``, ``to()``).
        weights: one number of at least 0 for each, normalised to sum 1; None for equal weights.

    Raises:
        ConfigError: there is no segmenter, the numbers of classes differ, or the weights are not one
            finite number of at least 0 for each, with a sum above 0.

    Example:
        >>> sure = lambda frames: torch.tensor([0.9, 0.1]).log().view(1, 1, 2, 1, 1)
        >>> unsure = lambda frames: torch.tensor([0.5, 0.5]).log().view(1, 1, 2, 1, 1)
        >>> sure.num_classes = unsure.num_classes = 2
        >>> Average([sure, unsure])(torch.zeros(1, 1, 3, 1, 1)).exp().flatten()
        tensor([0.7000, 0.3000])
    """

    def __init__(self, segmenters: Sequence[Segmenter], *, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if len(segmenters) == 0:
            raise ConfigError("segmenters: expected at least one, got none")
        classes = [segmenter.num_classes for segmenter in segmenters]
        if len(set(classes)) > 1:
            raise ConfigError(f"segmenters: expected one number of classes, got num_classes {classes}")
        if weights is None:
            weights = [1.0] * len(segmenters)
        total = math.fsum(weights)
        if len(weights) != len(segmenters) or min(weights) < 0 or not 0 < total < math.inf:
            raise ConfigError(
                f"weights: expected {len(segmenters)} finite numbers of at least 0 with a sum above 0, "
                f"got {list(weights)}"
            )
        self.num_classes = check_num_classes(classes[0])
        self.weights = tuple(weight / total for weight in weights)
        self.segmenters = nn.ModuleList(
            segmenter if isinstance(segmenter, nn.Module) else _Member(segmenter) for segmenter in segmenters
        )

    def forward(self, frames: Tensor, /) -> Tensor:
        """Log-probabilities ``(B, T, K, H, W)`` of frames ``(B, T, 3, H, W)``, float32 at least.

        Raises:
            ShapeError: two members' logits differ in shape.
        """
        mean: Tensor | None = None
        for segmenter, weight in zip(self.segmenters, self.weights, strict=True):
            if weight == 0:
                continue
            logits = segmenter(frames)
            if mean is not None and logits.shape != mean.shape:
                raise ShapeError(
                    f"segmenters: expected logits of one shape, got {tuple(mean.shape)} and {tuple(logits.shape)}"
                )
            dtype = torch.promote_types(logits.dtype, torch.float32)
            share = logits.log_softmax(dim=2, dtype=dtype) + math.log(weight)
            mean = share if mean is None else torch.logaddexp(mean, share)
        assert mean is not None
        return mean


class _Member(nn.Module):
    """A segmenter that is no module, in a list of modules."""

    def __init__(self, segmenter: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, frames: Tensor, /) -> Tensor:
        return self.segmenter(frames)
