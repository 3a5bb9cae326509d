from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.models.backbones.window_attention import WindowAttention, relative_position_index


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (3, 13), (4, 4), (1, 1)])
def test_values_are_those_of_the_definition_at_any_size(size: tuple[int, int], shift: int) -> None:
    """Logits reach the hundreds, so a barrier of -100 is told from one of minus infinity."""
    attn = WindowAttention(8, heads=2, window=4, shift=shift).double()
    torch.nn.init.normal_(attn.qkv.weight, std=5.0)
    torch.nn.init.normal_(attn.relative_position_bias_table)
    x = torch.randn(2, *size, 8, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(attn(x), one_window_at_a_time(attn, x), rtol=1e-9, atol=1e-9)


def one_window_at_a_time(attn: WindowAttention, x: Tensor) -> Tensor:
    side, shift, heads = attn.window, attn.shift, attn.heads
    height, width, channels = x.shape[1:]
    x = functional.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    full_height, full_width = x.shape[1:3]
    region_of_row = [0 if y < full_height - side else 1 if y < full_height - shift else 2 for y in range(full_height)]
    region_of_column = [0 if c < full_width - side else 1 if c < full_width - shift else 2 for c in range(full_width)]
    rolled, out = x.roll((-shift, -shift), (1, 2)), torch.empty_like(x)
    for top in range(0, full_height, side):
        for left in range(0, full_width, side):
            cells = [(y, c) for y in range(top, top + side) for c in range(left, left + side)]
            tokens = torch.stack([rolled[:, y, c] for y, c in cells], dim=1)
            q, k, v = attn.qkv(tokens).view(len(x), len(cells), 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
            logits = q @ k.transpose(-2, -1) / (channels // heads) ** 0.5
            for i, (y, c) in enumerate(cells):
                for j, (other_y, other_c) in enumerate(cells):
                    row = (y - other_y + side - 1) * (2 * side - 1) + c - other_c + side - 1
                    logits[:, :, i, j] += attn.relative_position_bias_table[row]
                    if shift and (region_of_row[y], region_of_column[c]) != (
                        region_of_row[other_y],
                        region_of_column[other_c],
                    ):
                        logits[:, :, i, j] -= 100
            gathered = attn.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
            out[:, top : top + side, left : left + side] = gathered.view(len(x), side, side, channels)
    return out.roll((shift, shift), (1, 2))[:, :height, :width]


def test_a_map_of_one_window_is_plain_attention_with_bias() -> None:
    attn = WindowAttention(8, heads=2, window=3, shift=0)
    x = torch.randn(2, 3, 3, 8)
    q, k, v = attn.qkv(x.flatten(1, 2)).view(2, 9, 3, 2, 4).permute(2, 0, 3, 1, 4)
    bias = attn.relative_position_bias_table[relative_position_index(3)].permute(2, 0, 1)
    gathered = (q @ k.transpose(-2, -1) / 2 + bias).softmax(-1) @ v
    expected = attn.proj(gathered.transpose(1, 2).flatten(2)).view(2, 3, 3, 8)
    torch.testing.assert_close(attn(x), expected)


def test_index_depends_on_relative_position_alone_and_uses_every_row() -> None:
    index = relative_position_index(3)
    assert index.shape == (9, 9)
    assert sorted(set(index.flatten().tolist())) == list(range(25))
    assert index[0, 4] == index[4, 8]  # one down, one right
    assert index[0, 1] != index[0, 3]


def test_gradients_pass_through_every_kind_of_window() -> None:
    attn = WindowAttention(4, heads=2, window=2, shift=1).double()
    x = torch.randn(1, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attn, (x,))
