"""Answers kept on disk, so that no question is paid for twice and a run that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from torch import Tensor

from mvcseg.data.files import read_json, shown, write_json
from mvcseg.errors import ConfigError, DataError, VLMAnswerError, VLMUnavailableError
from mvcseg.vlm.client import VLM, images_digest
from mvcseg.vlm.usage import Usage

_LOG = logging.getLogger(__name__)
_FORMAT = 1


class CachedVLM:
    """A VLM that remembers its answers in a folder, one small JSON file each.

    An answer is found again by a hash of the images, the question, the choices and who was asked. One that decides
    nothing (`VLMAnswerError` with an ``answer``) is kept, too, and is the same error again: it was paid for, and most
    models would repeat it. Failures without an answer are not kept. Files appear whole or not at all; a broken one
    counts as absent. Several processes may share a folder, and threads a cache: of two that ask the same at once, one
    waits for the other's answer.

    Args:
        vlm: who is asked where no answer is kept.
        folder: made if missing.
        identity: who that is, in words; by default ``vlm.identity``, which every backend here has.

    Attributes:
        found: how many questions were answered from the folder.

    Raises:
        ConfigError: the identity is neither given nor known.
        DataError: the folder cannot be made.
    """

    def __init__(self, vlm: VLM, folder: str | PathLike[str], *, identity: str | None = None) -> None:
        known = getattr(vlm, "identity", None) if identity is None else identity
        if not isinstance(known, str) or not known:
            raise ConfigError("identity: expected the model's name, so that two models never share answers, got none")
        self._vlm = vlm
        self._folder = Path(folder)
        self.identity = known
        self.most_views: int | None = getattr(vlm, "most_views", None)
        self.in_order = bool(getattr(vlm, "in_order", False))
        self.found = 0
        self._lock = threading.Lock()
        self._one_at_a_time: dict[Path, threading.Lock] = {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{shown(folder)}: cannot be used for answers: {error.strerror or error}") from error

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
        """The kept answer, or the model's, which is then kept.

        Raises:
            VLMAnswerError: the answer, kept or not, decides nothing.
        """
        path = self._path(images, prompt, choices)
        with self._lock:
            alone = self._one_at_a_time.setdefault(path, threading.Lock())
        with alone:  # the same question from two threads is asked once
            found = self._found(path, prompt)
            if found is None:
                return self._asked(images, prompt, choices, path)
        with self._lock:
            self.found += 1
        if isinstance(found, VLMAnswerError):
            raise found
        return found

    def _asked(self, images: Sequence[Tensor], prompt: str, choices: Sequence[str], path: Path) -> str:
        asked = {"model": self.identity, "question": prompt, "choices": list(choices), "image": images_digest(images)}
        try:
            answer = self._vlm(images, prompt, choices=choices)
        except VLMAnswerError as error:
            if error.answer and not isinstance(error, VLMUnavailableError):
                self._keep(path, {**asked, "undecided": error.answer, "reason": str(error)})
            raise
        if isinstance(answer, str):
            self._keep(path, {**asked, "answer": answer})
        return answer

    def _keep(self, path: Path, entry: dict[str, object]) -> None:
        try:
            write_json(path, entry)
        except DataError as error:
            # The answer is worth more than its copy: a full disk must not cost it.
            _LOG.warning("answer not kept: %s", error)

    @property
    def usage(self) -> Usage | None:
        """What the model's answers cost so far, where it says."""
        usage: Usage | None = getattr(self._vlm, "usage", None)
        return usage

    def kept(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str | None:
        """The answer kept on disk; None where there is none, or one that decides nothing."""
        found = self._found(self._path(images, prompt, choices), prompt)
        return found if isinstance(found, str) else None

    def _found(self, path: Path, prompt: str) -> str | VLMAnswerError | None:
        try:
            entry = read_json(path)
        except DataError:
            return None
        if not isinstance(entry, dict) or entry.get("question") != prompt:
            return None
        answer, undecided, reason = (entry.get(key) for key in ("answer", "undecided", "reason"))
        if isinstance(undecided, str) and isinstance(reason, str):
            return VLMAnswerError(reason, answer=undecided)
        return answer if isinstance(answer, str) else None

    def _path(self, images: Sequence[Tensor], prompt: str, choices: Sequence[str]) -> Path:
        asked = json.dumps([_FORMAT, self.identity, prompt, list(choices), images_digest(images)])
        name = hashlib.sha256(asked.encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.json"
