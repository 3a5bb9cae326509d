"""Controlled confusions: tubes of look-alike classes that are given another class of their group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from vlm_study_cases import Case

from mvcseg.vlm import Group

Kind: TypeAlias = Literal["whole", "flicker"]
"""Whether a tube has the other class in all of its frames, or in a run of half of them."""


def swapped(case: Case, *, groups: Sequence[Group], share: float, seed: int, kind: Kind) -> Tensor:
    """The labels of a case with a share of its tubes, drawn at random, under another class of their group.

    Args:
        case: labels and their tubes.
        groups: the groups the tubes were found with.
        share: of the tubes, rounded to whole tubes, in ``[0, 1]``.
        seed: another seed draws other tubes, classes and frames.
        kind: all frames of a tube, or a run of half of them (a tube of one frame has it there).
    """
    generator = np.random.default_rng(seed)
    labels = case.labels.numpy().copy()
    count = round(share * len(case.questions))
    for position in sorted(generator.permutation(len(case.questions))[:count].tolist()):
        tube = case.questions[position].tube
        others = [index for index in groups[tube.group].class_ids if index != tube.shares[0][0]]
        new = generator.choice(others)
        frames = sorted(tube.parts)
        if kind == "flicker":
            length = max(1, len(frames) // 2)
            start = int(generator.integers(len(frames) - length + 1))
            frames = frames[start : start + length]
        for frame in frames:
            labels[frame][case.number[frame] == position] = new
    return torch.from_numpy(labels)


def share_of_pixels(before: Tensor, after: Tensor) -> float:
    """Share of all pixels whose class differs."""
    return float((before != after).double().mean())
