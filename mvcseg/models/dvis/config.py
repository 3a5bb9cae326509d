"""The numbers of a DVIS++ model as one frozen value, and the published configurations under their names.

A configuration is plain data, to and from JSON; ``parts.build_parts`` and ``build.build_dvis`` alone read it.

Sources: DVIS++, arXiv 2312.13305, and DVIS, arXiv 2306.03413, with their public configurations for VSPW.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from mvcseg.errors import ConfigError
from mvcseg.models.mask2former.pixel_decoder import GROUPS
from mvcseg.shapes import check_num_classes, check_positive

VSPW_THINGS: tuple[int, ...] = (
    *(2, 4, 8, 10, 41, 43, 44, 46, 47, 48, 49, 50, 51, 52, 54, 55, 56, 60, 61, 62, 63, 64, 65, 72, 74, 76, 77, 78, 79),
    *(82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 95, 96, 97, 99, 100, 101, 102, 106, 107, 108, 109, 114, 115, 116),
    *(117, 118, 122, 123),
)
"""VSPW class ids (0 to 123) of countable objects, which the public training code numbers first."""

VSPW_CLASS_ORDER: tuple[int, ...] = (*VSPW_THINGS, *(index for index in range(124) if index not in VSPW_THINGS))
"""VSPW class id of each class of a VSPW checkpoint: things, then stuff, each by rising id."""


@dataclass(frozen=True)
class ResNetSizes:
    """A ResNet: ``depth`` is 18, 34, 50 or 101."""

    depth: int


@dataclass(frozen=True)
class SwinSizes:
    """A Swin Transformer; arguments as in ``models.backbones.swin.Swin``."""

    width: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int


@dataclass(frozen=True)
class ViTAdapterSizes:
    """A DINOv2 transformer with its adapter.

    Attributes:
        width: channels.
        depth: blocks, a multiple of 4.
        heads: attention heads.
        is_gated: whether the feed-forward layers are gated, as in ViT-g.
        grid: side of the grid of position embeddings.
        stem_width: channels of the adapter's first convolutions.
    """

    width: int
    depth: int
    heads: int
    is_gated: bool = False
    grid: int = 37
    stem_width: int = 64


BackboneSizes = ResNetSizes | SwinSizes | ViTAdapterSizes
BACKBONES: dict[str, BackboneSizes] = {
    "ResNet-18": ResNetSizes(18),
    "ResNet-34": ResNetSizes(34),
    "ResNet-50": ResNetSizes(50),
    "ResNet-101": ResNetSizes(101),
    "Swin-T": SwinSizes(96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7),
    "Swin-L": SwinSizes(192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=12),
    "ViT-Adapter-S": ViTAdapterSizes(384, depth=12, heads=6),
    "ViT-Adapter-B": ViTAdapterSizes(768, depth=12, heads=12),
    "ViT-Adapter-L": ViTAdapterSizes(1024, depth=24, heads=16),
    "ViT-Adapter-g": ViTAdapterSizes(1536, depth=40, heads=24, is_gated=True),
}
"""Backbones that have a name."""


@dataclass(frozen=True)
class DVISConfig:
    """All that decides which tensors a model has and how it is tested; defaults are the published values.

    Attributes:
        backbone: kind and sizes; the named ones are in ``BACKBONES``.
        num_classes: K, without the no-object class.
        num_queries: Q.
        has_reid: whether the segmenter has the re-identification head (CTVIS, DVIS++).
        has_tracker: whether a referring tracker follows: the online model.
        has_refiner: whether a temporal refiner follows that: the offline model.
        version: 1 for first-version DVIS, whose tracker differs and knows no re-identification head.
        class_order: data-set class of each trained class, a permutation of 0..K-1; None where they agree.
        tracker_layers: of the tracker.
        refiner_layers: of the refiner.
        hidden: channels inside the feed-forward layers of both.
        width: channels of the segmenter's queries and pixel features, a multiple of 32.
        encoder_layers: layers of deformable attention in the pixel decoder.
        encoder_hidden: channels inside their feed-forward layers.
        decoder_layers: layers of the query decoder.
        decoder_hidden: channels inside their feed-forward layers.
        short_side: shorter side of the frames in the published test, in pixels.
        long_side: what the longer side must not exceed, in pixels.

    Raises:
        ConfigError: a number is out of range, the order is no permutation, or parts contradict each other.

    Example:
        >>> PRESETS["vspw_online_r50"].num_queries
        100
        >>> custom = dataclasses.replace(PRESETS["vspw_online_r50"], num_classes=41, class_order=None)
        >>> from_json(to_json(custom)) == custom
        True
    """

    backbone: BackboneSizes
    num_classes: int = 124
    num_queries: int = 100
    has_reid: bool = False
    has_tracker: bool = False
    has_refiner: bool = False
    version: Literal[1, 2] = 2
    class_order: tuple[int, ...] | None = VSPW_CLASS_ORDER
    tracker_layers: int = 6
    refiner_layers: int = 6
    hidden: int = 2048
    width: int = 256
    encoder_layers: int = 6
    encoder_hidden: int = 1024
    decoder_layers: int = 9
    decoder_hidden: int = 2048
    short_side: int = 720
    long_side: int = 1333

    def __post_init__(self) -> None:
        check_num_classes(self.num_classes)
        check_positive(
            num_queries=self.num_queries,
            tracker_layers=self.tracker_layers,
            refiner_layers=self.refiner_layers,
            hidden=self.hidden,
            width=self.width,
            encoder_layers=self.encoder_layers,
            encoder_hidden=self.encoder_hidden,
            decoder_layers=self.decoder_layers,
            decoder_hidden=self.decoder_hidden,
            short_side=self.short_side,
            long_side=self.long_side,
        )
        if self.width % GROUPS:
            raise ConfigError(f"width: expected a multiple of {GROUPS}, got {self.width}")
        if self.version not in (1, 2):
            raise ConfigError(f"version: expected 1 or 2, got {self.version!r}")
        if self.has_refiner and not self.has_tracker:
            raise ConfigError("has_refiner: expected has_tracker with it, since a refiner reads what the tracker gives")
        if self.has_tracker and self.has_reid != (self.version == 2):
            needed = "a re-identification head" if self.version == 2 else "none"
            raise ConfigError(f"has_reid: the tracker of version {self.version} expects {needed}")
        if self.class_order is not None and sorted(self.class_order) != list(range(self.num_classes)):
            raise ConfigError(
                f"class_order: expected a permutation of 0..{self.num_classes - 1} or None, got "
                f"{len(self.class_order)} numbers; classes of your own usually need class_order=None"
            )

    @property
    def query_width(self) -> int:
        """Channels of a query in tracker and refiner."""
        return 2 * self.width if self.has_reid else self.width


_R50, _VIT_L, _SWIN_L = BACKBONES["ResNet-50"], BACKBONES["ViT-Adapter-L"], BACKBONES["Swin-L"]
PRESETS: dict[str, DVISConfig] = {
    "vspw_minvis_r50": DVISConfig(_R50),
    "vspw_ctvis_r50": DVISConfig(_R50, has_reid=True),
    "vspw_online_r50": DVISConfig(_R50, has_reid=True, has_tracker=True),
    "vspw_offline_r50": DVISConfig(_R50, has_reid=True, has_tracker=True, has_refiner=True),
    "vspw_minvis_vitl": DVISConfig(_VIT_L, num_queries=200),
    "vspw_ctvis_vitl": DVISConfig(_VIT_L, num_queries=200, has_reid=True),
    "vspw_online_vitl": DVISConfig(_VIT_L, num_queries=200, has_reid=True, has_tracker=True),
    "vspw_offline_vitl": DVISConfig(_VIT_L, num_queries=200, has_reid=True, has_tracker=True, has_refiner=True),
    "vspw_dvis1_minvis_swinl": DVISConfig(_SWIN_L, num_queries=200, version=1),
    "vspw_dvis1_online_swinl": DVISConfig(_SWIN_L, num_queries=200, version=1, has_tracker=True),
    "vspw_dvis1_offline_swinl": DVISConfig(_SWIN_L, num_queries=200, version=1, has_tracker=True, has_refiner=True),
}
"""The published VSPW configurations by name."""


def find_config(preset: str | DVISConfig) -> DVISConfig:
    """A configuration as it is, or the preset of that name.

    Raises:
        ConfigError: no preset has the name; the message names the nearest.
    """
    if isinstance(preset, DVISConfig):
        return preset
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(f"preset: {_nearest(str(preset), PRESETS)}")
    return PRESETS[preset]


def to_json(config: DVISConfig) -> str:
    """A configuration as the text of one JSON object; ``from_json`` is the inverse."""
    fields = dataclasses.asdict(config)
    kind = next(name for name, sizes in _KINDS.items() if type(config.backbone) is sizes)
    return json.dumps({**fields, "backbone": {"kind": kind, **fields["backbone"]}}, indent=1)


def from_json(text: str) -> DVISConfig:
    """The configuration of a JSON object.

    Args:
        text: one object with the attributes of ``DVISConfig``; ``backbone`` is a name of ``BACKBONES``, or an object
            with ``kind`` (resnet, swin, vit_adapter) and its sizes. What is left out has its default.

    Raises:
        ConfigError: no JSON object, an unknown key (the message names the nearest valid one), or a wrong value.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"config: expected JSON, got {error}") from error
    fields = _object(fields, name="config")
    backbone = fields.get("backbone")
    if isinstance(backbone, str):
        if backbone not in BACKBONES:
            raise ConfigError(f"backbone: {_nearest(backbone, BACKBONES)}")
        sizes: object = BACKBONES[backbone]
    else:
        given = _object(backbone, name="backbone")
        kind = given.pop("kind", None)
        if not isinstance(kind, str) or kind not in _KINDS:
            raise ConfigError(f"backbone.kind: {_nearest(str(kind), _KINDS)}")
        sizes = _fill(_KINDS[kind], given, name="backbone.")
    config: DVISConfig = _fill(DVISConfig, {**fields, "backbone": sizes}, name="")
    return config


