"""Any server that speaks OpenAI's chat completions: OpenAI itself, vLLM, Ollama, llama.cpp and others."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import io
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from torch import Tensor

from mvcseg.errors import ConfigError, MissingExtraError, VLMAnswerError, VLMUnavailableError
from mvcseg.shapes import check_positive
from mvcseg.vlm.client import check_images
from mvcseg.vlm.secrecy import KEY_VARIABLE, api_key, without_key

if TYPE_CHECKING:
    import openai

OPENAI_URL = "https://api.openai.com/v1"
_LARGEST_BODY = 1_000_000
_LONGEST_MESSAGE = 4000
_REFUSES_ALL = (401, 402, 403, 404, 407, 408, 409, 425, 429)
"""Statuses that say nothing about the question: key, money, model or pace."""


class OpenAIVLM:
    """A model behind an OpenAI-compatible server.

    The key is read from ``OPENAI_API_KEY`` only; servers that need none get the word "none". It is removed from
    every answer and every error. Sent are the images, the question and, where asked for, the choices. Redirects are
    not followed, so they reach no other host.

    Args:
        model: the server's name for it.
        base_url: up to and including ``/v1``.
        timeout: seconds a try may take until the answer begins, and again until it has arrived.
        max_retries: further tries after a time-out, a lost connection, or status 408, 409, 429 or 500 and above. The
            server's ``Retry-After`` is honoured up to two minutes (a longer one is a failure), otherwise the wait
            doubles from half a second.
        temperature: 0 for the likeliest answer; None leaves it out (some models refuse it).
        max_tokens: bound on the answer's length; None leaves it out (some models refuse it).
        structured_choice: make a vLLM server answer with one of the choices and nothing else. Servers that do not
            know ``structured_outputs`` ignore it or refuse it.
        max_side: images are scaled down to this longer side, in pixels.
        image_format: how images are sent.
        extra_body: further fields of the request.

    Raises:
        MissingExtraError: the openai package is not installed.
        ConfigError: a URL with a user name, password or query (keys would travel in it), a number out of range, or
            OpenAI's own server without a key.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str = OPENAI_URL,
        timeout: float = 60.0,
        max_retries: int = 3,
        temperature: float | None = 0.0,
        max_tokens: int | None = 256,
        structured_choice: bool = False,
        max_side: int = 1024,
        image_format: Literal["jpeg", "png"] = "jpeg",
        extra_body: Mapping[str, object] | None = None,
    ) -> None:
        if not model:
            raise ConfigError("model: expected the server's name of a model, got an empty text")
        if not timeout > 0 or max_retries < 0:
            raise ConfigError(f"timeout, max_retries: expected above 0 and at least 0, got {timeout} and {max_retries}")
        if image_format not in ("jpeg", "png"):
            raise ConfigError(f"image_format: expected 'jpeg' or 'png', got {image_format!r}")
        check_positive(max_side=max_side, max_tokens=256 if max_tokens is None else max_tokens)
        self.model = model
        self.base_url = _checked_url(base_url)
        self._key = _checked_key(is_needed=self.base_url == OPENAI_URL)
        self._timeout = timeout
        self._structured_choice = structured_choice
        self._max_side = max_side
        self._image_format: Literal["jpeg", "png"] = image_format
        self._options: dict[str, Any] = dict(extra_body or {})
        for name, value in (("temperature", temperature), ("max_tokens", max_tokens)):
            if value is not None:
                self._options.setdefault(name, value)
        self._client = _client(self.base_url, key=self._key, timeout=timeout, max_retries=max_retries)

    def __repr__(self) -> str:
        return f"OpenAIVLM(model={self.model!r}, base_url={self.base_url!r})"

    @property
    def identity(self) -> str:
        """What answers depend on beside images and question, as a text: model, server and options."""
        settings = {**self._options, "structured_choice": self._structured_choice, "max_side": self._max_side}
        return (
            f"{self.model} at {self.base_url} {self._image_format} {json.dumps(settings, sort_keys=True, default=repr)}"
        )

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str] = ()) -> str:
        """The first answer's text.

        Raises:
            VLMUnavailableError: nobody answered, or the server refuses the key, the model or further questions.
            VLMAnswerError: no answer came to this question, or none that is a text; says why.
            DTypeError: an image is not uint8.
            ShapeError: an image is not ``(3, H, W)``.
        """
        content: list[dict[str, object]] = [{"type": "text", "text": prompt}]
        for image in check_images(images):
            url = _data_url(image, image_format=self._image_format, max_side=self._max_side)
            content.append({"type": "image_url", "image_url": {"url": url}})
        options = dict(self._options)
        if self._structured_choice and choices:
            options["structured_outputs"] = {"choice": list(choices)}
        return without_key(_text_of(self._body(content, options)), key=self._key)

    def _body(self, content: list[dict[str, object]], options: dict[str, Any]) -> bytes:
        """The body of the answer, read piece by piece: the SDK bounds neither its size nor its whole duration."""
        import openai

        messages: Any = [{"role": "user", "content": content}]
        create = self._client.chat.completions.with_streaming_response.create
        try:
            with create(model=self.model, messages=messages, extra_body=options) as response:
                deadline, body = time.monotonic() + self._timeout, bytearray()
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > _LARGEST_BODY:
                        raise VLMAnswerError(f"the server's answer is longer than {_LARGEST_BODY:,} bytes")
                    if time.monotonic() > deadline:
                        raise VLMUnavailableError(f"no whole answer within {self._timeout:g} s")
                return bytes(body)
        except openai.APITimeoutError:
            raise VLMUnavailableError(f"no answer within {self._timeout:g} s from {self.base_url}") from None
        except openai.APIStatusError as error:
            is_about_all = error.status_code in _REFUSES_ALL or error.status_code >= 500
            kind = VLMUnavailableError if is_about_all else VLMAnswerError
            raise kind(f"the server refused: HTTP {error.status_code}: {self._shown(error)}") from None
        except openai.APIConnectionError as error:
            reason = self._shown(error.__cause__ or error)
            raise VLMUnavailableError(f"no connection to {self.base_url}: {reason}") from None
        except _errors_of_a_body() as error:
            raise VLMAnswerError(f"the answer broke off: {self._shown(error)}") from None

    def _shown(self, error: BaseException) -> str:
        text = str(error) or type(error).__name__
        return without_key(text[:_LONGEST_MESSAGE], key=self._key)


