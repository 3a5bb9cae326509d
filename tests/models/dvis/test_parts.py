"""Models outlined on the meta device."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mvcseg.models.dvis.config import PRESETS
from mvcseg.models.dvis.parts import build_parts, outline_parts


def test_an_outline_has_the_names_shapes_and_types_of_the_parts() -> None:
    built, outlined = (make(PRESETS["vspw_minvis_r50"]) for make in (build_parts, outline_parts))
    assert list(built) == list(outlined)
    for name, part in built.items():
        entries = part.state_dict()
        for entry, tensor in outlined[name].state_dict().items():
            assert tensor.is_meta
            assert (tensor.shape, tensor.dtype) == (entries[entry].shape, entries[entry].dtype)
        assert list(entries) == list(outlined[name].state_dict())


@pytest.mark.parametrize("preset", ["vspw_offline_r50", "vspw_offline_vitl"])
def test_an_outline_needs_no_compiler_of_pytorch(preset: str) -> None:
    script = f"""
import sys; from mvcseg.models.dvis.config import PRESETS; from mvcseg.models.dvis.parts import outline_parts
outline_parts(PRESETS[{preset!r}]); print(*sys.modules)"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "mvcseg.models.dvis.parts" in loaded
    assert not {"torch._dynamo", "sympy"} & set(loaded)
