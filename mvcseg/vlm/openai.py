"""Any server that speaks OpenAI's chat completions: OpenAI itself, vLLM, Ollama, llama.cpp and others."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor

from mvcseg.errors import ConfigError, VLMAnswerError, VLMUnavailableError
from mvcseg.shapes import check_positive
from mvcseg.vlm.chat import (
    LARGEST_BODY,
    OPENAI_URL,
    checked_key,
    checked_url,
    data_url,
    errors_of_a_body,
    open_client,
    text_of,
)
from mvcseg.vlm.client import check_images
from mvcseg.vlm.pace import LONGEST_WAIT, Pace, asked_wait, done_within, pause_after
from mvcseg.vlm.secrecy import KEY_VARIABLE, api_key, without_key
from mvcseg.vlm.structured import SchemaSupport, answer_in, choice_format, names_schema
from mvcseg.vlm.usage import Usage, UsageMeter, usage_of

_LOG = logging.getLogger(__name__)
_ROOM_TO_REASON = 4096
_LONGEST_MESSAGE = 4000
# What these say holds for every question: no right key, no such model, too many questions. Others are about one.
_ABOUT_ALL = (401, 402, 403, 404, 408, 409, 429)


class OpenAIVLM:
    """A model behind an OpenAI-compatible server.

    The key is read from ``OPENAI_API_KEY`` only; servers that need none get the word "none". It is removed from
    every answer and every error. Sent are the images, the question and the choices, and no other header than HTTP
    needs. Redirects are not followed, so they reach no other host.

    Args:
        model: the server's name for it.
        base_url: up to and including ``/v1``.
        timeout: seconds a try may take until the answer begins, and again until it has arrived.
        max_retries: further tries after a time-out, a lost connection, or status 408, 409, 429 or 500 and above. The
            server's ``Retry-After`` is honoured up to two minutes (a longer one is a failure), otherwise the wait
            doubles from half a second to eight. After 429 and 503 all calls of this object wait, not only the one.
        temperature: 0 for the likeliest answer; None leaves it out. A model that refuses it by name, as OpenAI's
            reasoning models do, is asked without it from then on.
        max_tokens: bound on the answer's length; None leaves it out. A model that refuses it by name gets
            ``max_completion_tokens`` from then on, with 4,096 for what it writes before it answers.
        structured_choice: ``"auto"`` asks for JSON that a schema confines to the choices or "unclear"; a server that
            refuses that while it answers the plain question is asked plainly from then on. True insists on it, False
            never does. What comes back is read the same way whatever was asked for.
        send_key: False keeps the key from this server, which gets the word "none".
        max_side: images are scaled down to this longer side, in pixels.
        image_format: how images are sent.
        extra_body: further fields of the request; a ``response_format`` there is sent instead of ours.

    Raises:
        MissingExtraError: the openai package is not installed.
        ConfigError: a URL with a user name, password or query (keys would travel in it) or a space, a number out of
            range, or OpenAI's own server without a key.
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
        structured_choice: Literal["auto"] | bool = "auto",
        send_key: bool = True,
        max_side: int = 1024,
        image_format: Literal["jpeg", "png"] = "jpeg",
        extra_body: Mapping[str, object] | None = None,
    ) -> None:
        if not model:
            raise ConfigError("model: expected the server's name of a model, got an empty text")
        if not 0 < timeout < float("inf") or max_retries < 0:
            raise ConfigError(f"timeout, max_retries: expected above 0 and at least 0, got {timeout} and {max_retries}")
        if image_format not in ("jpeg", "png"):
            raise ConfigError(f"image_format: expected 'jpeg' or 'png', got {image_format!r}")
        if structured_choice not in ("auto", True, False):
            raise ConfigError(f"structured_choice: expected 'auto', True or False, got {structured_choice!r}")
        check_positive(max_side=max_side, max_tokens=256 if max_tokens is None else max_tokens)
        self.model = model
        self.base_url = checked_url(base_url)
        self._key = api_key()  # hidden wherever it turns up, sent or not
        self._timeout = timeout
        self._max_retries = max_retries
        self._structured_choice = structured_choice
        self._max_side = max_side
        self._image_format: Literal["jpeg", "png"] = image_format
        self._options: dict[str, Any] = dict(extra_body or {})
        for name, value in (("temperature", temperature), ("max_tokens", max_tokens)):
            if value is not None:
                self._options.setdefault(name, value)
        sent_key = checked_key(is_needed=self.base_url == OPENAI_URL) if send_key else ""
        if self.base_url == OPENAI_URL and not send_key:
            raise ConfigError(f"send_key: {OPENAI_URL} needs the key in {KEY_VARIABLE}, got False")
        self._settings = {**self._options, "structured_choice": structured_choice, "max_side": max_side}
        self._adapting = threading.Lock()
        self._client = open_client(self.base_url, key=sent_key, timeout=timeout)
        self._schemas = SchemaSupport()
        self._pace = Pace()
        self._meter = UsageMeter()

    def __repr__(self) -> str:
        return f"OpenAIVLM(model={self.model!r}, base_url={self.base_url!r})"

    @property
    def identity(self) -> str:
        """What answers depend on beside images and question, as a text: model, server and options."""
        settings = json.dumps(self._settings, sort_keys=True, default=repr)
        return f"{self.model} at {self.base_url} {self._image_format} {settings}"

    @property
    def usage(self) -> Usage:
        """What the server reported so far, over all calls of this object."""
        return self._meter.total

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str] = ()) -> str:
        """The first answer's text; of an answer in JSON the class name in it, or "unclear".

        Raises:
            VLMAnswerError: no answer came, or none that is a text or the JSON asked for; says why.
            VLMUnavailableError: no answer came, and other questions would get none either.
            DTypeError: an image is not uint8.
            ShapeError: an image is not ``(3, H, W)``.
        """
        content: list[dict[str, object]] = [{"type": "text", "text": prompt}]
        for image in check_images(images):
            url = data_url(image, image_format=self._image_format, max_side=self._max_side)
            content.append({"type": "image_url", "image_url": {"url": url}})
        with self._failures():
            is_plain = self._structured_choice is False or self._schemas.is_refused or not choices
            if is_plain or "response_format" in self._options:
                text = self._text(content, {})
            else:
                text = self._text_by_schema(content, choices)
        return answer_in(without_key(text, key=self._key))

    def _text_by_schema(self, content: list[dict[str, object]], choices: Sequence[str]) -> str:
        import openai

        try:
            text = self._text(content, choice_format(choices))
        except openai.APIStatusError as error:
            if self._structured_choice is True or not self._schemas.may_be_refused(error.status_code, str(error)):
                raise
        else:
            self._schemas.is_proven |= text.lstrip().startswith("{")
            # Constrained to JSON that it was not told about, a model may write white space up to its bound.
            if text.strip() or self._structured_choice is True or self._schemas.is_proven:
                return text
        # Where the cause is another, the plain question fails likewise, and its error is the one to be seen.
        text = self._text(content, {})
        self._schemas.is_refused |= not self._schemas.is_proven
        return text

    def _text(self, content: list[dict[str, object]], form: Mapping[str, Any]) -> str:
        """The answer's text, after as many tries as it takes and may take."""
        import openai

        tries = 0
        while True:
            self._pace.wait()
            tries += 1
            options = {**self._options, **form}
            try:
                return text_of(self._parsed(content, options))
            except openai.APIStatusError as error:
                if self._leaves_out(error, sent=options):
                    continue
                pause = self._pause(error, tries=tries, is_structured=bool(form))
                if pause is None or tries > self._max_retries:
                    raise
                (self._pace.hold if error.status_code in (429, 503) else time.sleep)(pause)
            except (openai.APIConnectionError, TimeoutError):
                if tries > self._max_retries:
                    raise
                time.sleep(pause_after(tries))

    def _leaves_out(self, error: Any, *, sent: Mapping[str, Any]) -> bool:
        """Whether a model refuses by name what it was sent, and is asked without that from now on."""
        name = error.param
        if error.status_code != 400 or name not in ("temperature", "max_tokens") or name not in sent:
            return False
        with self._adapting:
            if name in self._options:
                options = {key: value for key, value in self._options.items() if key != name}
                self._options = options | ({"max_completion_tokens": _ROOM_TO_REASON} if name == "max_tokens" else {})
                _LOG.warning("%s refuses %s and is asked without it from now on", self.model, name)
        return True

    def _pause(self, error: Any, *, tries: int, is_structured: bool) -> float | None:
        """Seconds to wait before a further try; None where it would be no use."""
        status: int = error.status_code
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        may_change = status in (408, 409, 429) or status >= 500
        may_change &= error.code != "insufficient_quota" and headers.get("x-should-retry") != "false"
        may_change &= not (is_structured and names_schema(str(error)))
        pause = asked_wait(headers, now=time.time()) or pause_after(tries)
        return pause if may_change and pause <= LONGEST_WAIT else None

    def _parsed(self, content: list[dict[str, object]], options: dict[str, Any]) -> object:
        """The answer's body as JSON, of one try; what it cost is added up."""
        try:
            body = done_within(lambda: self._body(content, options), seconds=2 * self._timeout + 1)
            answer: object = json.loads(body)
        except VLMAnswerError:
            self._meter.add(usage_of(None))
            raise
        except (ValueError, RecursionError):
            self._meter.add(usage_of(None))
            raise VLMAnswerError("the server's answer is no JSON") from None
        self._meter.add(usage_of(answer))
        return answer

    def _body(self, content: list[dict[str, object]], options: dict[str, Any]) -> bytes:
        """The body of the answer, read piece by piece: the SDK bounds neither its size nor its whole duration."""
        messages: Any = [{"role": "user", "content": content}]
        create = self._client.chat.completions.with_streaming_response.create
        with create(model=self.model, messages=messages, extra_body=options) as response:
            deadline, body = time.monotonic() + self._timeout, bytearray()
            try:
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > LARGEST_BODY:
                        raise VLMAnswerError(f"the server's answer is longer than {LARGEST_BODY:,} bytes")
                    if time.monotonic() > deadline:
                        raise VLMAnswerError(f"no whole answer within {self._timeout:g} s")
            except errors_of_a_body() as error:
                raise VLMAnswerError(f"the answer broke off: {self._shown(error)}") from None
            return bytes(body)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Errors of the connection, told in our own words and without the key."""
        import openai

        try:
            yield
        except VLMAnswerError as error:  # may quote what the model said
            raise VLMAnswerError(self._shown(error), answer=without_key(error.answer, key=self._key)) from None
        except (openai.APITimeoutError, TimeoutError):
            raise VLMUnavailableError(f"no answer within {self._timeout:g} s from {self.base_url}") from None
        except openai.APIStatusError as error:
            is_for_all = error.status_code in _ABOUT_ALL or not 400 <= error.status_code < 500
            kind = VLMUnavailableError if is_for_all else VLMAnswerError
            raise kind(f"the server refused: HTTP {error.status_code}: {self._shown(error)}") from None
        except openai.APIConnectionError as error:
            reason = self._shown(error.__cause__ or error)
            raise VLMUnavailableError(f"no connection to {self.base_url}: {reason}") from None

    def _shown(self, error: BaseException) -> str:
        text = str(error) or type(error).__name__
        return without_key(text[:_LONGEST_MESSAGE], key=self._key)
