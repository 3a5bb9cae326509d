"""Image-text models (LLaVA and others) run here, through transformers' auto classes."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from mvcseg.errors import CheckpointError, MissingExtraError, VLMAnswerError
from mvcseg.shapes import check_positive
from mvcseg.vlm.client import check_images

_PLAIN_PROMPT = "USER: {images}\n{prompt} ASSISTANT:"


class LocalVLM:
    """A model read by ``AutoModelForImageTextToText`` and ``AutoProcessor``.

    Answers are the likeliest words (no sampling), so the same question gets the same answer. The prompt goes
    through the processor's chat template; a processor without one gets LLaVA-1.5's plain form. ``choices`` are not
    used. No code that comes with a model is run.

    Args:
        path_or_name: a folder as ``save_pretrained`` writes it, or a name on the Hugging Face hub, which is
            then downloaded (``hf://`` before it is allowed).
        device: where it runs.
        dtype: of its weights; None keeps the file's.
        max_new_tokens: bound on the answer's length.

    Raises:
        MissingExtraError: transformers is not installed.
        CheckpointError: nothing that can be read is there; names it and says why.
    """

    def __init__(
        self,
        path_or_name: str | PathLike[str],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        max_new_tokens: int = 64,
    ) -> None:
        if importlib.util.find_spec("transformers") is None:
            raise MissingExtraError.for_package("transformers", extra="hf")
        import transformers

        check_positive(max_new_tokens=max_new_tokens)
        self.name = str(path_or_name).removeprefix("hf://")
        self._max_new_tokens = max_new_tokens
        try:
            self._processor: Any = transformers.AutoProcessor.from_pretrained(self.name)
            # Renamed in transformers 5, which also reads the old name but warns.
            argument = "torch_dtype" if transformers.__version__.startswith("4.") else "dtype"
            kind = {argument: "auto" if dtype is None else dtype}
            model: Any = transformers.AutoModelForImageTextToText.from_pretrained(self.name, **kind)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{self.name}: no image-text model can be read: {reason}") from error
        self._model = model.to(device).eval()
        self._device = torch.device(device)
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        """What answers depend on beside images and question, as a text."""
        return f"local {self.name} {self._model.dtype} max_new_tokens={self._max_new_tokens}"

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str] = ()) -> str:
        """The answer, without the question.

        Raises:
            VLMAnswerError: the model could not be run on this (out of memory, too many tokens).
            DTypeError: an image is not uint8.
            ShapeError: an image is not ``(3, H, W)``.
        """
        pictures = [image.detach().cpu() for image in check_images(images)]
        # Generation is one at a time whatever the caller's threads: one model, one set of caches.
        with self._lock, torch.inference_mode():
            try:
                inputs = self._processor(
                    images=pictures or None, text=self._text(prompt, len(pictures)), return_tensors="pt"
                ).to(self._device)
                if "pixel_values" in inputs:
                    inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
                tokens = self._model.generate(**inputs, do_sample=False, max_new_tokens=self._max_new_tokens)
            except (RuntimeError, ValueError) as error:
                raise VLMAnswerError(f"{self.name}: {error}") from error
        new_tokens = tokens[:, inputs["input_ids"].shape[1] :]
        answer: str = self._processor.batch_decode(new_tokens, skip_special_tokens=True)[0]
        return answer.strip()

    def _text(self, prompt: str, count: int) -> str:
        if getattr(self._processor, "chat_template", None):
            content: list[dict[str, str]] = [{"type": "image"}] * count + [{"type": "text", "text": prompt}]
            messages = [{"role": "user", "content": content}]
            text: str = self._processor.apply_chat_template(messages, add_generation_prompt=True)
            return text
        image_token = getattr(self._processor, "image_token", "<image>")
        return _PLAIN_PROMPT.format(images=image_token * count, prompt=prompt)
