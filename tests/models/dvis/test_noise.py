from __future__ import annotations

import pytest
import torch
from golden_files import Golden, GoldenFolders

from mvcseg.errors import ConfigError
from mvcseg.models.dvis.noise import NoiseMode, QueryNoise, channel_cut, shuffle, weighted_average
from mvcseg.ops.matching import match_frames


@pytest.mark.golden
def test_noise_is_the_references(golden: GoldenFolders) -> None:
    stored = Golden(golden / "ops/noiser.npz")
    permutation, width = stored.tensor("permutation"), stored.arrays["cur"].shape[-1]
    queries = stored.tensor("cur_no_norm")[:, 0]
    draws = {
        "rs": shuffle(permutation),
        "wa": weighted_average(permutation, stored.tensor("wa_weight").flatten()),
        "cc": channel_cut(permutation, stored.tensor("cc_index"), width=width),
    }
    for mode, draw in draws.items():
        assert draw.order.tolist() == stored.arrays[f"{mode}.indices"].tolist()
        torch.testing.assert_close(draw.apply(queries), stored.tensor(f"{mode}.out")[:, 0], rtol=0, atol=1e-6)


@pytest.mark.golden
def test_without_noise_queries_are_matched_as_by_the_reference(golden: GoldenFolders) -> None:
    stored = Golden(golden / "ops/noiser.npz")
    current, last = (stored.tensor(name)[:, 0].unsqueeze(0) for name in ("cur", "ref"))
    order = match_frames(current.unsqueeze(1), previous=last)[0, 0]
    assert order.tolist() == stored.arrays["none.indices"].tolist() == stored.arrays["inactive.indices"].tolist()


def test_three_queries_by_hand() -> None:
    queries = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0], [0.0, 0.0, 0.0, 0.0]])
    permutation = torch.tensor([1, 2, 0])
    assert shuffle(permutation).apply(queries).tolist() == queries[permutation].tolist()
    mixed = weighted_average(permutation, torch.tensor([0.25, 0.5, 1.0]))
    assert mixed.apply(queries).tolist() == [[7.75, 15.5, 23.25, 31.0], [5.0, 10.0, 15.0, 20.0], [0.0] * 4]
    assert mixed.order.tolist() == [1, 1, 2]
    cut = channel_cut(permutation, torch.tensor([1, 2, 0]), width=4)
    assert cut.apply(queries).tolist() == [[1.0, 20.0, 30.0, 40.0], [10.0, 20.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]]
    assert cut.order.tolist() == [1, 1, 0]


@pytest.mark.parametrize("mode", ["rs", "wa", "cc"])
def test_frames_are_spoilt_with_the_given_probability(mode: NoiseMode, generator: torch.Generator) -> None:
    draws = QueryNoise(mode, probability=0.3).draw(1000, queries=4, width=6, generator=generator)
    assert 240 < sum(draw is not None for draw in draws) < 360  # four standard deviations
    orders = {tuple(draw.permutation.tolist()) for draw in draws if draw is not None}
    assert len(orders) == 24


def test_certain_noise_leaves_no_frame_alone_and_no_noise_leaves_all(generator: torch.Generator) -> None:
    assert None not in QueryNoise("wa", probability=1.0).draw(200, queries=4, width=6, generator=generator)
    assert set(QueryNoise("wa", probability=0.0).draw(200, queries=4, width=6, generator=generator)) == {None}
    assert set(QueryNoise("none", probability=1.0).draw(9, queries=4, width=6, generator=generator)) == {None}


def test_draws_per_query_cover_their_range(generator: torch.Generator) -> None:
    wa = QueryNoise("wa", probability=1.0).draw(300, queries=4, width=6, generator=generator)
    shares = torch.stack([draw.kept for draw in wa if draw is not None])
    assert shares.shape == (300, 4, 1)
    assert abs(shares.mean() - 0.5) < 0.04
    assert (shares.std(dim=1) > 0).all()
    cc = QueryNoise("cc", probability=1.0).draw(300, queries=4, width=6, generator=generator)
    cuts = torch.stack([draw.kept for draw in cc if draw is not None]).sum(-1)
    assert cuts.unique().tolist() == [0, 1, 2, 3, 4, 5]


def test_the_same_generator_draws_the_same_noise() -> None:
    def draw() -> list[list[int]]:
        draws = QueryNoise().draw(20, queries=5, width=8, generator=torch.Generator().manual_seed(7))
        return [] if draws is None else [d.permutation.tolist() for d in draws if d is not None]

    assert draw() == draw() != []


def test_gradients_pass_through_noise() -> None:
    queries = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    draw = weighted_average(torch.tensor([4, 3, 2, 1, 0]), torch.rand(5))
    assert torch.autograd.gradcheck(draw.apply, queries)


def test_unknown_modes_and_probabilities_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"none, rs, wa, cc.*'shuffle'"):
        QueryNoise("shuffle")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        QueryNoise(probability=1.5)
