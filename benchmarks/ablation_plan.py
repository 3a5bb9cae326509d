"""Which runs the study makes, with what numbers, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

MODELS = ("frame", "compact", "dvis")
PARTS = ("main", "chain", "variations", "length")
LONG = "-long"
"""Ends the name of a model that is trained four times as long."""
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
        model: of ``MODELS``, or one of them with ``LONG`` behind it.
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
    batch_size: int = 2
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
        fewer_seeds: of the runs with other mask numbers and of the longer ones.
        frames: frames of each val video that are scored; None for all.
    """

    shrink: int
    crop_size: tuple[int, int]
    recipes: dict[str, Recipe]
    seeds: int = 5
    fewer_seeds: int = 3
    frames: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


SIZES = {
    "small": Size(
        shrink=2,
        crop_size=(96, 128),
        recipes={
            "frame": Recipe(steps=100, learning_rate=1e-4),
            "compact": Recipe(steps=400, learning_rate=1e-3),
            "dvis": Recipe(steps=240, learning_rate=1e-3, batch_size=1, tracker_steps=80),
            "frame-long": Recipe(steps=400, learning_rate=1e-4),
            "compact-long": Recipe(steps=1600, learning_rate=1e-3),
            "dvis-long": Recipe(steps=960, learning_rate=1e-3, batch_size=1, tracker_steps=320),
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
        fewer_seeds=1,
        frames=18,
    ),
}
"""By name: what docs/results.md shows, one for a CUDA device, and one that only shows that everything runs."""


def jobs(size: Size, *, models: Sequence[str] = MODELS, parts: Sequence[str] = PARTS) -> Iterator[Job]:
    """All jobs: what matters most first, and each part seed after seed, so that it exists once before any repeat."""
    seeds = range(size.seeds)
    slow = [model for model in models if model == "dvis"]
    others = [model for model in models if model != "dvis"]
    if "main" in parts:
        for seed in seeds:
            for model in models:
                yield Job(model, "plain", seed)
                yield Job(model, "mvc", seed, CENTRE)
                if model in others:
                    yield Job(model, "plain-twice", seed)
    for seed in seeds:
        if "chain" in parts:
            yield from (Job(model, "chain", seed) for model in others)
        if "variations" in parts and "compact" in models and seed < size.fewer_seeds:
            yield from (Job("compact", "mvc", seed, mask) for mask in VARIATIONS)
    if "main" in parts:
        yield from (Job(model, "plain-twice", seed) for seed in seeds for model in slow)
    longer = [model + LONG for model in models if model + LONG in size.recipes and "length" in parts]
    for seed in range(size.fewer_seeds):
        for model in longer:
            yield Job(model, "plain", seed)
            yield Job(model, "mvc", seed, CENTRE)
