"""Options that go together, as ``mvcseg predict`` reads them."""

from __future__ import annotations

import pytest

from mvcseg.cli import build_parser
from mvcseg.errors import ConfigError, UsageError
from mvcseg.option_checks import check_predict, views_of

BASE = ("predict", "clip.mp4", "--checkpoint", "model.safetensors", "--out", "masks")


def views(*more: str) -> list[tuple[float, bool]] | None:
    found = views_of(build_parser().parse_args([*BASE, *more]))
    return None if found is None else [(view.scale, view.flip) for view in found]


def test_no_tta_means_no_views() -> None:
    assert views() is None


def test_tta_alone_means_the_reports_eight_views() -> None:
    assert views("--tta") == [(scale, flip) for scale in (1.2, 1.1, 1.0, 0.9) for flip in (False, True)]


def test_scales_and_mirroring_can_be_chosen() -> None:
    assert views("--tta", "--scales", "1.0,1.1", "--no-flip") == [(1.1, False), (1.0, False)]
    assert views("--tta", "--scales", "1") == [(1.0, False), (1.0, True)]


@pytest.mark.parametrize("more", [("--scales", "1.0"), ("--no-flip",)])
def test_views_without_tta_are_refused(more: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="give --tta too"):
        views(*more)


def test_a_scale_that_is_no_number_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        views("--tta", "--scales", "1.0,big")
    assert exit.value.code == 2
    assert "expected numbers with commas between" in capsys.readouterr().err


@pytest.mark.parametrize("scales", ["1.0,1.0", "0", "nan"])
def test_scales_that_make_no_views_are_refused(scales: str) -> None:
    with pytest.raises(ConfigError, match="scale"):
        views("--tta", "--scales", scales)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("predict --checkpoint F --out D", "either VIDEO or --vspw"),
        ("predict v --vspw R --split val --checkpoint F --out D", "either VIDEO or --vspw"),
        ("predict --vspw R --checkpoint F --out D", "--vspw and --split go together"),
        ("predict v --segmenter a.py:b --preset p --out D", "go with --checkpoint"),
        ("predict v --checkpoint F --weights W --out D", "--weights goes with --segmenter"),
        ("predict - --checkpoint F --shard 1/2 --out D", "a pipe is one"),
    ],
)
def test_options_that_contradict_are_refused(line: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        check_predict(build_parser().parse_args(line.split()))
