"""The suite's own weights and clips are those that the golden files were made with."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from golden_files import Golden, GoldenFolders, fill_array, fill_module, make_frames, read_entries, unit_uniform

LISTS = ["dvis_plus_offline_r50", "dvis_plus_offline_vitl", "dvis1_offline_swinl"]


@pytest.fixture(scope="module")
def reference(golden: GoldenFolders) -> ModuleType:
    """The weights' own definition, where it is at hand."""
    spec = importlib.util.spec_from_file_location("fill_weights", golden / "fill_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.golden
@pytest.mark.parametrize("preset", LISTS)
def test_weights_are_the_reference_weights_bit_for_bit(
    golden: GoldenFolders, reference: ModuleType, preset: str
) -> None:
    for name, entry in read_entries(golden / f"keys/{preset}.json").items():
        shape = tuple(entry["shape"])
        if len(shape) > 1:  # a few rows: the rule is what can differ, not the stream
            shape = (min(shape[0], 3), *(min(size, 40) for size in shape[1:]))
        expected, got = reference.fill_array(name, shape, seed=2), fill_array(name, shape, seed=2)
        assert (got is None) == (expected is None), name
        if got is not None:
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got.view(np.int32), expected.view(np.int32), err_msg=name)


@pytest.mark.golden
def test_clips_are_the_reference_clips(reference: ModuleType) -> None:
    np.testing.assert_array_equal(make_frames(3, 40, 56, seed=7).numpy(), reference.make_frames(3, 40, 56, 7))


@pytest.mark.golden
def test_uniform_draws_are_the_reference_draws(reference: ModuleType) -> None:
    expected = reference.unit_uniform("points", (2, 5), 3)
    np.testing.assert_array_equal(unit_uniform("points", (2, 5), seed=3), expected)


@pytest.mark.golden
def test_a_stored_clip_is_drawn_again(golden: GoldenFolders) -> None:
    stored = Golden(golden / "forward/r50_online_a.npz")
    height, width = stored.meta["input_hw"]
    frames = make_frames(stored.meta["T"], height, width, seed=stored.meta["frames_seed"])
    torch.testing.assert_close(frames, stored.tensor("frames"), rtol=0, atol=0)


@pytest.mark.golden
@pytest.mark.parametrize(("case", "dtype", "rtol"), [("", torch.float32, 1e-7), ("_f64", torch.float64, 1e-15)])
def test_a_stored_clip_is_normalised_and_padded_again(
    golden: GoldenFolders, case: str, dtype: torch.dtype, rtol: float
) -> None:
    stored = Golden(golden / f"forward/r50_online_b{case}.npz")
    stored.check("images", stored.images(dtype), rtol=rtol)


def test_a_module_is_filled_under_its_checkpoint_names() -> None:
    layer = fill_module(torch.nn.Linear(3, 2), prefix="tracker.", names=lambda name: f"class_embed.{name}")
    expected = fill_array("tracker.class_embed.weight", (2, 3))
    np.testing.assert_array_equal(layer.state_dict()["weight"].numpy(), expected)


def test_a_folder_that_lacks_the_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "a.npz").touch()
    folders = GoldenFolders(tmp_path / "first", tmp_path / "second")
    assert folders / "a.npz" == tmp_path / "second" / "a.npz"
    with pytest.raises(pytest.skip.Exception, match=r"no b\.npz in"):
        _ = folders / "b.npz"
