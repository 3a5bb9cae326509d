from __future__ import annotations

import pytest

from mvcseg.errors import ConfigError
from mvcseg.vlm import Price, Usage


def test_price_is_for_a_million_tokens() -> None:
    assert Price(input=2.5, output=10.0).of(Usage(3, prompt_tokens=400_000, completion_tokens=2_000)) == pytest.approx(
        1.02
    )
    assert Price(0, 0).of(Usage(1, 1000, 1000)) == 0


@pytest.mark.parametrize("amounts", [(-1, 0), (0, -0.1), (0, float("nan")), (float("nan"), 0), (float("inf"), 0)])
def test_price_that_nobody_charges_is_refused(amounts: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="price: expected numbers of at least 0"):
        Price(*amounts)
