"""Image-text models (LLaVA and others) run here, through transformers' auto classes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from mvcseg.errors import VLMAnswerError
from mvcseg.shapes import check_positive
from mvcseg.vlm.client import check_images
from mvcseg.vlm.pretrained import read_pretrained, weights_digest

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
        CheckpointError: nothing that can be read is there, or the device cannot hold it; names it and says why.
    """

    def __init__(
        self,
        path_or_name: str | PathLike[str],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        max_new_tokens: int = 64,
    ) -> None:
        check_positive(max_new_tokens=max_new_tokens)
        self.name = str(path_or_name).removeprefix("hf://")
        self._max_new_tokens = max_new_tokens
        self._processor, model = read_pretrained(
            "AutoModelForImageTextToText", self.name, kind="image-text model", dtype=dtype, device=device
        )
        self._weights = weights_digest(model)
        self._model: Any = model
        self._device = torch.device(device)
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        """What answers depend on beside images and question, as a text."""
        return f"local {self.name} {self._weights} {self._model.dtype} max_new_tokens={self._max_new_tokens}"

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
                text = self._text(prompt, len(pictures))
                options = {"add_special_tokens": False} if self._is_started(text) else {}
                inputs = self._processor(images=pictures or None, text=text, return_tensors="pt", **options)
                inputs = inputs.to(self._device)
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
            text: str = self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            return text
        image_token = getattr(self._processor, "image_token", "<image>")
        return _PLAIN_PROMPT.format(images=image_token * count, prompt=prompt)

    def _is_started(self, text: str) -> bool:
        """Whether a chat template wrote the token that begins every text; the tokenizer would write it again."""
        start: str = getattr(getattr(self._processor, "tokenizer", None), "bos_token", None) or ""
        return start != "" and text.startswith(start)
