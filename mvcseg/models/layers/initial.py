"""How the published training draws weights where it departs from PyTorch's own start.

Attention and feed-forward weights are Xavier uniform (Glorot and Bengio, 2010), set where those layers are made. What
reads another part's output (pixel decoder, re-identification head, the tracker's references) starts by keeping the
variance of its input, as does Caffe2's "Xavier" filler. Heads for classes and masks keep PyTorch's start, embeddings
its standard normal one.

Source: Mask2Former, arXiv 2112.01527, and DVIS++, arXiv 2312.13305, as their public code does.
"""

from __future__ import annotations

from torch import nn


def keep_variance(*layers: nn.Module) -> None:
    """Draw weights uniformly with variance ``1 / fan-in``, within ``sqrt(3 / fan-in)`` of zero; biases are zero.

    Args:
        layers: linear or convolutional; changed in place.

    Example:
        >>> layer = nn.Linear(300, 8)
        >>> keep_variance(layer)
        >>> bool(layer.weight.abs().max() <= 0.1), bool(layer.bias.any())
        (True, False)
    """
    for layer in layers:
        assert isinstance(layer, (nn.Linear, nn.Conv2d)), "other layers count their inputs differently"
        nn.init.kaiming_uniform_(layer.weight, a=1)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
