from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.metrics import MeanIoU
from mvcseg.vlm import VSPW_GROUPS, confusion_groups, confusion_shares
from mvcseg.vlm.confusion import called_without_truth

WATER = torch.tensor(
    [  # sky river lake sea | no class
        [900, 0, 0, 0, 0],
        [0, 60, 30, 10, 0],
        [0, 20, 70, 0, 10],
        [10, 0, 0, 190, 0],
    ]
)
NAMES = ["sky", "river", "lake", "sea"]


# ENet (benchmarks/camvid_segmenters.py) on the 62 frames of CamVid's test clip, as `mvcseg eval` counts; the last
# column, predictions that are no class, is empty.
CAMVID_NAMES = ["sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence"]
CAMVID_NAMES += ["car", "pedestrian", "bicyclist"]
CAMVID = torch.tensor(
    [
        [2100229, 9104, 9214, 0, 0, 169659, 333, 0, 774, 0, 0, 0],
        [3962, 1284807, 27886, 600, 10570, 174359, 11234, 5047, 93734, 19672, 3194, 0],
        [5171, 21333, 30981, 21, 2462, 10291, 909, 578, 1661, 4635, 97, 0],
        [0, 120, 281, 1627768, 50973, 0, 0, 1, 26918, 513, 2318, 0],
        [0, 7277, 2938, 32328, 476539, 43, 0, 140, 3222, 4372, 865, 0],
        [19442, 317458, 17965, 2764, 7305, 1829194, 10447, 2749, 48552, 1999, 1404, 0],
        [1, 17407, 1288, 163, 16, 7052, 23862, 0, 1603, 475, 45, 0],
        [40, 49657, 2562, 1846, 9774, 164, 1, 2990, 10559, 4390, 2137, 0],
        [2637, 141079, 5673, 58126, 9411, 15427, 10417, 64, 914369, 9090, 7226, 0],
        [16, 19162, 6041, 66, 3154, 1873, 771, 1282, 3867, 77107, 2681, 0],
        [1, 2074, 366, 1666, 3649, 1582, 383, 133, 2570, 6971, 34220, 0],
    ]
)


def pairs_of(shares: dict[tuple[int, int], float], *, size: int) -> torch.Tensor:
    """A matrix of classes of 1000 pixels each, in which just these pairs are confused, about so much."""
    matrix = torch.eye(size, dtype=torch.float64) * 1000
    for (i, j), share in shares.items():
        matrix[i, j] = matrix[j, i] = 1000 * share / 2
    return matrix


def test_share_is_the_confused_over_the_pixels_of_the_class_that_suffers_more() -> None:
    shares = confusion_shares(WATER)
    assert shares[1, 2] == pytest.approx(50 / 120)  # all that is or was called river: 100 + 80 - 60
    assert shares[1, 3] == pytest.approx(10 / 120)
    assert shares[0, 3] == pytest.approx(10 / 210)  # the sea's 200 + 200 - 190, not the sky's 910
    assert shares[2, 3] == 0


def test_shares_of_a_class_add_up_to_what_its_iou_lacks() -> None:
    state = torch.randint(0, 50, (6, 7), generator=torch.Generator().manual_seed(3))
    metric = MeanIoU(6)
    metric.state = state
    square = state[:, :6]
    union = state.sum(1) + square.sum(0) - square.diagonal()
    for i in range(6):
        lost = sum((square[i, j] + square[j, i]) / union[i] for j in range(6) if j != i) + state[i, 6] / union[i]
        assert float(lost) == pytest.approx(1 - float(metric.per_class()[i]))
        for j in range(6):
            expected = 0.0 if i == j else float(square[i, j] + square[j, i]) / min(float(union[i]), float(union[j]))
            assert float(confusion_shares(state)[i, j]) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(0, 2**31), st.sampled_from([3, 100]))
def test_shares_are_symmetric_fractions(size: int, seed: int, most: int) -> None:
    matrix = torch.randint(0, most, (size, size + 1), generator=torch.Generator().manual_seed(seed))
    shares = confusion_shares(matrix)
    assert torch.equal(shares, shares.T)
    assert bool(((shares >= 0) & (shares <= 1)).all())
    assert bool((shares.diagonal() == 0).all())


