"""Colours of classes: fixed, distinct, VSPW's own for VSPW."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from mvcseg.data import class_colours
from mvcseg.data.palette import _cielab
from mvcseg.data.vspw_classes import VSPW_CLASSES, VSPW_COLOURS
from mvcseg.errors import ConfigError


def test_vspw_names_have_vspw_colours() -> None:
    colours = class_colours(VSPW_CLASSES)
    assert colours.dtype == np.uint8
    assert np.array_equal(colours, VSPW_COLOURS)
    renamed = [*VSPW_CLASSES[:-1], "tram"]
    assert not np.array_equal(class_colours(renamed), VSPW_COLOURS)


def test_a_class_keeps_its_colour_when_others_are_added() -> None:
    assert np.array_equal(class_colours(["a", "b", "c"]), class_colours(200)[:3])


def test_the_first_colours_are_far_apart_and_all_differ() -> None:
    colours = class_colours(255)
    assert len(np.unique(colours, axis=0)) == 255
    lab = rgb2lab(colours[:20, None].astype(np.uint8))[:, 0]
    distance = np.linalg.norm(lab[:, None] - lab, axis=2)[~np.eye(20, dtype=bool)]
    assert distance.min() > 30  # a just noticeable difference is about 2.3


def test_the_list_is_pinned() -> None:
    # Whoever draws two runs side by side counts on equal colours; a change here is a change of the file format.
    assert class_colours(4).tolist() == [[238, 0, 68], [153, 85, 221], [0, 153, 0], [255, 187, 0]]


def test_cielab_is_scikit_images() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (50, 3))
    assert np.abs(_cielab(rgb) - rgb2lab(rgb[:, None].astype(np.uint8))[:, 0]).max() < 0.1


def test_the_callers_copy_is_its_own() -> None:
    class_colours(3)[:] = 0
    assert class_colours(3).any()


@pytest.mark.parametrize("classes", [0, 256, [], ["x"] * 256])
def test_no_or_too_many_classes_are_an_error(classes: int | list[str]) -> None:
    with pytest.raises(ConfigError, match="class_names: expected 1 to 255 classes, got"):
        class_colours(classes)
