"""Contrastive terms of one anchor, written out from the definition."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def one_by_one(anchor: Tensor, positives: list[Tensor], negatives: list[Tensor]) -> Tensor:
    """``log(1 + sum exp(a.n - a.p))`` with two loops."""
    total = torch.ones((), dtype=anchor.dtype)
    for positive in positives:
        for negative in negatives:
            total = total + torch.exp(anchor @ negative - anchor @ positive)
    return total.log()


def error_one_by_one(anchor: Tensor, positives: list[Tensor], negatives: list[Tensor]) -> Tensor:
    """Mean squared difference of cosines from 1 and 0."""
    squares = [(functional.cosine_similarity(anchor, p, dim=0) - 1) ** 2 for p in positives]
    squares += [functional.cosine_similarity(anchor, n, dim=0) ** 2 for n in negatives]
    return torch.stack(squares).mean()