def test_small_class_lost_in_a_large_one_is_confused_wholly() -> None:
    assert confusion_shares(torch.tensor([[10**9, 0], [5, 0]]))[0, 1] == 1


def test_class_without_ground_truth_is_confused_with_none() -> None:
    assert bool((confusion_shares(torch.tensor([[50, 40, 0], [0, 0, 0], [0, 0, 9]])) == 0).all())
    assert confusion_groups(torch.zeros(4, 5, dtype=torch.int64)) == ()


def test_pairs_that_are_confused_become_groups_most_confused_first() -> None:
    groups = confusion_groups(pairs_of({(0, 3): 0.3, (1, 4): 0.6}, size=6))
    assert [group.class_ids for group in groups] == [(1, 4), (0, 3)]


def test_real_confusions_of_street_scenes_give_pairs_that_can_be_mistaken() -> None:
    def named(**options: float) -> list[list[str]]:
        groups = confusion_groups(CAMVID, class_names=CAMVID_NAMES, **options)  # type: ignore[arg-type]
        return [[CAMVID_NAMES[index] for index in group.class_ids] for group in groups]

    assert named() == [["building", "fence"], ["tree", "sign_symbol"], ["road", "pavement"], ["car", "bicyclist"]]
    assert named(min_share=0.4) == [["building", "fence"]]
    # 49657 fences called buildings and 5047 back, of all that is or was called a fence
    fence = 40 + 49657 + 2562 + 1846 + 9774 + 164 + 1 + 2990 + 10559 + 4390 + 2137 + 5047 + 578 + 1 + 140 + 2749
    fence += 64 + 1282 + 133
    assert confusion_shares(CAMVID)[1, 7] == pytest.approx((49657 + 5047) / fence)
    # a lenient bound takes more, and no group takes all
    assert max(map(len, named(min_share=0.01, largest=11))) < 7


def test_no_chain_swallows_everything() -> None:
    chain = pairs_of({(i, i + 1): 0.4 for i in range(9)}, size=10)
    found = sorted(group.class_ids for group in confusion_groups(chain))
    assert found == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]


def test_classes_all_confused_with_each_other_are_one_group_of_bounded_size() -> None:
    every = pairs_of({(i, j): 0.4 for i in range(7) for j in range(i)}, size=7)
    assert [group.class_ids for group in confusion_groups(every, largest=7)] == [(0, 1, 2, 3, 4, 5, 6)]
    sizes = [len(group.class_ids) for group in confusion_groups(every, largest=3)]
    assert max(sizes) == 3
    assert sum(sizes) >= 6
    assert confusion_groups(every, largest=1) == ()


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(0, 2**31), st.integers(2, 5), st.sampled_from([0.01, 0.1, 0.3]))
def test_every_group_keeps_its_promises(size: int, seed: int, largest: int, min_share: float) -> None:
    generator = np.random.default_rng(seed)
    matrix = torch.from_numpy(generator.integers(0, 30, (size, size)) ** 2 + np.diag([400] * size))
    shares = confusion_shares(matrix)
    groups = confusion_groups(matrix, min_share=min_share, largest=largest)
    assert groups == confusion_groups(matrix.clone(), min_share=min_share, largest=largest)
    members = [index for group in groups for index in group.class_ids]
    assert len(members) == len(set(members))
    for group in groups:
        assert 2 <= len(group.class_ids) <= largest
        assert all(shares[i, j] >= min_share for i in group.class_ids for j in group.class_ids if i != j)
    if largest == 2:  # nothing that could be joined is left
        alone = [index for index in range(size) if index not in members]
        assert all(shares[i, j] < min_share for i in alone for j in alone if i != j)


def test_result_is_the_same_for_classes_in_another_order() -> None:
    generator = np.random.default_rng(5)
    matrix = torch.from_numpy(generator.integers(1, 1000, (8, 8)) + np.diag([2000] * 8))
    order = torch.from_numpy(generator.permutation(8))
    there = confusion_groups(matrix[order][:, order])
    back = [tuple(sorted(int(order[index]) for index in group.class_ids)) for group in there]
    assert back == [group.class_ids for group in confusion_groups(matrix)]
    assert back


