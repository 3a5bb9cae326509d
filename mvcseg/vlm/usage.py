"""What a server says its answers cost, added up."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

_MOST_TOKENS = 10_000_000


@dataclass(frozen=True)
class Usage:
    """Running totals of a client.

    Attributes:
        requests: answers that came, whatever was in them; an attempt that failed or was tried again is not counted.
        prompt_tokens: tokens of questions and images, as the server counted them.
        completion_tokens: tokens of the answers.
        unreported: requests whose answer did not say; the tokens above are without these.

    Example:
        >>> Usage(requests=1, prompt_tokens=800, completion_tokens=2) + Usage(requests=1, unreported=1)
        Usage(requests=2, prompt_tokens=800, completion_tokens=2, unreported=1)
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unreported: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.unreported + other.unreported,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.requests - other.requests,
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
            self.unreported - other.unreported,
        )


class UsageMeter:
    """Adds up usage from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = Usage()

    @property
    def total(self) -> Usage:
        """All that was added so far."""
        with self._lock:
            return self._total

    def add(self, usage: Usage) -> None:
        """Add one answer's usage."""
        with self._lock:
            self._total = self._total + usage


def usage_of(answer: object) -> Usage:
    """The usage of one chat completion, as its parsed body reports it.

    A body without counts, or with counts that no answer can have (negative, a fraction, a text, beyond ten million),
    counts as one unreported request.

    Example:
        >>> usage_of({"usage": {"prompt_tokens": 800, "completion_tokens": 2, "total_tokens": 802}})
        Usage(requests=1, prompt_tokens=800, completion_tokens=2, unreported=0)
        >>> usage_of({"usage": {"prompt_tokens": -1, "completion_tokens": 2}})
        Usage(requests=1, prompt_tokens=0, completion_tokens=0, unreported=1)
    """
    reported = answer.get("usage") if isinstance(answer, Mapping) else None
    if isinstance(reported, Mapping):
        asked, said = reported.get("prompt_tokens"), reported.get("completion_tokens")
        if _is_count(asked) and _is_count(said):
            return Usage(requests=1, prompt_tokens=asked, completion_tokens=said)
    return Usage(requests=1, unreported=1)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
