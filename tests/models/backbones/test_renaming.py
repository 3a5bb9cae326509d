from __future__ import annotations

from mvcseg.models.backbones.renaming import Renaming

NAMES = Renaming(
    [
        ("stem.norm.{leaf}", "bn1.{leaf}"),
        ("res2.{block}.conv{i}.{leaf}", "layer1.{block}.c{i}.{leaf}"),
        ("old.{rest}", "new.{rest}"),
    ]
)


def test_fields_are_carried_over_both_ways() -> None:
    pairs = {
        "stem.norm.weight": "bn1.weight",
        "res2.10.conv3.bias": "layer1.10.c3.bias",
        "old.a.b.c": "new.a.b.c",
    }
    for official, own in pairs.items():
        assert NAMES.from_official(official) == own
        assert NAMES.to_official(own) == official


def test_a_rule_fits_whole_names_and_dots_are_dots() -> None:
    for name in ("stem.norm.weight.extra", "stemXnorm.weight", "prefix.stem.norm.weight", "res2.1.2.conv3.bias"):
        assert NAMES.from_official(name) == name


def test_the_first_rule_that_fits_counts() -> None:
    names = Renaming([("a.norm.{leaf}", "n.{leaf}"), ("a.{rest}", "c.{rest}")])
    assert names.from_official("a.norm.bias") == "n.bias"
    assert names.from_official("a.weight") == "c.weight"
