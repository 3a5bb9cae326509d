"""Where a checkpoint comes from: a local file, or one on the Hugging Face hub, its digest checked where one is known.

A connection is opened for ``hf://`` only.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from mvcseg.data.files import shown
from mvcseg.errors import CheckpointError

PINNED: dict[str, str] = {}
"""SHA-256 of published files, by ``hf://owner/repo@revision/file``; none has been verified so far."""

_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?/(?P<file>[^\\]+)", flags=re.ASCII)


def fetch(source: str | os.PathLike[str], *, sha256: str | None = None) -> Path:
    """A checkpoint as a file on this machine.

    Args:
        source: a path, or ``hf://owner/repo/file``, ``hf://owner/repo@revision/file``, which is downloaded once and
            then taken from the hub's cache.
        sha256: digest the file must have, 64 hexadecimal digits; None takes the one in ``PINNED``, if any.

    Raises:
        CheckpointError: there is no such file, it is a folder, the hub cannot be reached or refuses, the address is
            malformed, or the digest differs.
    """
    text = os.fspath(source)
    path = _download(text) if text.startswith("hf://") else Path(source)
    try:
        if path.is_dir():
            raise CheckpointError(f"{shown(text)}: expected a checkpoint file, got a folder")
        if not path.is_file():
            raise CheckpointError(f"{shown(text)}: no such file")
    except (OSError, ValueError) as error:  # a name too long, or one with a zero byte
        raise CheckpointError(f"{shown(text)}: no such file ({error})") from error
    wanted = sha256 or PINNED.get(text)
    if wanted is not None:
        _check_digest(text, path, wanted)
    return path


def _download(address: str) -> Path:
    match = _HUB.fullmatch(address)
    parts = match["file"].split("/") if match else []
    if match is None or not all(part.strip(".") for part in parts) or not address.isprintable():
        raise CheckpointError(f"{shown(address)}: expected hf://owner/repo/file or hf://owner/repo@revision/file")
    from huggingface_hub import errors, hf_hub_download

    reasons: list[tuple[type[Exception], str]] = [
        (errors.GatedRepoError, "the repository asks for a login and its owner's consent (`hf auth login`)"),
        (errors.RepositoryNotFoundError, f"the hub has no repository {match['repo']}, or it is private"),
        (errors.RevisionNotFoundError, f"the repository has no revision {match['revision']}"),
        (errors.LocalEntryNotFoundError, "the hub cannot be reached and the file is not in its cache"),
        (errors.EntryNotFoundError, f"the repository has no file {match['file']}"),
        (errors.HFValidationError, "the hub allows no such name"),
    ]
    try:
        return Path(hf_hub_download(match["repo"], match["file"], revision=match["revision"]))
    except (errors.EntryNotFoundError, OSError, RuntimeError, ValueError) as error:
        other = f"the download failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        reason = next((text for kind, text in reasons if isinstance(error, kind)), other)
        raise CheckpointError(f"{shown(address)}: {shown(reason)}") from error


def _check_digest(source: str, path: Path, wanted: str) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", wanted):
        raise CheckpointError(f"sha256: expected 64 hexadecimal digits, got {wanted!r:.80}")
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{shown(source)}: cannot be read ({error.strerror or error})") from error
    got = digest.hexdigest()
    if got != wanted.lower():
        raise CheckpointError(f"{shown(source)}: expected SHA-256 {wanted.lower()}, got {got}; download it again")
