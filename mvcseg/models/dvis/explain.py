"""What a checkpoint file is, which preset fits it, and what it lacks or has too much: ``mvcseg inspect``."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvcseg.data.files import shown
from mvcseg.errors import CheckpointError, ConfigError
from mvcseg.models.compact_checkpoint import FORMAT as COMPACT_FORMAT
from mvcseg.models.compact_checkpoint import load_compact
from mvcseg.models.dvis.checkpoint import not_finite, official_state_dict
from mvcseg.models.dvis.config import PRESETS
from mvcseg.models.dvis.identify import Identity, backbone_name, identify
from mvcseg.models.dvis.mismatch import Mismatch, compare, groups
from mvcseg.models.dvis.names import count_parameters, entries_of, expected_entries, normalised
from mvcseg.models.dvis.reading import StoredState, read_state
from mvcseg.models.dvis.sources import fetch
from mvcseg.models.dvis.trained import is_trained, load_trained

_PAGE = 80


@dataclass(frozen=True)
class Explanation:
    """What a checkpoint file holds.

    Attributes:
        kind: what it is, in words.
        preset: name to give to ``load_official`` and ``--preset``; None where no preset fits as it is.
        load_with: the ``preset`` to give in Python, as an expression, where a changed preset fits; else None.
        facts: further findings by name, as JSON can hold them, in reading order.
    """

    kind: str
    preset: str | None = None
    load_with: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything as one JSON object's fields."""
        return {"kind": self.kind, "preset": self.preset, "load_with": self.load_with, **self.facts}

    def __str__(self) -> str:
        return "\n".join(line for name, value in self.to_dict().items() for line in _lines(name, value))


def explain(path: str | os.PathLike[str], *, sha256: str | None = None) -> Explanation:
    """What a checkpoint is: of this package, a published one, or the kind of another.

    Args:
        path: a local file or ``hf://owner/repo/file``.
        sha256: digest that the file must have.

    Raises:
        CheckpointError: the file is missing, cut short, no checkpoint, or holds more than tensors and plain data.

    Example:
        >>> from mvcseg.models.compact_checkpoint import packaged_checkpoint
        >>> explain(packaged_checkpoint("mvc")).kind
        'CompactSegmenter'
    """
    file = fetch(path, sha256=sha256)
    stored = read_state(file)
    if stored.metadata.get("format") == COMPACT_FORMAT:
        return _compact(file)
    if is_trained(stored):
        return _trained(file)
    state = normalised(stored.tensors)
    entries = entries_of(state)
    identity = identify({name: shape for name, (shape, _) in entries.items()})
    found = _stored(stored) | _counts(identity)
    if identity.config is None:
        return Explanation(identity.kind, facts=found | {"first_names": sorted(state)[:5]})
    config, nearest = identity.config, identity.preset
    found |= {"backbone": backbone_name(config.backbone)}
    try:
        mismatch, parameters = compare(expected_entries(config), entries), count_parameters(config)
    except (ConfigError, RuntimeError, ArithmeticError):  # sizes that no model can have
        return Explanation(identity.kind, facts=found)
    is_preset = nearest is not None and config == PRESETS[nearest]
    found |= {"model_parameters": parameters}
    if nearest is not None and (mismatch or not is_preset):
        found |= {"nearest_preset": nearest}
    if mismatch:
        return Explanation(identity.kind, facts=found | _differences(mismatch))
    broken = not_finite(state)
    if broken:
        found |= {"not_finite": broken[:20], "not_finite_count": len(broken)}
    return Explanation(
        identity.kind,
        preset=nearest if is_preset else None,
        load_with=None if is_preset else identity.load_with,
        facts=found,
    )


def preset_for(path: str | os.PathLike[str], *, explanation: Explanation | None = None) -> str:
    """The preset that a file fits, for a command that was given none.

    Args:
        path: a local file or ``hf://owner/repo/file``.
        explanation: of the file, where it is known; it is not read again then.

    Raises:
        CheckpointError: no preset fits; the message says what the file is and what would fit.
    """
    explanation = explanation or explain(path)
    if explanation.preset is not None:
        return explanation.preset
    fits = f"; in Python it loads with preset={explanation.load_with}" if explanation.load_with else ""
    raise CheckpointError(
        f"{shown(path)}: is {explanation.kind}, which no preset fits{fits}; `mvcseg inspect` says more"
    )


def _compact(path: Path) -> Explanation:
    model = load_compact(path)
    return Explanation(
        "CompactSegmenter",
        facts={
            **model.architecture,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "class_names": list(model.class_names),
            "metadata": model.metadata,
        },
    )


def _trained(path: Path) -> Explanation:
    trained = load_trained(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in official_state_dict(trained.model).items()}
    return Explanation(
        f"{identify(shapes).kind}, of `mvcseg train`",
        facts={
            "backbone": backbone_name(trained.config.backbone),
            "num_classes": trained.config.num_classes,
            "num_queries": trained.config.num_queries,
            "parameters": count_parameters(trained.config),
            "test_size": list(trained.test_size),
            "class_names": list(trained.class_names),
            "metadata": trained.metadata,
        },
    )


def _stored(stored: StoredState) -> dict[str, Any]:
    facts: dict[str, Any] = {"container": stored.container, "tensors": len(stored.tensors)}
    facts |= {"numbers": sum(tensor.numel() for tensor in stored.tensors.values())}
    if stored.iteration is not None:
        facts |= {"iteration": stored.iteration}
    if stored.author is not None:
        facts |= {"author": stored.author}
    return facts | ({"metadata": dict(stored.metadata)} if stored.metadata else {})


def _counts(identity: Identity) -> dict[str, Any]:
    named = {"num_classes": identity.num_classes, "num_queries": identity.num_queries}
    return {name: count for name, count in named.items() if count is not None}


def _differences(mismatch: Mismatch) -> dict[str, Any]:
    facts = {
        "missing": groups(mismatch.missing),
        "unexpected": groups(mismatch.unexpected),
        "reshaped": dict(mismatch.reshaped),
    }
    return {name: found for name, found in facts.items() if found}


def _lines(name: str, value: Any, *, indent: str = "") -> Iterator[str]:
    """A fact as lines of at most 80 characters where its words allow; a dict has one item a line."""
    label = f"{indent}{shown(str(name))}:"
    if value is None:
        return
    if isinstance(value, Mapping):
        yield label
        for key, item in value.items():
            yield from _lines(key, item, indent=indent + "  ")
        return
    text = ", ".join(shown(str(item)) for item in value) if isinstance(value, (list, tuple)) else shown(str(value))
    yield from textwrap.wrap(
        f"{label} {text}", _PAGE, subsequent_indent=indent + "  ", break_long_words=False, break_on_hyphens=False
    )
