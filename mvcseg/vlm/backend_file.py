"""A list of models in a YAML file of the user's: whom to compare, and what each charges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, NoReturn

import torch
from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.errors import ConfigError, DataError, MvcsegError, VLMUnavailableError
from mvcseg.vlm.chat import OPENAI_URL, checked_url
from mvcseg.vlm.client import VLM, ReplayVLM
from mvcseg.vlm.comparison import Price
from mvcseg.vlm.local import LocalVLM
from mvcseg.vlm.model_name import check_model_name
from mvcseg.vlm.openai import OpenAIVLM
from mvcseg.vlm.yaml_file import Located, entries_of, read_yaml, text_at, told
from mvcseg.vlm.zero_shot import ZeroShotScorer

MOST_BACKENDS = 50
_FORM = "- {name: llava, vlm: 'http://localhost:8000/v1', model: llava-1.5-7b}"
_KINDS = ("vlm", "local", "zero_shot", "answers")
_KEYS = ("name", *_KINDS, "model", "price", "send_key")


@dataclass(frozen=True)
class Backend:
    """One model of a list.

    Attributes:
        name: what it is called in tables and folders.
        kind: ``"vlm"`` a server, ``"local"`` an image-text model, ``"zero_shot"`` a CLIP or SigLIP, ``"answers"``
            recorded answers.
        source: URL, folder or file.
        model: the server's name for it; empty for the other kinds.
        price: what it charges, or None.
        send_key: whether the key in ``OPENAI_API_KEY`` goes to this server.
    """

    name: str
    kind: Literal["vlm", "local", "zero_shot", "answers"]
    source: str
    model: str = ""
    price: Price | None = None
    send_key: bool = False


def read_backends(path: str | PathLike[str]) -> tuple[Backend, ...]:
    """The models that a YAML (or JSON) file lists.

    Args:
        path: a list of entries with ``name`` and one of ``vlm`` (a URL, with ``model``), ``local``, ``zero_shot``
            (folders) and ``answers`` (a JSON file); paths start from the file's own folder. ``price`` is
            ``{input, output}`` for a million tokens. The key of ``OPENAI_API_KEY`` goes to OpenAI's own server, and to
            another only where its entry says ``send_key: true``, so that no server gets the key of another.

    Raises:
        DataError: the file is missing, no YAML or of another form, or two models have one name; names file and line.
    """
    entries = entries_of(read_yaml(path), form=_FORM, allowed=_KEYS)
    if len(entries) > MOST_BACKENDS:
        raise DataError(f"{entries[MOST_BACKENDS].place}: expected at most {MOST_BACKENDS} models, got {len(entries)}")
    backends: dict[str, Backend] = {}
    for entry in entries:
        backend = _backend(entry, folder=Path(path).parent)
        # Names are names of folders, and some systems tell no small letters from capitals.
        if backend.name.casefold() in backends:
            raise DataError(f"{entry.place}: name: expected another for each model, got {backend.name!r} again")
        backends[backend.name.casefold()] = backend
    return tuple(backends.values())


def open_backend(backend: Backend, *, device: str | torch.device = "cpu") -> VLM:
    """The model itself.

    Raises:
        DataError: its folder is missing, or its recorded answers cannot be read.
        CheckpointError: the folder holds no such model.
        ConfigError: the server needs a key and there is none, or the recorded answers are none.
        MissingExtraError: a package is not installed.
    """
    if backend.kind == "answers":
        return ReplayVLM(backend.source)
    if backend.kind == "vlm":
        return OpenAIVLM(base_url=backend.source, model=backend.model, send_key=backend.send_key)
    # transformers takes what is no folder for a name on a hub, and asks there
    if not Path(backend.source).is_dir():
        raise DataError(f"{shown(backend.source)}: expected a folder of a model, got none")
    if backend.kind == "local":
        return LocalVLM(backend.source, device=device)
    return ZeroShotScorer(backend.source, device=device)


class Backends(Mapping[str, VLM]):
    """Models of a list by name, each opened when it is looked up, so that never two are in memory.

    One that cannot be opened is one that nobody can ask: whoever asks it is told why.
    """

    def __init__(self, backends: Sequence[Backend], *, device: str | torch.device = "cpu") -> None:
        self._backends = {backend.name: backend for backend in backends}
        self._device = device

    def __getitem__(self, name: str) -> VLM:
        """The model, opened anew."""
        backend = self._backends[name]
        try:
            return open_backend(backend, device=self._device)
        # Whatever it is: answers of the models before this one are paid for, and must not be lost with it.
        except Exception as error:
            return _Unavailable(str(error) if isinstance(error, MvcsegError) else f"{type(error).__name__}: {error}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._backends)

    def __len__(self) -> int:
        return len(self._backends)

    @property
    def prices(self) -> dict[str, Price]:
        """What those charge whose price is known."""
        return {name: backend.price for name, backend in self._backends.items() if backend.price is not None}


class _Unavailable:
    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> NoReturn:
        raise VLMUnavailableError(self._reason)


def _backend(entry: Located, *, folder: Path) -> Backend:
    assert isinstance(entry.value, dict)
    name = text_at(entry, "name")
    try:
        check_model_name(name)
    except ConfigError as error:
        raise DataError(f"{entry.value['name'].place}: {error}") from error
    given = [kind for kind in _KINDS if kind in entry.value]
    if len(given) != 1:
        raise DataError(
            f"{entry.place}: expected one of {', '.join(_KINDS)} for {name!r}, got {' and '.join(given) or 'none'}"
        )
    kind, source, model = given[0], text_at(entry, given[0]), text_at(entry, "model", default="")
    if (kind == "vlm") != bool(model):
        raise DataError(f"{entry.place}: vlm and model go together, got {'vlm' if kind == 'vlm' else 'model'} alone")
    if kind == "vlm":
        try:
            source = checked_url(source)
        except ConfigError as error:
            raise DataError(f"{entry.value['vlm'].place}: {str(error).replace('base_url', 'vlm', 1)}") from error
    else:
        source = str(folder / source)
    send_key = _send_key(entry, kind=kind, is_openai=source == OPENAI_URL)
    return Backend(name, kind, source, model=model, price=_price(entry), send_key=send_key)  # type: ignore[arg-type]


def _send_key(entry: Located, *, kind: str, is_openai: bool) -> bool:
    assert isinstance(entry.value, dict)
    found = entry.value.get("send_key")
    if found is None:
        return is_openai
    if not isinstance(found.value, bool) or kind != "vlm":
        raise DataError(f"{found.place}: send_key: expected true or false beside vlm, got {told(found)}")
    return found.value


def _price(entry: Located) -> Price | None:
    assert isinstance(entry.value, dict)
    found = entry.value.get("price")
    if found is None:
        return None
    prices = found.value if isinstance(found.value, dict) else {}
    amounts = [prices[key].value if key in prices else None for key in ("input", "output")]
    if len(prices) != 2 or any(isinstance(each, bool) or not isinstance(each, (int, float)) for each in amounts):
        raise DataError(
            f"{found.place}: price: expected {{input: ..., output: ...}} for a million tokens, got {_amounts(found)}"
        )
    try:
        return Price(*amounts)  # type: ignore[arg-type]
    except ConfigError as error:
        raise DataError(f"{found.place}: {error}") from error


def _amounts(found: Located) -> str:
    if not isinstance(found.value, dict):
        return told(found)
    return "{" + ", ".join(f"{key}: {told(each)}" for key, each in found.value.items())[:80] + "}"
