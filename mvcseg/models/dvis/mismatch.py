"""How a checkpoint's tensors differ from those of a configuration, in one readable sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mvcseg.data.files import shown
from mvcseg.models.dvis.config import DVISConfig
from mvcseg.models.dvis.identify import Identity, backbone_name
from mvcseg.models.dvis.names import Entries

_SHOWN = 6


@dataclass(frozen=True)
class Mismatch:
    """Names that keep a file from fitting, sorted.

    Attributes:
        missing: of tensors that the file lacks.
        unexpected: of tensors that the model lacks.
        reshaped: of tensors whose shapes or kinds differ, each with what was expected and what the file has.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[tuple[str, str], ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        parts = []
        if self.missing:
            parts.append(f"missing {grouped(self.missing)}")
        if self.unexpected:
            parts.append(f"unexpected {grouped(self.unexpected)}")
        if self.reshaped:
            told = [f"{shown(name)} ({how})" for name, how in self.reshaped[:3]]
            more = f" and {len(self.reshaped) - 3} more" if len(self.reshaped) > 3 else ""
            parts.append(f"of another shape {', '.join(told)}{more}")
        return "; ".join(parts)


def compare(expected: Entries, found: Entries) -> Mismatch:
    """What differs between the tensors a model has and those of a file.

    Floating-point types do not differ from each other, nor do integer ones: loading converts.
    """
    reshaped = []
    for name in sorted(expected.keys() & found.keys()):
        (shape, dtype), (other_shape, other_dtype) = expected[name], found[name]
        if shape != other_shape:
            reshaped.append((name, f"expected {shape}, got {other_shape}"))
        elif dtype.is_floating_point != other_dtype.is_floating_point or other_dtype.is_complex:
            reshaped.append((name, f"expected {_told(dtype)}, got {_told(other_dtype)}"))
    return Mismatch(
        tuple(sorted(expected.keys() - found.keys())), tuple(sorted(found.keys() - expected.keys())), tuple(reshaped)
    )


def grouped(names: Iterable[str]) -> str:
    """Names by prefix with their number: ``refiner.* (192), tracker.ref_proj.* (6)``."""
    counts = groups(names)
    told = [f"{shown(prefix)} ({count})" for prefix, count in list(counts.items())[:_SHOWN]]
    more = f" and {len(counts) - _SHOWN} more groups" if len(counts) > _SHOWN else ""
    return ", ".join(told) + more


def groups(names: Iterable[str]) -> dict[str, int]:
    """How many names stand under each prefix: the part of the model, and in segmenter and tracker the part of that.

    Example:
        >>> groups(["refiner.a.b", "refiner.c", "sem_seg_head.predictor.x.y"])
        {'refiner.*': 2, 'sem_seg_head.predictor.*': 1}
    """
    counts: Counter[str] = Counter()
    for name in names:
        pieces = name.split(".")
        depth = 2 if pieces[0] == "sem_seg_head" else 1
        counts[".".join([*pieces[:depth], "*"]) if len(pieces) > depth else name] += 1
    return dict(counts)


def reason(identity: Identity, wanted: DVISConfig, mismatch: Mismatch, *, tells_what_fits: bool = True) -> str:
    """Why a file does not fit a configuration, and where asked for, what would."""
    found = identity.config
    if any(name.startswith("backbone.layer1.") for name in mismatch.unexpected):
        return "it was saved with state_dict(); save official_state_dict(model) instead"
    if identity.num_classes is None:
        return f"it is {identity.kind}"
    notes = []
    if found is None or found.backbone != wanted.backbone:
        notes.append(f"the model wanted has {backbone_name(wanted.backbone)}")
    if found is not None:
        for part in ("tracker", "refiner"):
            has, should = getattr(found, f"has_{part}"), getattr(wanted, f"has_{part}")
            if has != should:
                notes.append(f"{'no ' if should else 'a '}{part}")
        if found.has_reid != wanted.has_reid:
            notes.append(f"{'no' if wanted.has_reid else 'a'} re-identification head")
        if found.has_tracker and wanted.has_tracker and found.version != wanted.version:
            notes.append(f"a tracker of version {found.version}, not {wanted.version}")
    for what, got, should in (
        ("classes", identity.num_classes, wanted.num_classes),
        ("queries", identity.num_queries, wanted.num_queries),
    ):
        if got != should:
            notes.append(f"{got} {what}, not {should}")
    if not notes:
        return f"it is {_article(identity.kind)} that is incomplete or was changed"
    told = f"it is {_article(identity.kind)} ({', '.join(notes)})"
    if not tells_what_fits:
        return told
    return told + (f"; it fits preset={identity.load_with}" if identity.load_with else "; no preset fits it")


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _told(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
