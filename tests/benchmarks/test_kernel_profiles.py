"""Profiles of kernels before and after: shares by hand, what profilers see, the whole script at tiny sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

Script = Callable[[str], ModuleType]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def profiles(script: Script) -> ModuleType:
    for package in ("kornia", "torchmetrics", "transformers"):
        pytest.importorskip(package)
    return script("kernel_profiles")


def test_the_largest_are_named_and_the_rest_added_up(profiles: ModuleType) -> None:
    spent = {name: float(seconds) for name, seconds in zip("abcdefgh", (1, 9, 2, 8, 3, 7, 4, 6), strict=True)}
    shares = profiles.shares_of(spent)
    assert list(shares) == ["b", "d", "f", "h", "g", "e", "all others"]
    assert shares["b"] == 9 / 40
    assert shares["all others"] == pytest.approx((1 + 2) / 40)
    assert sum(shares.values()) == pytest.approx(1)
    assert profiles.shares_of({"only": 2.0}) == {"only": 1.0, "all others": 0.0}


def test_operators_and_their_memory(profiles: ModuleType) -> None:
    x = torch.ones(64, 1000)
    seen = profiles.by_operator(lambda: (x + x).sum(), calls=2)
    assert {"aten::add", "aten::sum"} <= set(seen["shares"])
    assert seen["peak_mb"] == 0.256  # the sum of the two, and a number of 4 bytes
    held = profiles.peak_of_tensors(lambda: [torch.empty(500) for _ in range(3)])
    one_by_one = profiles.peak_of_tensors(lambda: [len(torch.empty(500)) for _ in range(3)])
    assert (held, one_by_one) == (6000, 2000)


def test_functions_and_their_memory(profiles: ModuleType) -> None:
    def work() -> float:
        return float(np.sort(np.zeros(1_000_000)).sum())

    seen = profiles.by_function(work, calls=2)
    assert "ndarray.sort" in seen["shares"]
    assert seen["peak_mb"] == pytest.approx(16, rel=0.01)


@pytest.mark.parametrize(
    ("file", "name", "expected"),
    [
        ("/some/where/ssim.py", "label_ssim", "ssim.label_ssim"),
        ("~", "<method 'take' of 'numpy.ndarray' objects>", "ndarray.take"),
        ("~", "<built-in method numpy._core._multiarray_umath.count_nonzero>", "numpy.count_nonzero"),
        ("~", "<built-in method builtins.len>", "builtins.len"),
        ("~", "<made up>", "made up"),
    ],
)
def test_names_of_functions(profiles: ModuleType, file: str, name: str, expected: str) -> None:
    assert profiles.title(file, name) == expected


def test_the_whole_script(
    profiles: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = partial(profiles.run, size=(48, 64), maps=((2, 3), (4, 6), (8, 12)), heads=2)
    monkeypatch.setattr(profiles, "run", tiny)
    out = tmp_path / "profiles.json"
    assert profiles.main(["--turns", "1", "--threads", str(torch.get_num_threads()), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    check(json.loads(out.read_text()))
    assert profiles.main(["--table", str(out)]) == 0
    assert capsys.readouterr().out == printed
    assert printed.count("all others") == 6


def test_stored_profiles() -> None:
    check(json.loads((ROOT / "benchmarks/results/kernel_profiles.json").read_text()))


def check(report: dict[str, list[dict[str, dict[str, dict[str, float]]]]]) -> None:
    assert len(report["profiles"]) == 3
    for one in report["profiles"]:
        for side in (one["before"], one["after"]):
            assert sum(side["shares"].values()) == pytest.approx(1)
            assert 2 <= len(side["shares"]) <= 7
            assert side["ms"] > 0
            assert side["peak_mb"] > 0
