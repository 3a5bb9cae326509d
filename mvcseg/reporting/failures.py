"""Where one prediction fails, in sentences: the classes and confusions that cost it most."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from mvcseg.reporting.scores import CLIP, VideoScores

LEAST_SHARE = 0.001
"""Share of the labelled pixels below which a class is too small to be named as the one a prediction fails on."""


def failures(name: str, scores: VideoScores, class_names: Sequence[str]) -> str:
    """The class of lowest IoU and why it is low, the most frequent error, the least steady class.

    Args:
        name: what the prediction is called.
        scores: its scores.
        class_names: names of the K classes.

    Returns:
        One paragraph; empty where no pixel has a true class.
    """
    confusion = scores.miou.state
    pixels = confusion.sum(dim=1)
    if not int(pixels.sum()):
        return ""
    names = [*class_names, "no class"]
    is_large = pixels >= LEAST_SHARE * float(pixels.sum())
    wrong = confusion.clone().fill_diagonal_(0)
    said = [f"{name} is right on every labelled pixel."]
    if int(wrong.sum()):
        iou = scores.miou.per_class().masked_fill(~is_large, math.inf)
        worst = int(iou.argmin())
        cause, culprits = _cause(confusion, wrong, worst, names)
        said = [f"{name} fails most on {names[worst]} (IoU {percent(float(iou[worst]))}): {cause}"]
        said += _most_frequent(wrong, names, told=culprits)
    steadiness = scores.class_steadiness.nan_to_num(math.inf).masked_fill(~is_large, math.inf)
    least = int(steadiness.argmin())
    if (share := float(steadiness[least])) < 1:
        keep = f"{percent(share)} of the pixels keep one class for {CLIP} frames"
        said.append(f"It is least steady on {names[least]}, where {keep}.")
    return " ".join(said)


def percent(share: float) -> str:
    """A fraction as people read it, with two digits where one would say little.

    Example:
        >>> percent(0.9312), percent(0.0042), percent(0.0)
        ('93.1%', '0.42%', '0.0%')
    """
    return f"{100 * share:.{2 if 0 < share < 0.01 else 1}f}%"


def listed(names: Sequence[str]) -> str:
    """Names as one phrase.

    Example:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _cause(confusion: Tensor, wrong: Tensor, worst: int, names: Sequence[str]) -> tuple[str, tuple[int, int]]:
    """Why the IoU of a class is low (it is missed, or seen where it is not), and the confusion behind it."""
    missed, added = wrong[worst], wrong[:, worst]
    if int(missed.sum()) >= int(added.sum()):
        other, pair = int(missed.argmax()), (worst, int(missed.argmax()))
        share = int(missed.sum()) / int(confusion[worst].sum())
        said = f"{percent(share)} of it is taken for something else"
        often = int(missed[other]) / int(missed.sum())
    else:
        other, pair = int(added.argmax()), (int(added.argmax()), worst)
        share = int(added.sum()) / int(confusion[:, worst].sum())
        said = f"{percent(share)} of what it takes for {names[worst]} is something else"
        often = int(added[other]) / int(added.sum())
    return f"{said}, {'mostly' if often > 0.5 else 'most often'} {names[other]}.", pair


def _most_frequent(wrong: Tensor, names: Sequence[str], *, told: tuple[int, int]) -> list[str]:
    """The confusion with most pixels, unless it has been told."""
    place = int(wrong.argmax())
    pair = place // wrong.shape[1], place % wrong.shape[1]
    if pair == told:
        return []
    share = percent(int(wrong.max()) / int(wrong.sum()))
    return [f"Its most frequent error is {names[pair[0]]} taken for {names[pair[1]]}: {share} of all its wrong pixels."]
