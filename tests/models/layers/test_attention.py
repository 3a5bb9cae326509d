from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mvcseg.models.layers.attention import (
    CrossAttentionLayer,
    FeedForwardLayer,
    MultiheadAttention,
    SelfAttentionLayer,
)
from mvcseg.models.layers.mlp import MLP


def reference_of(attention: MultiheadAttention, width: int) -> nn.MultiheadAttention:
    reference = nn.MultiheadAttention(width, attention.heads, batch_first=True)
    reference.load_state_dict(attention.state_dict())  # also: the names are torch's
    return reference.double()


@pytest.mark.parametrize("shared", ["none", "query-key", "key-value", "all"])
def test_attention_equals_torch_multihead_attention(shared: str, generator: torch.Generator) -> None:
    attention = MultiheadAttention(24, heads=4)
    nn.init.normal_(attention.in_proj_bias, generator=generator)
    nn.init.normal_(attention.out_proj.bias, generator=generator)
    reference = reference_of(attention, 24)
    attention.double()
    draw = lambda length: torch.randn(2, length, 24, generator=generator, dtype=torch.float64)  # noqa: E731
    query, key, value = {
        "none": lambda: (draw(5), draw(7), draw(7)),
        "query-key": lambda: ((x := draw(5)), x, draw(5)),
        "key-value": lambda: (draw(5), (x := draw(7)), x),
        "all": lambda: ((x := draw(5)), x, x),
    }[shared]()
    expected, _ = reference(query, key, value)
    torch.testing.assert_close(attention(query, key, value), expected)


def test_hidden_keys_do_not_count(generator: torch.Generator) -> None:
    attention = MultiheadAttention(16, heads=2).double()
    query = torch.randn(2, 3, 16, generator=generator, dtype=torch.float64)
    memory = torch.randn(2, 6, 16, generator=generator, dtype=torch.float64)
    visible = torch.zeros(2, 3, 6, dtype=torch.bool)
    visible[:, 0, :2] = True
    visible[:, 1:, 3:] = True
    seen = attention(query, memory, memory, visible=visible)
    torch.testing.assert_close(seen[:, :1], attention(query[:, :1], memory[:, :2], memory[:, :2]))
    torch.testing.assert_close(seen[:, 1:], attention(query[:, 1:], memory[:, 3:], memory[:, 3:]))


def test_layers_are_post_norm(generator: torch.Generator) -> None:
    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, position, memory = drawn(2, 5, 16), drawn(2, 5, 16), drawn(2, 7, 16)
    own, cross, feed = (
        SelfAttentionLayer(16, heads=2),
        CrossAttentionLayer(16, heads=2),
        FeedForwardLayer(16, hidden=32),
    )
    torch.testing.assert_close(own(x, position=position), own.norm(x + own.self_attn(x + position, x + position, x)))
    torch.testing.assert_close(own(x), own.norm(x + own.self_attn(x, x, x)))
    torch.testing.assert_close(
        cross(x, position, memory, memory), cross.norm(x + cross.multihead_attn(position, memory, memory))
    )
    torch.testing.assert_close(feed(x), feed.norm(x + feed.linear2(feed.linear1(x).relu())))


def test_perceptron_has_no_activation_after_its_last_layer() -> None:
    mlp = MLP(1, 1, 1)
    for layer in mlp.layers:
        nn.init.constant_(layer.weight, -1.0)
        nn.init.zeros_(layer.bias)
    assert mlp(torch.tensor([[-2.0], [3.0]])).tolist() == [[-2.0], [0.0]]
    assert set(mlp.state_dict()) == {"layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"}
