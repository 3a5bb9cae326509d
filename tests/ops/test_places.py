from __future__ import annotations

import numpy as np
import pytest

from mvcseg.ops.places import places


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 63, 4001])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("start", [0, 3])
def test_as_numpy_finds_them(count: int, share: float, start: int) -> None:
    flags = (np.random.default_rng(0).random(start + count) < share)[start:]
    found = places(flags)
    assert np.array_equal(found, np.flatnonzero(flags))
    assert found.dtype == np.intp


def test_the_flags_stay_as_they_are() -> None:
    flags = np.array([True, False] * 9)
    places(flags)
    assert flags.tolist() == [True, False] * 9