def test_noun_is_that_of_vspw_where_all_classes_lie_in_one_of_its_groups() -> None:
    assert [(group.noun, group.class_ids) for group in confusion_groups(WATER, class_names=NAMES)] == [
        ("water", (1, 2))
    ]
    ids = [VSPW_CLASSES.index(name) for name in ("crosswalk", "road")]
    (group,) = confusion_groups(pairs_of({(ids[0], ids[1]): 0.5}, size=124), class_names=VSPW_CLASSES)
    assert group.noun == next(known.noun for known in VSPW_GROUPS if set(ids) <= set(known.class_ids))


def test_noun_is_neutral_where_nothing_better_is_known() -> None:
    matrix = pairs_of({(0, 1): 0.5}, size=2)
    assert [group.noun for group in confusion_groups(matrix)] == ["area"]
    assert [group.noun for group in confusion_groups(matrix, class_names=["road", "pavement"])] == ["area"]
    (group,) = confusion_groups(matrix, class_names=["area", "pavement"])
    assert group.noun == "region"
    assert len(group.answers(["area", "pavement"])) == 2


def test_noun_of_vspw_that_is_a_class_itself_leaves_two_to_choose_from() -> None:
    (group,) = confusion_groups(pairs_of({(0, 1): 0.5}, size=2), class_names=["water", "lake"])
    assert group.answers(["water", "lake"]) == {0: "water", 1: "lake"}


def test_given_noun_counts_where_the_classes_agree_on_one() -> None:
    matrix = pairs_of({(0, 1): 0.5}, size=2)
    names = ["road", "pavement"]
    assert confusion_groups(matrix, class_names=names, nouns={"road": "ground"})[0].noun == "ground"
    both = {"road": "ground", "pavement": "way"}
    assert confusion_groups(matrix, class_names=names, nouns=both)[0].noun == "area"


def test_classes_called_the_same_are_never_offered_together() -> None:
    matrix = pairs_of({(0, 1): 0.9, (0, 2): 0.5, (1, 2): 0.5}, size=4)
    (group,) = confusion_groups(matrix, class_names=["a lake", "A_lake", "pond", " _ "])
    assert group.class_ids == (0, 2)


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        (torch.zeros(3, 5), ShapeError, r"expected .K, K. or .K, K . 1., got .3, 5."),
        (torch.zeros(3), ShapeError, "matrix"),
        (torch.zeros(0, 0), ShapeError, "matrix"),
        (torch.zeros(2, 2, dtype=torch.bool), DTypeError, "expected a tensor of counts, got torch.bool"),
        ([[1, 2], [3, 4]], DTypeError, "expected a tensor of counts, got list"),
        (torch.tensor([[1, -1], [0, 1]]), ConfigError, "negative"),
        (torch.tensor([[1, float("nan")], [0, 1]]), ConfigError, "not finite"),
    ],
)
def test_what_is_no_confusion_matrix_is_refused(matrix: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        confusion_shares(matrix)
    with pytest.raises(error, match=message):
        confusion_groups(matrix)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ShapeError, match="class_names: expected 4 from matrix, got 3"):
        confusion_groups(WATER, class_names=NAMES[:3])
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="min_share"):
            confusion_groups(WATER, min_share=share)
    with pytest.raises(ConfigError, match="largest"):
        confusion_groups(WATER, largest=0)
    with pytest.raises(ConfigError, match="nouns: expected names of classes as keys, got 'pond'"):
        confusion_groups(WATER, class_names=NAMES, nouns={"pond": "water"})


def test_classes_without_ground_truth_are_found_with_what_they_were() -> None:
    matrix = torch.tensor(  # rows sky, river, lake, sea, none of the last two; the last column is no class
        [[1000, 0, 9, 0, 40], [0, 60, 30, 10, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    )
    assert called_without_truth(matrix) == {2: ((1, 30),), 3: ((1, 10),)}  # 9 of sky's 1049 are below 1 %
    assert called_without_truth(matrix, min_share=0.005) == {2: ((1, 30), (0, 9)), 3: ((1, 10),)}
    assert called_without_truth(WATER) == {}
    with pytest.raises(ShapeError, match="matrix"):
        called_without_truth(torch.zeros(3, 5))