def _checked_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        is_plain = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        is_plain = False
    if not is_plain or parts.username or parts.password or parts.query or parts.fragment:
        # What was got is not shown: it may hold a key.
        raise ConfigError(
            "base_url: expected http(s)://host[:port]/v1 without user name, password or query, got something else; "
            f"a key comes from {KEY_VARIABLE} only"
        )
    return base_url.rstrip("/")


def _checked_key(*, is_needed: bool) -> str:
    key = api_key()
    if is_needed and not key:
        raise ConfigError(f"{KEY_VARIABLE}: {OPENAI_URL} needs a key in this environment variable, got none")
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{KEY_VARIABLE}: expected printable ASCII, got other characters (pasted with a line break?)")
    return key


def _client(base_url: str, *, key: str, timeout: float, max_retries: int) -> openai.OpenAI:
    if importlib.util.find_spec("openai") is None:
        raise MissingExtraError.for_package("openai", extra="vlm")
    import openai

    return openai.OpenAI(
        api_key=key or "none",
        base_url=base_url,
        timeout=timeout,
        max_retries=max_retries,
        http_client=openai.DefaultHttpxClient(follow_redirects=False),
    )


def _errors_of_a_body() -> tuple[type[Exception], ...]:
    """What a body that breaks off raises: the SDK wraps it or not, and its transport differs between releases."""
    import openai

    present = [name for name in ("httpx", "httpx2") if importlib.util.find_spec(name) is not None]
    errors: list[type[Exception]] = [importlib.import_module(name).HTTPError for name in present]
    return (openai.OpenAIError, *errors)


def _data_url(image: Tensor, *, image_format: Literal["jpeg", "png"], max_side: int) -> str:
    from PIL import Image

    picture = Image.fromarray(image.detach().cpu().permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if image_format == "jpeg":
        picture.save(buffer, "JPEG", quality=90, subsampling=0)
    else:
        picture.save(buffer, "PNG")
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _text_of(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise VLMAnswerError("the server's answer is no JSON") from None
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise VLMAnswerError("the server's answer holds no choices[0].message.content") from None
    if not isinstance(text, str):
        raise VLMAnswerError(f"the answer holds no text (finish reason {choice.get('finish_reason')!r:.80})")
    return text
