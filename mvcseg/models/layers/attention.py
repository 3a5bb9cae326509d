"""Multi-head attention through ``scaled_dot_product_attention``, and the post-norm layers built of it.

Parameter names are those of the published Mask2Former and DVIS++ checkpoints. All tensors are batch first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.ops.linear import linear
from mvcseg.ops.shortcut import may_shortcut


class MultiheadAttention(nn.Module):
    """Attention with several heads; parameters named as in ``torch.nn.MultiheadAttention``.

    Projections that read the same tensor are done in one matrix product.

    Args:
        width: C, channels of queries, keys and values.
        heads: number of heads; divides ``width``.
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, visible: Tensor | None = None) -> Tensor:
        """Values gathered for every query.

        Args:
            query: ``(N, L, C)``.
            key: ``(N, S, C)``.
            value: ``(N, S, C)``.
            visible: ``(N, L, S)`` bool, True where a query may look at a key, the same for all heads; None shows
                all. Every query sees at least one key.

        Returns:
            ``(N, L, C)``.
        """
        q, k, v = (self._split(projected) for projected in self._project(query, key, value))
        mask = None if visible is None else _attention_mask(visible, like=query).unsqueeze(1)
        gathered = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return linear(gathered.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, query.shape[-1]
        if query is key and key is value:
            q, k, v = linear(query, weight, bias).chunk(3, dim=-1)
            return q, k, v
        if query is key:
            q, k = linear(query, weight[: 2 * width], bias[: 2 * width]).chunk(2, dim=-1)
            return q, k, linear(value, weight[2 * width :], bias[2 * width :])
        q = linear(query, weight[:width], bias[:width])
        if key is value:
            k, v = linear(key, weight[width:], bias[width:]).chunk(2, dim=-1)
            return q, k, v
        k = linear(key, weight[width : 2 * width], bias[width : 2 * width])
        return q, k, linear(value, weight[2 * width :], bias[2 * width :])

    def _split(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        return x.view(n, length, self.heads, width // self.heads).transpose(1, 2)


def _attention_mask(visible: Tensor, *, like: Tensor) -> Tensor:
    """``visible``, or in CPU inference numbers to add to the logits: PyTorch takes six times as long to make them."""
    if like.dtype not in (torch.float32, torch.float64) or not may_shortcut(visible, like):
        return visible
    return visible.to(like.dtype).sub_(1).mul_(1e30)  # 0 or far below any logit


class SelfAttentionLayer(nn.Module):
    """Post-norm self-attention: ``LN(x + Attn(x + position, x + position, x))``."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(width, heads=heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, *, position: Tensor | None = None) -> Tensor:
        """``(N, L, C)`` of ``(N, L, C)``; ``position`` of the same shape is added to queries and keys."""
        placed = x if position is None else x + position
        return self.norm(x + self.self_attn(placed, placed, x))  # type: ignore[no-any-return]


class CrossAttentionLayer(nn.Module):
    """Post-norm cross-attention: ``LN(residual + Attn(query, key, value))``."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.multihead_attn = MultiheadAttention(width, heads=heads)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, residual: Tensor, query: Tensor, key: Tensor, value: Tensor, *, visible: Tensor | None = None
    ) -> Tensor:
        """``(N, L, C)``; ``residual`` and ``query`` are ``(N, L, C)``, ``key`` and ``value`` ``(N, S, C)``.

        ``visible`` as in ``MultiheadAttention``.
        """
        return self.norm(residual + self.multihead_attn(query, key, value, visible=visible))  # type: ignore[no-any-return]


class FeedForwardLayer(nn.Module):
    """Post-norm feed-forward: ``LN(x + W2 relu(W1 x))``."""

    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` of ``(..., C)``."""
        inner = linear(x, self.linear1.weight, self.linear1.bias)
        inner = functional.relu(inner, inplace=not torch.is_grad_enabled())
        return self.norm(x + linear(inner, self.linear2.weight, self.linear2.bias))  # type: ignore[no-any-return]
