"""Groups of look-alike classes, proposed from a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.shapes import check_positive
from mvcseg.vlm.groups import VSPW_GROUPS, Group
from mvcseg.vlm.prompt import spoken

NEUTRAL_NOUNS = ("area", "region", "part")
"""What a proposed group is called where nothing better is known: the first that leaves two classes to offer."""


def confusion_groups(
    matrix: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    min_share: float = 0.1,
    largest: int = 5,
    nouns: Mapping[str, str] | None = None,
) -> tuple[Group, ...]:
    """Classes that a model takes for one another, the most confused group first.

    Two groups (at first each class is one) are joined while every class of one is confused with every class of the
    other by a share (`confusion_shares`) of at least ``min_share``, those whose least share is the highest first. So a
    chain (a taken for b, b for c, but never a for c) does not grow into one group. Every class is in one group at most.
    Equal shares are settled by the lower class id, so a matrix has one result.

    A matrix does not tell a region taken for another class from a border drawn a few pixels off, and thin things
    (a pole before a building) are mostly border: read a proposal before using it.

    Args:
        matrix: ``(K, K)`` or ``(K, K + 1)`` counts, row = true class, column = prediction, such as
            `mvcseg.metrics.MeanIoU.state`; the last column, predictions that are no class, is confused with none.
        class_names: name of every class, by id; needed for the nouns below. Two classes called the same are never
            offered together.
        min_share: least share of confusion between any two classes of a group, above 0 and at most 1.
        largest: most classes in a group.
        nouns: class name -> noun. A group takes the noun that all its classes found here agree on; else that of the
            group of `VSPW_GROUPS` that all its classes lie in, by name; else a neutral word.

    Raises:
        ShapeError: the matrix is neither ``(K, K)`` nor ``(K, K + 1)``, or ``class_names`` are not K.
        DTypeError: it holds no numbers.
        ConfigError: a count is negative or not finite, or ``min_share``, ``largest`` or ``nouns`` is not as above.

    Example:
        >>> matrix = torch.tensor([[90, 0, 0], [0, 50, 30], [1, 10, 40]])
        >>> confusion_groups(matrix, class_names=["sky", "river", "lake"])
        (Group(noun='water', class_ids=(1, 2)),)
    """
    shares = confusion_shares(matrix).numpy()
    if class_names is not None and len(class_names) != len(shares):
        raise ShapeError(f"class_names: expected {len(shares)} from matrix, got {len(class_names)}")
    if not 0 < min_share <= 1:
        raise ConfigError(f"min_share: expected a share above 0 and at most 1, got {min_share}")
    check_positive(largest=largest)
    unknown = sorted(set(nouns or ()) - set(class_names or ()))
    if unknown:
        raise ConfigError(f"nouns: expected names of classes as keys, got {unknown[0]!r}")
    linked = shares.copy()
    if class_names is not None:
        linked[~_differ([spoken(name) for name in class_names])] = 0.0
    clusters = _joined(linked, min_share=min_share, largest=largest)
    ranked = sorted(clusters, key=lambda members: (-_mean_share(shares, members), members))
    return tuple(Group(_noun(members, class_names, nouns or {}), members) for members in ranked)


def confusion_shares(matrix: Tensor) -> Tensor:
    """How much each pair of classes is confused, ``(K, K)`` float64 in ``[0, 1]``, symmetric, 0 on the diagonal.

    The confused pixels over all pixels that are or were called a class, for the one of the two that suffers more:
    ``(C_ij + C_ji) / min(U_i, U_j)`` with ``U_i = row_i + column_i - C_ii``. As IoU is taken over ``U_i`` too, this is
    the part of ``1 - IoU`` that the other class is to blame for; over all other classes, and predictions that are no
    class, these parts add up to ``1 - IoU_i``. A class without ground truth is confused with none, for nothing is
    known of it.

    Args:
        matrix: ``(K, K)`` or ``(K, K + 1)`` counts, as in `confusion_groups`.

    Raises:
        ShapeError: it has another shape.
        DTypeError: it holds no numbers.
        ConfigError: a count is negative or not finite.

    Example:
        >>> confusion_shares(torch.tensor([[90, 0, 0], [0, 50, 30], [1, 10, 40]]))  # 40 of 81, 1 of 81
        tensor([[0.0000, 0.0000, 0.0123],
                [0.0000, 0.0000, 0.4938],
                [0.0123, 0.4938, 0.0000]], dtype=torch.float64)
    """
    counts = _counts(matrix)
    square = counts[:, : len(counts)]
    # predictions that are no class are misses of their true class, as in the IoU
    union = counts.sum(dim=1) + square.sum(dim=0) - square.diagonal()
    shares = (square + square.T).fill_diagonal_(0) / torch.minimum(union[:, None], union[None, :]).clamp(min=1)
    is_known = counts.sum(dim=1) > 0
    return shares * (is_known[:, None] & is_known[None, :])


def called_without_truth(matrix: Tensor, *, min_share: float = 0.01) -> dict[int, tuple[tuple[int, int], ...]]:
    """Classes that are predicted but have no ground truth, so that `confusion_groups` leaves them out.

    Args:
        matrix: ``(K, K)`` or ``(K, K + 1)`` counts, as in `confusion_groups`.
        min_share: least share of a true class's pixels that must be called so; fewer are noise.

    Returns:
        Such a class -> what it truly was, as pairs (class, pixels), most first; the class of most pixels first.

    Raises:
        ShapeError, DTypeError, ConfigError: as `confusion_shares`.

    Example:
        >>> called_without_truth(torch.tensor([[90, 0, 0], [0, 50, 30], [0, 0, 0]]))  # 30 of class 1 called class 2
        {2: ((1, 30),)}
    """
    counts = _counts(matrix)
    of_class = counts.sum(dim=1)
    found = {}
    for absent in (of_class == 0).nonzero().flatten().tolist():
        called = counts[:, absent]
        true = ((called > 0) & (called >= min_share * of_class)).nonzero().flatten().tolist()
        if true:
            pairs = ((index, int(called[index])) for index in true)
            found[absent] = tuple(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))
    return dict(sorted(found.items(), key=lambda item: -sum(pixels for _, pixels in item[1])))


def _counts(matrix: Tensor) -> Tensor:
    """A matrix as float64 on the CPU, refused where it is none."""
    if not isinstance(matrix, Tensor) or matrix.dtype == torch.bool or matrix.is_complex():
        raise DTypeError(f"matrix: expected a tensor of counts, got {getattr(matrix, 'dtype', type(matrix).__name__)}")
    rows, columns = matrix.shape if matrix.ndim == 2 else (0, 0)
    if rows < 1 or columns - rows not in (0, 1):
        raise ShapeError(f"matrix: expected (K, K) or (K, K + 1), got {tuple(matrix.shape)}")
    counts = matrix.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(counts).all()) or bool((counts < 0).any()):
        raise ConfigError("matrix: expected counts of at least 0, got a negative one or one that is not finite")
    return counts


def _joined(shares: NDArray[np.float64], *, min_share: float, largest: int) -> list[tuple[int, ...]]:
    """Complete linkage with a bound on the size; the clusters of two classes or more."""
    clusters: list[tuple[int, ...]] = [(index,) for index in range(len(shares))]
    linkage = shares
    while len(clusters) > 1:
        # The first of the largest in reading order is the pair of lowest ids: clusters stay in the order of theirs.
        first, second = divmod(int(np.triu(linkage, 1).argmax()), len(clusters))
        if linkage[first, second] < min_share:
            break
        joined = tuple(sorted(clusters[first] + clusters[second]))
        least = np.minimum(linkage[first], linkage[second])
        if len(joined) > largest:  # and so it stays, whatever else joins one of the two
            linkage[first, second] = linkage[second, first] = 0.0
            continue
        linkage[first], linkage[:, first] = least, least
        clusters[first] = joined
        del clusters[second]
        linkage = np.delete(np.delete(linkage, second, 0), second, 1)
    return [members for members in clusters if len(members) > 1]


def _mean_share(shares: NDArray[np.float64], members: Sequence[int]) -> float:
    pairs = [shares[i, j] for i in members for j in members if i < j]
    return float(np.mean(pairs))


def _differ(names: Sequence[str]) -> NDArray[np.bool_]:
    """``(K, K)``: True where two classes can be told apart by their names as they are said."""
    said = np.array([name.casefold() for name in names], dtype=object)
    has_name = np.array([bool(name) for name in said])
    return np.asarray((said[:, None] != said[None, :]) & has_name[:, None] & has_name[None, :], dtype=bool)


def _noun(members: Sequence[int], class_names: Sequence[str] | None, nouns: Mapping[str, str]) -> str:
    if class_names is None:
        return NEUTRAL_NOUNS[0]
    names = [class_names[index] for index in members]
    given = {nouns[name] for name in names if name in nouns}
    if len(given) == 1:
        return given.pop()
    said = {spoken(name).casefold() for name in names}
    known = [
        group.noun
        for group in VSPW_GROUPS
        if said <= {spoken(VSPW_CLASSES[index]).casefold() for index in group.class_ids}
    ]
    # A class called like the noun is not offered (`Group`), and two must be left.
    return next(noun for noun in (*known, *NEUTRAL_NOUNS) if len(said - {noun}) >= 2)
