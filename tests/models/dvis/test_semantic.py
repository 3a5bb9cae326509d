from __future__ import annotations

import pytest
import torch
from golden_files import Golden, GoldenFolders
from torch import Tensor
from torch.nn import functional

from mvcseg.models.dvis.semantic import (
    class_table,
    in_dataset_order,
    mask_logits,
    semantic_labels,
    semantic_scores,
)

ONE_FRAME = {"size": (32, 48), "output_size": (32, 48)}


def plain_scores(masks: Tensor, table: Tensor, *, size: tuple[int, int], output_size: tuple[int, int]) -> Tensor:
    """The whole frame at once, written as the sentence that defines it."""
    logits = masks.permute(2, 0, 1)[None]
    padded = (4 * masks.shape[0], 4 * masks.shape[1])
    full = functional.interpolate(logits, size=padded, mode="bilinear", align_corners=False)
    shares = full[:, :, : size[0], : size[1]].sigmoid()
    resized = functional.interpolate(shares, size=output_size, mode="bilinear", align_corners=False)[0]
    return torch.einsum("qk,qhw->khw", table, resized)


def draw(
    height: int, width: int, *, queries: int = 6, classes: int = 5, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height * width + queries)
    masks = 4 * torch.randn(height, width, queries, generator=generator, dtype=dtype)
    table = class_table(torch.randn(queries, classes + 1, generator=generator, dtype=dtype))
    return masks, table


def test_two_queries_by_hand() -> None:
    # constant masks: half of the first query, three quarters of the second, at every pixel
    masks = torch.tensor([1.0, 3.0]).log().expand(2, 3, 2)
    table = torch.tensor([[0.8, 0.1], [0.2, 0.4]])
    scores = semantic_scores(masks, table, size=(7, 11), output_size=(5, 20))
    expected = torch.tensor([0.5 * 0.8 + 0.75 * 0.2, 0.5 * 0.1 + 0.75 * 0.4])
    torch.testing.assert_close(scores, expected.view(2, 1, 1).expand(2, 5, 20))
    labels, is_number = semantic_labels(masks, table, size=(7, 11), output_size=(5, 20))
    assert is_number
    assert torch.equal(labels, torch.zeros(5, 20, dtype=torch.uint8))


def test_the_no_object_class_takes_its_share_and_is_dropped() -> None:
    torch.testing.assert_close(class_table(torch.tensor([[0.0, 0.0, 0.0, 0.0]])), torch.full((1, 3), 0.25))


@pytest.mark.parametrize("is_float64", [False, True])
@pytest.mark.parametrize(
    ("queries", "size", "output_size"),
    [
        (6, (64, 96), (64, 96)),  # nothing to crop or resize
        (6, (58, 85), (58, 85)),
        (6, (58, 85), (87, 128)),
        (6, (58, 85), (40, 59)),
        (6, (33, 65), (1, 1)),
        (6, (58, 85), (58, 200)),
        (6, (58, 85), (200, 85)),
        (700, (58, 85), (58, 85)),  # several strips: 16 rows each
        (700, (58, 85), (87, 128)),
        (700, (58, 85), (40, 59)),
        (700, (61, 96), (9, 96)),
        (3000, (62, 95), (62, 95)),  # the narrowest strips: 4 rows
        (3000, (62, 95), (150, 31)),
    ],
)
def test_strips_give_what_the_whole_frame_gives(
    queries: int, size: tuple[int, int], output_size: tuple[int, int], is_float64: bool
) -> None:
    masks, table = draw(16, 24, queries=queries, dtype=torch.float64 if is_float64 else torch.float32)
    with torch.no_grad():
        scores = semantic_scores(masks, table, size=size, output_size=output_size)
        labels, is_number = semantic_labels(masks, table, size=size, output_size=output_size)
    expected = plain_scores(masks, table, size=size, output_size=output_size)
    tolerance = 1e-12 if is_float64 else 1e-5
    torch.testing.assert_close(scores, expected, rtol=tolerance, atol=tolerance)
    assert is_number
    assert torch.equal(labels.long(), scores.argmax(dim=0))
    assert torch.equal(semantic_scores(masks, table, size=size, output_size=output_size), scores)  # with grad mode


