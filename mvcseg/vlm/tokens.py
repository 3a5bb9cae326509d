"""What a question would cost, estimated before anything is asked.

Servers count images each in their own way; the rule here is the one OpenAI documents for GPT-4o and GPT-4.1: an image
that does not fit 2048 pixels square, or whose shorter side exceeds 768, is scaled down until it does; every 512-pixel
tile it then touches costs 170 tokens, and the image 85 besides. Text is taken at four bytes of UTF-8 a token, which
OpenAI gives as the average of English. How far other models are from this is tabulated in docs/vlm.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from mvcseg.errors import ConfigError
from mvcseg.shapes import check_positive

ANSWER_TOKENS = 16
"""Tokens of an answer as these questions get it: a sentence, or one class name in JSON. A model that thinks aloud, or
reasons before it answers, writes up to its bound instead."""
_LARGEST_SIDE = 2048
_SHORTER_SIDE = 768
_TILE = 512
_TOKENS_PER_TILE = 170
_TOKENS_PER_IMAGE = 85
_BYTES_PER_TOKEN = 4
_TOKENS_PER_REQUEST = 10  # the message's frame: role, separators, start of the answer


def estimate_tokens(sizes: Sequence[tuple[int, int]], text: str, *, max_side: int = 1024) -> int:
    """Estimated prompt tokens of one call that sends images and a text.

    Args:
        sizes: height and width of every image, in pixels.
        text: the question.
        max_side: images are first scaled down to this longer side, as `OpenAIVLM` does before it sends them.

    Raises:
        ConfigError: a size is below one pixel, or no pair.

    Source: OpenAI, "Images and vision", section "Calculating costs".

    Example:
        >>> estimate_tokens([(1024, 1024)], "", max_side=2048)  # OpenAI's own example: 4 tiles, 765 tokens, and 10
        775
        >>> estimate_tokens([(480, 853)], "Is the water in the image a river, lake, sea?")
        447
    """
    check_positive(max_side=max_side)
    written = -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)
    return _TOKENS_PER_REQUEST + written + sum(_image_tokens(size, max_side=max_side) for size in sizes)


def _image_tokens(size: tuple[int, int], *, max_side: int) -> int:
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"sizes: expected height and width in pixels, got {size}")
    height, width = size
    scale = min(1.0, max_side / max(size), _LARGEST_SIDE / max(size))
    scale = min(scale, _SHORTER_SIDE / min(size))
    tiles = 1
    for side in (height, width):
        tiles *= -(-max(1, round(side * scale)) // _TILE)
    return _TOKENS_PER_IMAGE + _TOKENS_PER_TILE * tiles
