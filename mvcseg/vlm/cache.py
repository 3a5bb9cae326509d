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
from mvcseg.errors import ConfigError, DataError
from mvcseg.vlm.client import VLM, images_digest
from mvcseg.vlm.usage import Usage

_LOG = logging.getLogger(__name__)
_FORMAT = 1


class CachedVLM:
    """A VLM that remembers its answers in a folder, one small JSON file each.

    An answer is found again by a hash of the images, the question, the choices and who was asked. Failures are not
    kept. Files appear whole or not at all; a broken one counts as absent. Several processes may share a folder, and
    threads a cache: of two that ask the same at once, one waits for the other's answer.

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
        """The kept answer, or the model's, which is then kept."""
        path = self._path(images, prompt, choices)
        with self._lock:
            alone = self._one_at_a_time.setdefault(path, threading.Lock())
        with alone:  # the same question from two threads is asked once
            answer = self.kept(images, prompt, choices=choices)
            if answer is None:
                return self._asked(images, prompt, choices, path)
        with self._lock:
            self.found += 1
        return answer

    def _asked(self, images: Sequence[Tensor], prompt: str, choices: Sequence[str], path: Path) -> str:
        answer = self._vlm(images, prompt, choices=choices)
        if not isinstance(answer, str):
            return answer
        image = images_digest(images)
        entry = {"model": self.identity, "question": prompt, "choices": list(choices), "image": image, "answer": answer}
        try:
            write_json(path, entry)
        except DataError as error:
            # The answer is worth more than its copy: a full disk must not cost it.
            _LOG.warning("answer not kept: %s", error)
        return answer

    @property
    def usage(self) -> Usage | None:
        """What the model's answers cost so far, where it says."""
        usage: Usage | None = getattr(self._vlm, "usage", None)
        return usage

    def kept(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str | None:
        """The answer kept on disk, or None."""
        try:
            entry = read_json(self._path(images, prompt, choices))
        except DataError:
            return None
        answer = entry.get("answer") if isinstance(entry, dict) and entry.get("question") == prompt else None
        return answer if isinstance(answer, str) else None

    def _path(self, images: Sequence[Tensor], prompt: str, choices: Sequence[str]) -> Path:
        asked = json.dumps([_FORMAT, self.identity, prompt, list(choices), images_digest(images)])
        name = hashlib.sha256(asked.encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.json"
