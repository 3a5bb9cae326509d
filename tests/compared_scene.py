"""A clip with two regions of water, and models that say what they are told to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mvcseg.vlm import VLM, Comparison, Group, Usage, compare_vlms

NAMES = ["sky", "river", "lake", "sea"]
GROUPS = [Group("water", (1, 2, 3))]


def scene() -> tuple[Tensor, Tensor, Tensor]:
    """Video, labels and truth: a river of 120 pixels a frame taken for a lake, and a sea of 40 taken for the sea."""
    video = torch.randint(0, 256, (3, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(3, 16, 24, dtype=torch.uint8)
    labels[:, :, :10][:, 4:] = 2
    labels[:, 6:, 20:] = 3
    truth = labels.clone()
    truth[labels == 2] = 1
    truth[2] = 255
    return video, labels, truth


class Told:
    """Answers by the region's size: the larger one first, in the order asked; counts calls and tokens."""

    def __init__(self, *answers: str | Exception, tokens: tuple[int, int] | None = None, identity: str = "") -> None:
        self.answers, self.calls, self.seen = answers, 0, list[str]()
        self.tokens = tokens
        if tokens is not None:
            self.usage = Usage()
        if identity:
            self.identity = identity

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        answer = self.answers[self.calls % len(self.answers)]
        self.calls += 1
        self.seen.append(f"{prompt} {tuple(images[0].shape)}")
        if isinstance(answer, Exception):
            raise answer
        if self.tokens is not None:
            self.usage = self.usage + Usage(1, *self.tokens)
        return answer


def compared(vlms: dict[str, VLM], *, with_truth: bool = True, **options: object) -> Comparison:
    video, labels, truth = scene()
    return compare_vlms(
        video,
        labels,
        vlms=vlms,
        groups=GROUPS,
        class_names=NAMES,
        truth=truth if with_truth else None,
        flow=None,
        **options,  # type: ignore[arg-type]
    )