_KINDS: dict[str, type[BackboneSizes]] = {"resnet": ResNetSizes, "swin": SwinSizes, "vit_adapter": ViTAdapterSizes}


def _object(value: object, *, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: expected a JSON object, got {type(value).__name__}")
    return dict(value)


def _fill(kind: type[Any], fields: Mapping[str, Any], *, name: str) -> Any:
    types = get_type_hints(kind)
    checked = {}
    for key, value in fields.items():
        if key not in types:
            raise ConfigError(f"{name}{_nearest(key, types)}")
        checked[key] = value if key == "backbone" else _checked(value, str(types[key]), name=name + key)
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.name not in checked
    ]
    if missing:
        raise ConfigError(f"{name}{missing[0]}: missing")
    return kind(**checked)


def _checked(value: Any, kind: str, *, name: str) -> Any:
    """A JSON value in the type of a field: a switch, a number, or numbers."""
    if "None" in kind and value is None:
        return None
    is_number = type(value) is int
    if "tuple" in kind:
        if isinstance(value, list) and all(type(item) is int for item in value):
            return tuple(value)
        raise ConfigError(f"{name}: expected a list of integers, got {value!r:.60}")
    if "bool" in kind:
        if isinstance(value, bool):
            return value
        raise ConfigError(f"{name}: expected true or false, got {value!r:.60}")
    if not is_number:
        raise ConfigError(f"{name}: expected an integer, got {value!r:.60}")
    return value


def _nearest(name: str, valid: Iterable[str]) -> str:
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(names)}"
    return f"{name!r:.60} is unknown; {hint}"