def test_gradients_are_those_of_the_whole_frame() -> None:
    masks, table = draw(16, 24, queries=700, dtype=torch.float64)
    weight = torch.randn(5, 40, 59, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for scores_of in (semantic_scores, plain_scores):
        inputs = (masks.clone().requires_grad_(), table.clone().requires_grad_())
        scores = scores_of(*inputs, size=(58, 85), output_size=(40, 59))
        gradients.append(torch.autograd.grad((scores * weight).sum(), inputs))
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("masks_need_it", [False, True])
def test_gradients_reach_a_table_or_masks_alone(masks_need_it: bool) -> None:
    masks, table = draw(8, 12)
    (masks if masks_need_it else table).requires_grad_()
    semantic_scores(masks, table, size=(30, 45), output_size=(20, 50)).sum().backward()
    gradient = (masks if masks_need_it else table).grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_of_equal_scores_the_lowest_class_wins() -> None:
    masks, table = draw(8, 12)
    table[:, 1] = table.max() + 1  # classes 1 and 3 are best everywhere, and alike
    table[:, 3] = table[:, 1]
    labels, _ = semantic_labels(masks, table, **ONE_FRAME)
    assert torch.equal(labels, torch.ones(32, 48, dtype=torch.uint8))


@pytest.mark.parametrize("row", [0, 31])
def test_one_nan_anywhere_is_reported(row: int) -> None:
    masks, table = draw(8, 12, queries=3000)  # strips of 4 rows
    assert semantic_labels(masks, table, **ONE_FRAME)[1]
    masks[row // 4, 11, 2] = torch.nan
    assert not semantic_labels(masks, table, **ONE_FRAME)[1]


def test_nan_in_the_table_is_reported() -> None:
    masks, table = draw(8, 12)
    table[0, 4] = torch.nan
    assert not semantic_labels(masks, table, **ONE_FRAME)[1]


def test_nan_in_the_padding_is_not_seen() -> None:
    masks, table = draw(8, 12)
    masks[7], masks[:, 11] = torch.nan, torch.nan
    assert semantic_labels(masks, table, size=(24, 40), output_size=(30, 50))[1]


def test_columns_move_to_the_data_sets_order() -> None:
    table = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    # trained class 0 is class 2 of the data set, 1 is 0, 2 is 1
    moved = in_dataset_order(table, torch.tensor([2, 0, 1]))
    assert torch.equal(moved, torch.tensor([[0.2, 0.3, 0.1], [0.5, 0.6, 0.4]]))
    assert in_dataset_order(table, None) is table


@pytest.mark.parametrize("has_bias", [False, True])
def test_mask_logits_are_inner_products(has_bias: bool) -> None:
    kernels, features = torch.randn(5, 16), torch.randn(16, 6, 8)
    bias = torch.randn(5) if has_bias else None
    expected = torch.einsum("qc,chw->hwq", kernels, features) + (0 if bias is None else bias)
    torch.testing.assert_close(mask_logits(kernels, features, bias), expected)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("case", "size", "output_size", "has_second_table"),
    [
        ("plain", (64, 96), (64, 96), False),
        ("pad", (58, 85), (58, 85), True),
        ("pad_up", (58, 85), (87, 128), True),
        ("pad_down", (58, 85), (40, 59), True),
    ],
)
def test_scores_and_classes_are_the_references(
    golden: GoldenFolders, case: str, size: tuple[int, int], output_size: tuple[int, int], has_second_table: bool
) -> None:
    stored = Golden(golden / "ops/vss_inference.npz")
    table = class_table(stored.tensor("logits"))
    if has_second_table:
        table = torch.maximum(table, class_table(stored.tensor("aux_logits")))
    maps = stored.tensor("masks").permute(1, 2, 3, 0)  # (T, h, w, Q)
    scores = torch.stack([semantic_scores(x, table, size=size, output_size=output_size) for x in maps], dim=1)
    labels = torch.stack([semantic_labels(x, table, size=size, output_size=output_size)[0] for x in maps])
    expected = stored.tensor(f"{case}.scores_every8th_class")
    torch.testing.assert_close(scores[::8, :, ::3, ::3], expected, rtol=2e-6, atol=2e-6)
    assert torch.equal(labels, stored.tensor(f"{case}.argmax"))
