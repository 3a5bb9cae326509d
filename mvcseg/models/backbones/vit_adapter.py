"""ViT-Adapter without injectors: four maps at strides 4, 8, 16 and 32 from a plain vision transformer.

A small convolutional net reads the image at strides 4 to 32. Its three coarser maps, as rows of tokens, gather from the
transformer's patch tokens after every quarter of the blocks; the transformer itself never sees them. At the end the
patch tokens of the four quarters are added to the four maps, resized to fit.

Parameter names are those of the published DVIS++ checkpoints.

Source: Chen et al., Vision Transformer Adapter for Dense Predictions, arXiv 2205.08534; Zhang et al., DVIS++,
arXiv 2312.13305, for the variant without injectors and with a frozen DINOv2.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.models.backbones.extractor import Extractor, as_map, as_rows, pixel_centres, split_maps
from mvcseg.models.backbones.vit import VisionTransformer, vit_b, vit_g, vit_l, vit_s
from mvcseg.shapes import check_shapes

QUARTERS = 4
"""Groups of transformer blocks, after each of which the adapter reads the patch tokens."""


class ViTAdapter(nn.Module):
    """Maps of C channels at strides 4, 8, 16 and 32, C being the transformer's width.

    Args:
        vit: the transformer; its depth is a multiple of 4, its number of heads also that of the adapter.
        stem_width: channels of the first convolutions.
        is_frozen: whether the transformer stays as it is: its parameters take no gradient and its tokens are computed
            without a graph, as in the published training. The adapter's own parameters always learn.

    Attributes:
        channels: of the four maps.

    Raises:
        ConfigError: the depth is no multiple of 4.
    """

    channels: tuple[int, int, int, int]

    def __init__(self, vit: VisionTransformer, *, stem_width: int = 64, is_frozen: bool = True) -> None:
        super().__init__()
        if len(vit.blocks) % QUARTERS:
            raise ConfigError(f"vit: expected a depth that is a multiple of {QUARTERS}, got {len(vit.blocks)}")
        width, heads = vit.width, vit.heads
        self.channels = (width, width, width, width)
        self.is_frozen = is_frozen
        self.level_embed = nn.Parameter(torch.empty(3, width).normal_())
        self.vit_module = vit.requires_grad_(not is_frozen)
        self.spm = SpatialPrior(width, stem_width=stem_width)
        self.interactions = nn.ModuleList(
            Interaction(width, heads=heads, extra=2 if quarter == QUARTERS - 1 else 0) for quarter in range(QUARTERS)
        )
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.BatchNorm2d(width) for _ in range(4))
        for part in (self.spm, self.interactions, self.up):
            part.apply(_reset)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maps at strides 4, 8, 16 and 32.

        Args:
            images: normalised, ``(N, 3, H, W)``, sides multiples of 32.

        Raises:
            ShapeError: ``images`` is not of that shape.
        """
        sizes = check_shapes(images=(images, "n 3 h w"))
        height, width = sizes["h"], sizes["w"]
        if height % 32 or width % 32:
            raise ShapeError(f"images: expected sides that are multiples of 32, got {height} x {width}; pad first")
        grids = [(height // stride, width // stride) for stride in (8, 16, 32)]
        fine, *coarse = self.spm(images)
        rows = torch.cat([tokens + level for tokens, level in zip(coarse, self.level_embed, strict=True)], dim=1)
        rows, patches = self._interact(images, rows, grids=grids)
        maps = split_maps(rows, grids=grids)
        maps.insert(0, self.up(maps[0]).add_(fine))
        del fine, coarse, rows  # at stride 4 a map is most of the memory: none is held longer than it is read
        out = []
        for norm in (self.norm1, self.norm2, self.norm3, self.norm4):
            out.append(norm(_add_resized(maps.pop(0), as_map(patches.pop(0), grid=grids[1]))))
        return out[0], out[1], out[2], out[3]

    def _interact(self, images: Tensor, rows: Tensor, *, grids: list[tuple[int, int]]) -> tuple[Tensor, list[Tensor]]:
        """The rows after all interactions, and the patch tokens ``(N, H / 16 * W / 16, C)`` of every quarter."""
        centres = pixel_centres(grids, like=rows)
        blocks, patches = self.vit_module.blocks, []
        with self._graph():
            tokens = self.vit_module.embed(images)
        for quarter, interaction in enumerate(self.interactions):
            with self._graph():
                for index in range(quarter * len(blocks) // QUARTERS, (quarter + 1) * len(blocks) // QUARTERS):
                    tokens = blocks[index](tokens)
            patches.append(tokens[:, 1:])
            rows = interaction(rows, patches[-1], centres=centres, grids=grids)
        return rows, patches

    def _graph(self) -> torch.no_grad | nullcontext[None]:
        return torch.no_grad() if self.is_frozen else nullcontext()


def vit_adapter_s(*, is_frozen: bool = True) -> ViTAdapter:
    """Adapter on DINOv2 ViT-S: maps of 384 channels."""
    return ViTAdapter(vit_s(), is_frozen=is_frozen)


def vit_adapter_b(*, is_frozen: bool = True) -> ViTAdapter:
    """Adapter on DINOv2 ViT-B: maps of 768 channels."""
    return ViTAdapter(vit_b(), is_frozen=is_frozen)


def vit_adapter_l(*, is_frozen: bool = True) -> ViTAdapter:
    """Adapter on DINOv2 ViT-L, as in the published checkpoints: maps of 1024 channels."""
    return ViTAdapter(vit_l(), is_frozen=is_frozen)


def vit_adapter_g(*, is_frozen: bool = True) -> ViTAdapter:
    """Adapter on DINOv2 ViT-g: maps of 1536 channels."""
    return ViTAdapter(vit_g(), is_frozen=is_frozen)


class SpatialPrior(nn.Module):
    """Convolutions over the image, with batch norm and ReLU, each scale brought to C channels by a 1 x 1 one.

    Args:
        width: C.
        stem_width: channels at stride 4; 2, 4 and 4 times as many at strides 8, 16 and 32.
    """

    def __init__(self, width: int, *, stem_width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_convolution(3, stem_width, stride=2),
            *_convolution(stem_width, stem_width, stride=1),
            *_convolution(stem_width, stem_width, stride=1),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.conv2 = nn.Sequential(*_convolution(stem_width, 2 * stem_width, stride=2))
        self.conv3 = nn.Sequential(*_convolution(2 * stem_width, 4 * stem_width, stride=2))
        self.conv4 = nn.Sequential(*_convolution(4 * stem_width, 4 * stem_width, stride=2))
        self.fc1 = nn.Conv2d(stem_width, width, 1)
        self.fc2 = nn.Conv2d(2 * stem_width, width, 1)
        self.fc3 = nn.Conv2d(4 * stem_width, width, 1)
        self.fc4 = nn.Conv2d(4 * stem_width, width, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A map at stride 4 and rows of tokens at strides 8, 16 and 32.

        Args:
            images: ``(N, 3, H, W)``.

        Returns:
            ``(N, C, H / 4, W / 4)``, then ``(N, H / s * W / s, C)`` for s = 8, 16, 32.
        """
        c1 = self.stem(images)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        c2, c3, c4 = (as_rows(fc(c)) for fc, c in ((self.fc2, c2), (self.fc3, c3), (self.fc4, c4)))
        return self.fc1(c1), c2, c3, c4


class Interaction(nn.Module):
    """One extractor, and in the last quarter further ones on the same patch tokens."""

    def __init__(self, width: int, *, heads: int, extra: int) -> None:
        super().__init__()
        self.extractor = Extractor(width, heads=heads)
        self.extra_extractors = nn.ModuleList(Extractor(width, heads=heads) for _ in range(extra))

    def forward(self, rows: Tensor, patches: Tensor, *, centres: Tensor, grids: list[tuple[int, int]]) -> Tensor:
        """``(N, L, C)``; arguments as in ``Extractor``."""
        for extractor in (self.extractor, *self.extra_extractors):
            rows = extractor(rows, patches, centres=centres, grids=grids)
        return rows


def _convolution(inner: int, outer: int, *, stride: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return (
        nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outer),
        nn.ReLU(inplace=True),
    )


def _add_resized(feature: Tensor, patches: Tensor) -> Tensor:
    size = feature.shape[-2:]
    if patches.shape[-2:] == size:
        return feature + patches
    return functional.interpolate(patches, size=size, mode="bilinear", align_corners=False).add_(feature)


def _reset(module: nn.Module) -> None:
    """Convolutions start normal with variance ``2 / fan-out``, as in the published adapter, their biases at zero."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
