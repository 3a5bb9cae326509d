"""The parts of a chat completion: where it is sent and with what, images as text, and the answer in the body."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import io
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from torch import Tensor

from mvcseg.errors import ConfigError, MissingExtraError, VLMAnswerError
from mvcseg.vlm.secrecy import KEY_VARIABLE, api_key

if TYPE_CHECKING:
    import openai

OPENAI_URL = "https://api.openai.com/v1"
LARGEST_BODY = 1_000_000
"""Bytes of an answer, or of a refusal, that are read."""
_SENT_HEADERS = frozenset(
    {"host", "connection", "accept", "accept-encoding", "content-type", "content-length", "authorization", "user-agent"}
)
# Says nothing of the user, and the SDK reads it again when it builds its answer.
_SDK_HEADERS = frozenset({"x-stainless-raw-response"})
_OPENAI_HEADERS = frozenset({"openai-organization", "openai-project"})
_LONGEST_REFUSAL = 200
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")  # a name or address, not in brackets
_UNWANTED = frozenset(" @?#\\")


def checked_url(base_url: str) -> str:
    """The URL without a slash at its end.

    Raises:
        ConfigError: it is no plain http or https URL.
    """
    try:
        parts = urlsplit(base_url)
        is_plain = parts.scheme in ("http", "https") and parts.port != 0
        is_plain &= _HOST.fullmatch((parts.hostname or "").encode("idna").decode("ascii")) is not None
    except ValueError:
        is_plain = False
    # urlsplit drops line breaks and tabs; in a client they are an error of another kind, or part of another URL.
    is_plain = is_plain and base_url.isprintable() and not _UNWANTED & set(base_url) and parts.path.isascii()
    if not is_plain:
        # What was got is not shown: it may hold a key.
        raise ConfigError(
            "base_url: expected http(s)://host[:port]/v1 without user name, password, query or space, got something "
            f"else; a key comes from {KEY_VARIABLE} only"
        )
    return base_url.rstrip("/")


def checked_key(*, is_needed: bool) -> str:
    """The key in the environment, or an empty text.

    Raises:
        ConfigError: it is needed and not there, or holds what no header may.
    """
    key = api_key()
    if is_needed and not key:
        raise ConfigError(f"{KEY_VARIABLE}: {OPENAI_URL} needs a key in this environment variable, got none")
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{KEY_VARIABLE}: expected printable ASCII, got other characters (pasted with a line break?)")
    return key


def open_client(base_url: str, *, key: str, timeout: float) -> openai.OpenAI:
    """A client that tries once, follows no redirect and sends no header that HTTP does not need.

    The SDK would also send the operating system, Python's version and whatever ``OPENAI_CUSTOM_HEADERS`` and other
    variables hold, to any server; organisation and project go to OpenAI's alone. It would also read the body of a
    refusal to its end, if it had one; here that ends after `LARGEST_BODY` bytes or ``timeout`` seconds, and where it
    breaks off the status still counts.

    Raises:
        MissingExtraError: the openai package is not installed.
        ConfigError: it cannot be made of this URL, or of the proxies and certificates that the environment names.
    """
    if importlib.util.find_spec("openai") is None:
        raise MissingExtraError.for_package("openai", extra="vlm")
    import openai

    kept = _SENT_HEADERS | _SDK_HEADERS | (_OPENAI_HEADERS if base_url == OPENAI_URL else frozenset())

    def keep_headers(request: Any) -> None:
        for name in [name for name in request.headers if name.lower() not in kept]:
            del request.headers[name]
        request.headers["Authorization"] = f"Bearer {key or 'none'}"

    def bound_body(response: Any) -> None:
        if not response.is_success:
            response.iter_bytes = _beginning(response, response.iter_bytes, seconds=timeout, most=LARGEST_BODY)
        # What decompresses to nothing is no piece to whoever reads the answer, and has no end for them.
        response.iter_raw = _until(response.iter_raw, seconds=2 * timeout)

    hooks: dict[str, list[Callable[..., Any]]] = {"request": [keep_headers], "response": [bound_body]}
    try:
        return openai.OpenAI(
            api_key=key or "none",
            base_url=base_url,
            timeout=timeout,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(follow_redirects=False, event_hooks=hooks),
        )
    # A URL of another kind is an Exception of its transport, and so differs between releases.
    except Exception as error:
        raise ConfigError(  # its text is not shown: a proxy's URL may hold a password
            "base_url: expected a URL, and proxies and certificates in the environment (HTTPS_PROXY, ALL_PROXY, "
            f"SSL_CERT_FILE), that the HTTP client takes, got {type(error).__name__} from it"
        ) from None


def _beginning(
    response: Any, pieces_of: Callable[..., Iterator[bytes]], *, seconds: float, most: int
) -> Callable[..., Iterator[bytes]]:
    """A method of a response that gives its body as far as it comes within so many seconds and bytes."""

    def pieces(chunk_size: int | None = None) -> Iterator[bytes]:
        left = most
        with closing(response), suppress(*errors_of_a_body()):
            for piece in _until(pieces_of, seconds=seconds)(chunk_size):
                yield piece[:left]
                left -= len(piece)
                if left <= 0:
                    return

    return pieces


def _until(pieces_of: Callable[..., Iterator[bytes]], *, seconds: float) -> Callable[..., Iterator[bytes]]:
    """The same method, of which no more comes after so many seconds from now."""
    deadline = time.monotonic() + seconds

    def pieces(chunk_size: int | None = None) -> Iterator[bytes]:
        for piece in pieces_of(chunk_size):
            yield piece
            if time.monotonic() > deadline:
                return

    return pieces


def errors_of_a_body() -> tuple[type[Exception], ...]:
    """What a body that breaks off raises: the SDK wraps it or not, and its transport differs between releases."""
    import openai

    present = [name for name in ("httpx", "httpx2") if importlib.util.find_spec(name) is not None]
    errors: list[type[Exception]] = [importlib.import_module(name).HTTPError for name in present]
    return (openai.OpenAIError, *errors)


def data_url(image: Tensor, *, image_format: Literal["jpeg", "png"], max_side: int) -> str:
    """A uint8 RGB ``(3, H, W)`` image as a ``data:`` URL, scaled down to ``max_side`` where it is larger."""
    from PIL import Image

    picture = Image.fromarray(image.detach().cpu().permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if image_format == "jpeg":
        picture.save(buffer, "JPEG", quality=90, subsampling=0)
    else:
        picture.save(buffer, "PNG")
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def text_of(answer: Any) -> str:
    """The text of the first choice of a parsed chat completion.

    Raises:
        VLMAnswerError: there is none; says what the server gives as the reason.
    """
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        text = message["content"]
    except (KeyError, IndexError, TypeError):
        raise VLMAnswerError("the server's answer holds no choices[0].message.content") from None
    if isinstance(text, str):
        return text
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        raise VLMAnswerError(f"the model refuses: {refusal[:_LONGEST_REFUSAL]}", answer=refusal)
    raise VLMAnswerError(f"the answer holds no text (finish reason {choice.get('finish_reason')!r:.80})")
