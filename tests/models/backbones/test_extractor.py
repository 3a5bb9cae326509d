from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mvcseg.models.backbones.extractor import (
    ConvolutionalMLP,
    Extractor,
    as_map,
    as_rows,
    pixel_centres,
    split_maps,
)

GRIDS = [(4, 6), (2, 3), (1, 2)]


def test_centres_run_row_by_row_grid_after_grid() -> None:
    centres = pixel_centres([(2, 3), (1, 1)], like=torch.zeros((), dtype=torch.float64))
    assert centres.dtype == torch.float64
    x, y = [1 / 6, 1 / 2, 5 / 6], [1 / 4, 3 / 4]
    expected = [(x[0], y[0]), (x[1], y[0]), (x[2], y[0]), (x[0], y[1]), (x[1], y[1]), (x[2], y[1]), (0.5, 0.5)]
    torch.testing.assert_close(centres, torch.tensor([expected], dtype=torch.float64))


def test_rows_and_maps_are_inverse_and_share_memory() -> None:
    rows = torch.randn(2, 12, 5)
    image = as_map(rows, grid=(3, 4))
    assert image.shape == (2, 5, 3, 4)
    assert torch.equal(image[1, :, 2, 3], rows[1, 11])
    assert torch.equal(as_rows(image), rows)
    assert image.data_ptr() == rows.data_ptr()
    assert image.is_contiguous(memory_format=torch.channels_last)


def test_scales_are_told_apart() -> None:
    rows = torch.arange(32.0).view(1, 32, 1)
    fine, middle, coarse = split_maps(rows, grids=GRIDS)
    assert fine[0, 0, 3, 5] == 23
    assert middle[0, 0].tolist() == [[24, 25, 26], [27, 28, 29]]
    assert coarse[0, 0].tolist() == [[30, 31]]


def test_the_convolution_of_the_mlp_sees_one_scale_at_a_time() -> None:
    mlp, rows = ConvolutionalMLP(6, hidden=4), torch.randn(2, 32, 6)
    parts = []
    for part, grid in zip(rows.split([24, 6, 2], dim=1), GRIDS, strict=True):
        hidden = mlp.fc1(part).transpose(1, 2).reshape(2, 4, *grid)
        kernel = mlp.dwconv.dwconv
        hidden = functional.conv2d(hidden, kernel.weight, kernel.bias, padding=1, groups=4)
        parts.append(mlp.fc2(functional.gelu(hidden.flatten(2).transpose(1, 2))))
    torch.testing.assert_close(mlp(rows, grids=GRIDS), torch.cat(parts, dim=1))


def test_rows_change_by_what_lies_around_their_own_place() -> None:
    """Heads look at most a few pixels away, so the far corner's patch reaches no row of the other corner."""
    extractor = Extractor(8, heads=2).double()
    grids = [(32, 32), (16, 16), (8, 8)]
    rows = torch.randn(1, 1024 + 256 + 64, 8, dtype=torch.float64)
    patches = torch.randn(1, 256, 8, dtype=torch.float64)
    centres, other = pixel_centres(grids, like=rows), patches.clone()
    other[0, -1] = torch.randn(8, dtype=torch.float64)
    with torch.inference_mode():
        change = extractor(rows, other, centres=centres, grids=grids) - extractor(
            rows, patches, centres=centres, grids=grids
        )
    moved = change.abs().sum(-1)[0] > 1e-12
    assert moved[1023]
    assert not moved[0]
    assert not moved[1024]


@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_reach_rows_patches_and_every_parameter(batch: int) -> None:
    extractor = Extractor(8, heads=2)
    torch.nn.init.normal_(extractor.attn.attention_weights.weight)
    rows, patches = torch.randn(batch, 32, 8, requires_grad=True), torch.randn(batch, 6, 8, requires_grad=True)
    centres = pixel_centres(GRIDS, like=rows)
    extractor(rows, patches, centres=centres, grids=GRIDS).square().mean().backward()
    assert rows.grad is not None
    assert patches.grad is not None
    assert all(parameter.grad is not None for parameter in extractor.parameters())
