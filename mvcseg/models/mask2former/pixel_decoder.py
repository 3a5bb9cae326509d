"""From backbone maps to mask features at a quarter of the image, and three scales for the query decoder.

Source: Mask2Former (arXiv 2112.01527) with the deformable-attention pixel decoder; parameter names of the published
checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.errors import ShapeError
from mvcseg.models.layers.initial import keep_variance
from mvcseg.models.mask2former.deformable_encoder import DeformableEncoder

GROUPS = 32


@dataclass(frozen=True)
class PixelFeatures:
    """What the pixel decoder gives.

    Attributes:
        mask_features: ``(N, C, h, w)``, stride 4; a mask is their inner product with a query.
        scales: maps of strides 32, 16 and 8, in this order, each ``(N, C, height, width)``.
    """

    mask_features: Tensor
    scales: tuple[Tensor, Tensor, Tensor]


class ConvNorm(nn.Conv2d):
    """A convolution without bias, then group norm under the name ``norm``."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.GroupNorm(GROUPS, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, out_channels, h, w)`` of ``(N, in_channels, h, w)``."""
        return self.norm(super().forward(x))  # type: ignore[no-any-return]


class PixelDecoder(nn.Module):
    """Deformable self-attention over strides 32, 16 and 8, then one step down to stride 4.

    Works in the type of its weights, autocast off.

    Args:
        in_channels: channels of the backbone's four maps, strides 4 to 32.
        width: C, channels of all outputs; a multiple of 32.
        heads: attention heads.
        points: samples of a head in a map.
        hidden: channels inside the feed-forward.
        layers: layers of deformable attention.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        width: int = 256,
        heads: int = 8,
        points: int = 4,
        hidden: int = 1024,
        layers: int = 6,
    ) -> None:
        super().__init__()
        finest, *coarser = in_channels
        projections = [nn.Conv2d(channels, width, 1) for channels in reversed(coarser)]  # from stride 32 to stride 8
        self.input_proj = nn.ModuleList(
            nn.Sequential(projection, nn.GroupNorm(GROUPS, width)) for projection in projections
        )
        self.transformer = DeformableEncoder(
            width, levels=len(coarser), heads=heads, points=points, hidden=hidden, layers=layers
        )
        self.adapter_1 = ConvNorm(finest, width, kernel_size=1)
        self.layer_1 = ConvNorm(width, width, kernel_size=3)
        self.mask_features = nn.Conv2d(width, width, 1)
        for projection in projections:
            nn.init.xavier_uniform_(projection.weight)
            assert projection.bias is not None
            nn.init.zeros_(projection.bias)
        keep_variance(self.adapter_1, self.layer_1, self.mask_features)

    def forward(self, features: Iterable[Tensor], *, recomputes: int = 0) -> PixelFeatures:
        """Mask features and scales.

        Args:
            features: backbone maps ``(N, channels, h, w)`` of strides 4, 8, 16, 32. Of an iterator that alone holds
                them, each is let go of as soon as it is used: 47 MiB of a frame of 480 x 853 behind a ResNet-50.
            recomputes: as in ``DeformableEncoder``.

        Raises:
            ShapeError: there are not four maps.
        """
        maps = list(features)
        if len(maps) != 4:
            raise ShapeError(f"features: expected four maps, strides 4 to 32, got {len(maps)}")
        device = maps[0].device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self._decode(maps, recomputes)
        return self._decode(maps, recomputes)

    def _decode(self, features: list[Tensor], recomputes: int) -> PixelFeatures:
        """Mask features and scales of maps that are taken out of their list."""
        dtype = self.mask_features.weight.dtype
        maps = [project(features.pop().to(dtype)) for project in self.input_proj]
        y = self.adapter_1(features.pop().to(dtype))
        shapes = [(m.shape[-2], m.shape[-1]) for m in maps]
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        del maps
        tokens = self.transformer(tokens, spatial_shapes=shapes, recomputes=recomputes)
        rows = tokens.split_with_sizes([height * width for height, width in shapes], dim=1)
        coarse, middle, fine = (
            part.unflatten(1, shape).permute(0, 3, 1, 2) for part, shape in zip(rows, shapes, strict=True)
        )
        y += functional.interpolate(fine, size=y.shape[-2:], mode="bilinear", align_corners=False)
        y = functional.relu(self.layer_1(y), inplace=True)
        return PixelFeatures(mask_features=self.mask_features(y), scales=(coarse, middle, fine))
