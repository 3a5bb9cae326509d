"""Models that score how well an image fits a text (CLIP, SigLIP and their like), asked which class it fits best."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from mvcseg.errors import CheckpointError, ConfigError, VLMAnswerError
from mvcseg.vlm.client import check_images
from mvcseg.vlm.pretrained import read_pretrained, weights_digest
from mvcseg.vlm.prompt import spoken

PHOTO_TEMPLATE = "a photo of a {}"
"""The template that CLIP's authors propose where nothing more is known (arXiv 2103.00020, section 3.1.4)."""


class ZeroShotScorer:
    """A VLM that reads no question and writes no text: it names the choice whose description fits the images best.

    Every choice is put into every template; the model scores each image against each text; scores of one choice
    are averaged over templates and images, and a softmax over the choices makes them shares. The same images and
    choices always get the same answer. The prompt is not used, so ask with ``view="outline"`` or a crop: whatever
    fills the image is what is scored. No code that comes with a model is run.

    Args:
        folder: a folder as ``save_pretrained`` writes it, or a name on the Hugging Face hub, which is then
            downloaded (``hf://`` before it is allowed).
        template: texts with ``{}`` where the class name belongs, once.
        min_margin: how much larger than the second the best choice's share must be, in ``[0, 1]``. Two that score
            the same are undecided whatever it is.
        device: where it runs.
        dtype: of its weights; None keeps the file's.

    Raises:
        MissingExtraError: transformers is not installed.
        CheckpointError: nothing that can be read is there, no such model, or one that the device cannot hold; names it
            and says why.
        ConfigError: a template has not exactly one ``{}``, or the margin is outside ``[0, 1]``.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        template: str | Sequence[str] = PHOTO_TEMPLATE,
        min_margin: float = 0.0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        self._templates = (template,) if isinstance(template, str) else tuple(template)
        if not self._templates or any(text.count("{}") != 1 for text in self._templates):
            raise ConfigError(f"template: expected texts with {{}} in them once, got {template!r:.200}")
        if not 0 <= min_margin <= 1:
            raise ConfigError(f"min_margin: expected a share from 0 to 1, got {min_margin}")
        self.name = str(folder).removeprefix("hf://")
        kind = "model that scores images against texts"
        self._processor, model = read_pretrained("AutoModel", self.name, kind=kind, dtype=dtype, device=device)
        if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
            raise CheckpointError(f"{self.name}: expected a {kind}, such as CLIP or SigLIP, got {type(model).__name__}")
        self._weights = weights_digest(model)
        self._model: Any = model
        self._min_margin = min_margin
        self._device = torch.device(device)
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        """What answers depend on beside images and choices, as a text."""
        settings = f"{self._model.dtype} {list(self._templates)} min_margin={self._min_margin:g}"
        return f"zero-shot {self.name} {self._weights} {settings}"

    def __call__(self, images: Sequence[Tensor], prompt: str = "", /, *, choices: Sequence[str]) -> str:
        """The element of ``choices`` that fits best, as given; the prompt is not used.

        Raises:
            VLMAnswerError: the two best are closer than ``min_margin``, or the scores are no numbers, or the model
                could not be run on this.
            ConfigError: fewer than two choices, or no image.
            DTypeError: an image is not uint8.
            ShapeError: an image is not ``(3, H, W)``.
        """
        shares = self.shares(images, choices=choices)
        second, best = sorted(range(len(choices)), key=shares.__getitem__)[-2:]
        margin = shares[best] - shares[second]
        if margin < self._min_margin or margin == 0:
            scores = f"{choices[best]} {shares[best]:.1%}, {choices[second]} {shares[second]:.1%}"
            raise VLMAnswerError(
                f"undecided: {scores}, expected the first to lead by {self._min_margin:.1%} at least", answer=scores
            )
        return choices[best]

    def shares(self, images: Sequence[Tensor], *, choices: Sequence[str]) -> tuple[float, ...]:
        """How well each choice fits, as shares that add up to 1. Arguments and errors as in a call."""
        if len(choices) < 2 or not images:
            raise ConfigError(f"expected an image and at least two choices, got {len(images)} and {list(choices)}")
        pictures = [image.detach().cpu() for image in check_images(images)]
        texts = [template.replace("{}", spoken(name)) for template in self._templates for name in choices]
        # A tokenizer's padding is state of its own: two threads in it at once fail.
        with self._lock, torch.inference_mode():
            try:
                inputs = self._inputs(pictures, texts)
                scores = self._model(**inputs).logits_per_image
            except (RuntimeError, ValueError, AttributeError) as error:
                raise VLMAnswerError(f"{self.name}: {error}") from error
        by_template = scores.double().cpu().view(len(pictures), len(self._templates), len(choices))
        shares = by_template.mean(dim=(0, 1)).softmax(dim=0)
        if not shares.isfinite().all():
            raise VLMAnswerError(f"{self.name}: its scores are no finite numbers")
        return tuple(shares.tolist())

    def _inputs(self, pictures: list[Tensor], texts: list[str]) -> dict[str, Any]:
        # SigLIP was trained on lower-case texts padded on the right to the length of its window, reads the class off
        # the last position and attends to the padding. Fed otherwise it scores without an error, and wrongly.
        config = self._model.config
        is_siglip = config.model_type.startswith("siglip")
        padding: dict[str, Any] = {"padding": True}
        if is_siglip:
            texts = [text.lower() for text in texts]
            window = config.text_config.max_position_embeddings
            padding = {"padding": "max_length", "max_length": window}
            self._processor.tokenizer.padding_side = "right"  # no argument of every release's processor
        inputs = dict(self._processor(images=pictures, text=texts, return_tensors="pt", truncation=True, **padding))
        if is_siglip:
            inputs.pop("attention_mask", None)
        kinds = {name: self._model.dtype for name, value in inputs.items() if value.is_floating_point()}
        return {name: value.to(self._device, kinds.get(name)) for name, value in inputs.items()}
