"""Optimal assignment, and the order of queries that it gives a video.

The assignment runs on the host (SciPy's solver); everything else stays on the device of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.shapes import check_float, check_shapes

Assignment = Callable[[NDArray[np.floating]], NDArray[np.int64]]
"""From costs ``(N, M)`` to one number per row."""


def assign(cost: NDArray[np.floating]) -> NDArray[np.int64]:
    """The column of each row when every row gets its own and the costs add up to the least.

    Args:
        cost: ``(N, M)`` with N at most M; infinity forbids a pair, NaN is refused.

    Returns:
        ``(N,)``.

    Raises:
        ShapeError: ``cost`` is not two-dimensional, or has more rows than columns.
        ConfigError: a cost is NaN, or infinite costs leave no assignment.

    Source: scipy.optimize.linear_sum_assignment (a shortest augmenting path method, doi 10.1109/TAES.2016.140952).

    Example:
        >>> assign(np.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0]]))
        array([1, 0])
    """
    from scipy.optimize import linear_sum_assignment

    if cost.ndim != 2 or cost.shape[0] > cost.shape[1]:
        raise ShapeError(f"cost: expected (n m) with n at most m, got {cost.shape}")
    try:
        columns = linear_sum_assignment(cost)[1]
    except ValueError as error:
        raise ConfigError(f"cost: {error}; expected no NaN and a finite assignment") from error
    return columns.astype(np.int64, copy=False)  # type: ignore[no-any-return]


def assign_pairs(cost: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of rows and columns, as many as the shorter side, whose costs add up to the least.

    Args:
        cost: ``(N, M)``, either of which may be larger or zero; infinity forbids a pair, NaN is refused.

    Returns:
        Rows, ascending, and the column of each.

    Raises:
        ShapeError: ``cost`` is not two-dimensional.
        ConfigError: a cost is NaN, or infinite costs leave no assignment.

    Example:
        >>> assign_pairs(np.array([[4.0, 1.0], [2.0, 0.0], [0.5, 5.0]]))
        (array([1, 2]), array([1, 0]))
    """
    if cost.ndim == 2 and cost.shape[0] > cost.shape[1]:
        rows = assign(cost.T)
        columns = rows.argsort()
        return rows[columns], columns
    return np.arange(len(cost)), assign(cost)


def assign_inverse(cost: NDArray[np.floating]) -> NDArray[np.int64]:
    """The row of each column, for square costs: the inverse permutation of ``assign``."""
    return assign(cost.T)


def cosine_cost(reference: Tensor, current: Tensor) -> Tensor:
    """One minus the cosine between all pairs of embeddings, at least in float32; no gradient.

    Args:
        reference: ``(..., N, C)``.
        current: ``(..., M, C)``.

    Returns:
        ``(..., N, M)`` in ``[0, 2]``; 1 where an embedding is zero (norms are increased by 1e-6) and 0 where one
        holds NaN.
    """
    with torch.no_grad(), torch.autocast(current.device.type, enabled=False):
        cosine = _directions(reference) @ _directions(current).transpose(-1, -2)
        return torch.where(cosine.isnan(), 0.0, 1.0 - cosine)


def match_frames(
    embeds: Tensor,
    *,
    previous: Tensor | None = None,
    solve: Assignment = assign,
    given: Mapping[tuple[int, int], Tensor] | None = None,
) -> Tensor:
    """For every frame, which of its queries continues each query of the frame before.

    Frame t is matched with frame t - 1 in the order that was found for t - 1, so the order of the first frame lasts.
    A video's first frame is matched with itself. Costs go to the host once per call, whatever T.

    Args:
        embeds: ``(B, T, Q, C)``, queries in any order.
        previous: ``(B, Q, C)``, the frame before, ordered; None begins a video.
        solve: ``assign``, or ``assign_inverse`` for first-version DVIS.
        given: orders ``(Q,)`` to report and go on from instead of a matched one, by (video, frame); an entry may
            occur more than once in them.

    Returns:
        ``(B, T, Q)`` int64 on the device of ``embeds``; ``embeds[b, t, order[b, t]]`` is frame t ordered.

    Raises:
        ShapeError: the shapes do not fit.
        DTypeError: not floating point.

    Example:
        >>> frame = torch.eye(3)
        >>> match_frames(torch.stack([frame, frame[[2, 0, 1]]]).unsqueeze(0)).tolist()
        [[[0, 1, 2], [1, 2, 0]]]
    """
    check_shapes(embeds=(embeds, "b t q c"))
    check_float(embeds=embeds)
    if previous is not None:
        check_shapes(embeds=(embeds, "b t q c"), previous=(previous, "b q c"))
    batch, count, queries, _ = embeds.shape
    if not batch * count:
        return torch.empty((batch, count, queries), dtype=torch.int64, device=embeds.device)
    before = [embeds[:, 0] if previous is None else previous, *embeds.unbind(1)[:-1]]
    # frame by frame: a product's last bits may depend on how many frames share it
    costs = torch.stack([cosine_cost(last, now) for last, now in zip(before, embeds.unbind(1), strict=True)], dim=1)
    host = costs.cpu().numpy()
    order = np.empty((batch, count, queries), dtype=np.int64)
    for b in range(batch):
        rows = np.arange(queries)
        for t in range(count):
            replaced = None if given is None else given.get((b, t))
            order[b, t] = solve(host[b, t][rows]) if replaced is None else replaced.cpu().numpy()
            rows = order[b, t]
    return torch.from_numpy(order).to(embeds.device)


def take_order(queries: Tensor, order: Tensor) -> Tensor:
    """Queries ``(..., Q, C)`` in the order ``(..., Q)``."""
    return queries.gather(-2, order.unsqueeze(-1).expand(*order.shape, queries.shape[-1]))


def _directions(embeds: Tensor) -> Tensor:
    embeds = embeds.to(torch.promote_types(embeds.dtype, torch.float32))
    norms: Tensor = torch.linalg.vector_norm(embeds, dim=-1, keepdim=True)
    return embeds / (norms + 1e-6)
