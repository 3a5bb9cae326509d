"""Which runs the study makes, with what numbers, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

MODELS = ("frame", "compact", "dvis")
PARTS = ("main", "chain", "variations")
METHODS = ("plain", "mvc", "plain-twice")
"""Plain training, masked video consistency, and plain training for as much computing as the latter costs."""


@dataclass(frozen=True)
class Mask:
    """The numbers of MVC: cell side in pixels, share hidden, lambda of Eq. 4."""

    patch_size: int = 16
    ratio: float = 0.5
    weight: float = 1.0

    def __str__(self) -> str:
        return f"p{self.patch_size}-r{self.ratio:g}-w{self.weight:g}"


CENTRE = Mask()
"""Around which the numbers are varied. MIC hides cells of 32 pixels at crops of 512; the crops here are smaller."""
VARIATIONS = (
    replace(CENTRE, patch_size=8),
    replace(CENTRE, patch_size=32),
    replace(CENTRE, ratio=0.25),
    replace(CENTRE, ratio=0.75),
    replace(CENTRE, weight=0.5),
    replace(CENTRE, weight=2.0),
)


@dataclass(frozen=True)
class Job:
    """One thing that is measured once: a training run with its scores, or what is done with a pair of trained models.

    Attributes:
        model: of ``MODELS``.
        method: of ``METHODS``, or "chain": votes and choices of the plain and the MVC model of this seed.
        seed: of weights, clips and masks.
        mask: of MVC; None for plain training.
    """

    model: str
    method: str
    seed: int
    mask: Mask | None = None

    @property
    def name(self) -> str:
        """Its key among the results."""
        method = self.method if self.mask is None else f"{self.method}-{self.mask}"
        return f"{self.model}/{method}/seed{self.seed}"


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: the same for plain training and for MVC."""

    steps: int
    learning_rate: float
    batch_size: int = 4
    clip_length: int = 2
    warm_up: int = 20
    tracker_steps: int = 0
    tracker_clip_length: int = 3


@dataclass(frozen=True)
class Size:
    """A size of the whole study.

    Attributes:
        shrink: by which the sides of CamVid's 360 x 480 frames are divided.
        crop_size: (height, width) of training clips in pixels.
        recipes: by model.
        seeds: of the main comparison.
        variation_seeds: of the runs with other mask numbers.
        frames: frames of each val video that are scored; None for all.
    """

    shrink: int
    crop_size: tuple[int, int]
    recipes: dict[str, Recipe]
    seeds: int = 5
    variation_seeds: int = 3
    frames: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


SIZES = {
    "small": Size(
        shrink=2,
        crop_size=(128, 160),
        recipes={
            "frame": Recipe(steps=60, learning_rate=1e-4),
            "compact": Recipe(steps=400, learning_rate=1e-3, batch_size=2),
            "dvis": Recipe(steps=300, learning_rate=5e-4, batch_size=2, tracker_steps=100),
        },
    ),
    "large": Size(
        shrink=1,
        crop_size=(320, 448),
        recipes={
            "frame": Recipe(steps=2000, learning_rate=2e-4, batch_size=8),
            "compact": Recipe(steps=20000, learning_rate=2e-3, batch_size=8, warm_up=500),
            "dvis": Recipe(steps=10000, learning_rate=3e-4, batch_size=8, warm_up=500, tracker_steps=5000),
        },
    ),
    "tiny": Size(
        shrink=4,
        crop_size=(64, 64),
        recipes={model: Recipe(steps=2, learning_rate=1e-3, batch_size=1, tracker_steps=1) for model in MODELS},
        seeds=2,
        variation_seeds=1,
        frames=18,
    ),
}
"""By name: what docs/results.md shows, one for a CUDA device, and one that only shows that everything runs."""


def jobs(size: Size, *, models: Sequence[str] = MODELS, parts: Sequence[str] = PARTS) -> Iterator[Job]:
    """All jobs, seed after seed, so that every comparison exists once before any is repeated."""
    dvis = [model for model in models if model == "dvis"]
    others = [model for model in models if model != "dvis"]
    if "main" in parts:
        for group in (others, dvis):
            for seed in range(size.seeds):
                for model in group:
                    yield from _comparison(model, seed)
    for seed in range(size.seeds):
        if "chain" in parts:
            yield from (Job(model, "chain", seed) for model in models)
        if "variations" in parts and "compact" in models and seed < size.variation_seeds:
            yield from (Job("compact", "mvc", seed, mask) for mask in VARIATIONS)


def _comparison(model: str, seed: int) -> Iterator[Job]:
    yield Job(model, "plain", seed)
    yield Job(model, "mvc", seed, CENTRE)
    yield Job(model, "plain-twice", seed)
