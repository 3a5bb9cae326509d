"""Models with weights drawn, and models without."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mvcseg.models.dvis.build import build_dvis, build_empty
from mvcseg.models.dvis.config import PRESETS


@pytest.mark.parametrize("preset", ["vspw_offline_r50", "vspw_offline_vitl"])
def test_an_empty_model_needs_no_compiler_of_pytorch(preset: str) -> None:
    script = f"""
import sys; from mvcseg.models.dvis.build import build_empty; from mvcseg.models.dvis.config import PRESETS
build_empty(PRESETS[{preset!r}]); print(*sys.modules)"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "mvcseg.models.dvis.build" in loaded
    assert not {"torch._dynamo", "sympy"} & set(loaded)


def test_an_empty_model_is_laid_out_as_a_drawn_one() -> None:
    empty, drawn = build_empty(PRESETS["vspw_online_r50"]).state_dict(), build_dvis("vspw_online_r50").state_dict()
    assert list(empty) == list(drawn)
    for name, tensor in drawn.items():
        assert empty[name].device == torch.device("cpu")
        assert (empty[name].shape, empty[name].dtype) == (tensor.shape, tensor.dtype)
        assert empty[name].stride() == tensor.stride()
