"""Deformable attention against transformers' and its formula by `grid_sample`; linear maps against PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from peers_row import Row
from peers_transformers import same_result
from torch import Tensor
from torch.nn import functional
from transformers.models.mask2former import modeling_mask2former

from mvcseg.models.layers.deformable import DeformableAttention
from mvcseg.ops.deform_attn import deformable_attention
from mvcseg.ops.linear import linear

Shapes = Sequence[tuple[int, int]]

PIXEL_DECODER: dict[str, Shapes] = {
    "480p": ((15, 27), (30, 54), (60, 108)),
    "720p": ((23, 40), (46, 80), (92, 160)),
}
"""Maps of strides 32, 16 and 8."""
TOLERANCE = 5e-5


def rows(
    *, device: str = "cpu", maps: dict[str, Shapes] = PIXEL_DECODER, heads: int = 8, width: int = 256
) -> Iterator[Row]:
    for size, shapes in maps.items():
        yield from of_maps(size, shapes, device=device, heads=heads, width=width)


def of_maps(size: str, shapes: Shapes, *, device: str, heads: int, width: int) -> Iterator[Row]:
    value, locations, weights = arguments(shapes, heads=heads, depth=width // heads, device=device)
    about = f"{size}: {value.shape[1]} tokens, {heads} heads, 3 levels x 4 points"
    for name, peer in (
        ("transformers", "transformers' multi_scale_deformable_attention"),
        ("grid_sample", "the grid_sample formula, upstream's way on the CPU"),
    ):
        function = modeling_mask2former.multi_scale_deformable_attention
        yield Row(
            f"deform/{size}/{name}",
            f"deformable attention, {about}",
            peer,
            ours=lambda: deformable_attention(value, locations, weights, spatial_shapes=shapes),
            theirs=lambda name=name, function=function: (
                function(value, list(shapes), locations, weights)
                if name == "transformers"
                else by_grid_sample(value, locations, weights, shapes)
            ),
            difference=same_result,
            tolerance=TOLERANCE,
            measure="largest difference, of the largest value",
            target=3.0 if device != "cpu" and name == "grid_sample" else None,
            at_most=3,
        )
    yield module_row(size, shapes, about, device=device, heads=heads, width=width)


def module_row(size: str, shapes: Shapes, about: str, *, device: str, heads: int, width: int) -> Row:
    """The whole layer, projections included, with the same weights."""
    gen = torch.Generator().manual_seed(1)
    ours = DeformableAttention(width, levels=len(shapes), heads=heads, points=4)
    for parameter in (ours.sampling_offsets.weight, ours.attention_weights.weight):
        torch.nn.init.normal_(parameter, std=0.05, generator=gen)
    theirs = modeling_mask2former.Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention(
        width, num_heads=heads, n_levels=len(shapes), n_points=4
    )
    theirs.load_state_dict(ours.state_dict())
    ours, theirs = (module.to(device).eval().requires_grad_(False) for module in (ours, theirs))
    centres = torch.cat([pixel_centres(shape) for shape in shapes]).to(device)[None]
    query, memory = torch.randn(2, 1, centres.shape[1], width, generator=gen).to(device)
    return Row(
        f"deform/{size}/layer/transformers",
        f"deformable attention with its projections, {about}",
        "transformers' module, same weights",
        ours=lambda: ours(query, memory, reference_points=centres, spatial_shapes=shapes),
        theirs=lambda: theirs(
            query,
            encoder_hidden_states=memory,
            reference_points=centres[:, :, None].expand(-1, -1, len(shapes), -1),
            spatial_shapes_list=list(shapes),
        )[0],
        difference=same_result,
        tolerance=TOLERANCE,
        measure="largest difference, of the largest value",
        at_most=3,
    )


def arguments(shapes: Shapes, *, heads: int, depth: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Values, places around each pixel's own and weights, as a pixel decoder has them."""
    gen = torch.Generator().manual_seed(0)
    centres = torch.cat([pixel_centres(shape) for shape in shapes])
    tokens, levels = len(centres), len(shapes)
    value = torch.randn(1, tokens, heads, depth, generator=gen)
    extent = torch.tensor([[width, height] for height, width in shapes])
    offsets = 3 * torch.randn(1, tokens, heads, levels, 4, 2, generator=gen)
    locations = centres[None, :, None, None, None] + offsets / extent[:, None]
    weights = torch.randn(1, tokens, heads, levels * 4, generator=gen).softmax(-1)
    return value.to(device), locations.to(device), weights.view(1, tokens, heads, levels, 4).to(device)


def pixel_centres(shape: tuple[int, int]) -> Tensor:
    """``(H * W, 2)`` as ``(x, y)`` in 0..1."""
    height, width = shape
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def by_grid_sample(value: Tensor, locations: Tensor, weights: Tensor, shapes: Shapes) -> Tensor:
    """Every map sampled for every head, then weighed and added up."""
    n, _, heads, depth = value.shape
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    shares = weights.transpose(1, 2).flatten(0, 1)
    total = value.new_zeros(n * heads, depth, locations.shape[1])
    maps = value.split([height * width for height, width in shapes], dim=1)
    for level, (height, width) in enumerate(shapes):
        one = maps[level].permute(0, 2, 3, 1).reshape(n * heads, depth, height, width)
        sampled = functional.grid_sample(one, grids[:, :, level], align_corners=False)
        total += (sampled * shares[:, None, :, level]).sum(-1)
    return total.view(n, heads * depth, -1).transpose(1, 2).contiguous()


def linear_rows(
    *, device: str = "cpu", sizes: Sequence[tuple[int, int, int]] = ((8505, 256, 256), (8505, 256, 1024))
) -> Iterator[Row]:
    for count, channels, outputs in sizes:
        gen = torch.Generator().manual_seed(0)
        x = torch.randn(count, channels, generator=gen).to(device)
        weight = (torch.randn(outputs, channels, generator=gen) / channels**0.5).to(device)
        yield Row(
            f"linear/{channels} to {outputs}/torch",
            f"linear map of {count} rows, {channels} to {outputs} channels",
            "torch.nn.functional.linear",
            ours=lambda x=x, weight=weight: linear(x, weight),
            theirs=lambda x=x, weight=weight: functional.linear(x, weight),
            difference=same_result,
            tolerance=TOLERANCE,
            measure="largest difference, of the largest value",
            at_most=2,
        )
