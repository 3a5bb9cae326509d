from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.ops import semantic_decoding_tiles
from mvcseg.ops.semantic_decoding import strip_labels
from mvcseg.ops.semantic_decoding_tiles import tile_labels

SIZE = (118, 205)
CLASSES = 20


def regions(
    *, queries: int = 24, sure: int = 8, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Mask logits of a frame of ``SIZE`` cut up among sure queries, the others seeing no object; class table."""
    generator = torch.Generator().manual_seed(seed)
    height, width = 32, 56
    seeds = torch.rand(sure, 2, generator=generator) * torch.tensor([height, width])
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    distance = torch.hypot(rows[..., None] - seeds[:, 0], columns[..., None] - seeds[:, 1])
    nearest = distance.topk(2, largest=False).values
    other = torch.where(distance == nearest[..., :1], nearest[..., 1:], nearest[..., :1])
    logits = (1.5 * (other - distance)).clamp(-9, 9)
    rest = torch.randn(height, width, queries - sure, generator=generator) - 5
    class_logits = torch.randn(queries, CLASSES + 1, generator=generator)
    class_logits[torch.arange(sure), torch.randperm(CLASSES, generator=generator)[:sure]] += 9
    class_logits[sure:, -1] += 9
    return torch.cat([logits, rest], dim=-1).to(dtype), class_logits.to(dtype).softmax(dim=-1)[:, :-1]


def noise(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """What an untrained model gives: every class may win everywhere."""
    generator = torch.Generator().manual_seed(1)
    masks = 4 * torch.randn(32, 56, 24, generator=generator, dtype=dtype)
    return masks, torch.randn(24, CLASSES + 1, generator=generator, dtype=dtype).softmax(dim=-1)[:, :-1]


def assert_labels_are_the_strips(masks: Tensor, table: Tensor, output_size: tuple[int, int] = SIZE) -> Tensor:
    labels, is_number = tile_labels(masks, table, size=SIZE, output_size=output_size)
    expected, expected_is_number = strip_labels(masks, table, size=SIZE, output_size=output_size)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels, expected)
    assert torch.equal(is_number, expected_is_number)
    return labels


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic_decoding_tiles, "_TILE", 1 << 14)


@pytest.fixture
def full_products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pixels of each product with all classes, as they are computed."""
    pixels: list[int] = []
    plain = semantic_decoding_tiles.class_scores

    def counted(shares: Tensor, weight: Tensor) -> Tensor:
        if len(weight) == CLASSES:
            pixels.append(shares[..., 0].numel())
        return plain(shares, weight)

    monkeypatch.setattr(semantic_decoding_tiles, "class_scores", counted)
    return pixels


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "output_size", [SIZE, (1, 1), (40, 59), (117, 204), (119, 300), (237, 205), (118, 411), (3, 400)]
)
def test_labels_are_those_of_all_classes(output_size: tuple[int, int], dtype: torch.dtype) -> None:
    labels = assert_labels_are_the_strips(*regions(dtype=dtype), output_size)
    assert output_size == (1, 1) or len(labels.unique()) > 4
    assert_labels_are_the_strips(*noise(dtype), output_size)


@pytest.mark.parametrize("seed", range(5))
def test_few_pixels_of_a_sure_frame_need_all_classes(full_products: list[int], seed: int) -> None:
    assert_labels_are_the_strips(*regions(seed=seed))
    bounds = full_products[:2]  # a product for the floor and one for the ceiling of all cells
    assert sum(full_products[2:]) < 0.25 * SIZE[0] * SIZE[1]
    assert bounds == [16 * 28] * 2


def test_a_cell_with_one_class_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    masks, table = torch.full((32, 56, 2), -8.0), torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.2, 0.8]])
    masks[..., 1] = 8

    def never(*_: object) -> Tensor:
        raise AssertionError("computed")

    monkeypatch.setattr(semantic_decoding_tiles.MaskProbabilities, "window", never)
    labels, is_number = tile_labels(masks, table, size=SIZE, output_size=(50, 70))
    assert torch.equal(labels, torch.full((50, 70), 2, dtype=torch.uint8))
    assert is_number


def test_of_equal_scores_the_lowest_class_wins() -> None:
    masks, table = regions()
    table[:, 7] = table[:, 3] = table.amax(dim=1)
    labels = assert_labels_are_the_strips(masks, table)
    assert torch.equal(labels, torch.full(SIZE, 3, dtype=torch.uint8))


def test_scores_that_differ_by_rounding_alone_are_left_to_all_classes(full_products: list[int]) -> None:
    masks, table = regions()
    rival = table[:, 3].nextafter(torch.ones(()))
    table[:, 3], table[:, 7] = table.amax(dim=1), rival
    table[:, 7] = table[:, 3].nextafter(torch.ones(())).where(torch.arange(24) % 2 == 0, table[:, 3])
    assert_labels_are_the_strips(masks, table)
    assert sum(full_products[2:]) >= SIZE[0] * SIZE[1]


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("output_size", [SIZE, (60, 100), (150, 222)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [(0, 0), (1, 20), (29, 51), (13, 20)])
def test_values_that_are_no_numbers_are_seen_where_the_strips_see_them(
    place: tuple[int, int], value: float, output_size: tuple[int, int]
) -> None:
    masks, table = regions()
    masks[(*place, 11)] = value
    assert_labels_are_the_strips(masks, table, output_size)


def test_nan_in_one_class_is_reported() -> None:
    masks, table = regions()
    table[5, 13] = torch.nan
    _, is_number = tile_labels(masks, table, size=SIZE, output_size=SIZE)
    assert not is_number


def test_nan_in_the_padding_is_not_seen() -> None:
    masks, table = regions()
    masks[31], masks[:, 54:] = torch.nan, torch.nan
    assert_labels_are_the_strips(masks, table)


def test_infinities_of_both_signs_side_by_side_make_nan() -> None:
    masks, table = regions()
    masks[15, 48, 11], masks[15, 49, 11] = torch.inf, -torch.inf  # where one class is sure to win
    assert_labels_are_the_strips(masks, table)
    assert not tile_labels(masks, table, size=SIZE, output_size=SIZE)[1]


def test_a_negative_weight_is_no_reason_to_drop_a_class() -> None:
    # class 1 loses to class 0 where the second mask is high, which is in every cell
    masks = torch.full((32, 56, 2), 8.0)
    masks[::2, ::2, 1] = -20
    labels = assert_labels_are_the_strips(masks, torch.tensor([[0.9, 1.0], [0.0, -1.0]]))
    assert len(labels.unique()) == 2


def test_masks_far_below_zero() -> None:
    masks, table = regions()
    assert_labels_are_the_strips(masks - 95, table)  # sums among the smallest numbers there are


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 3), (1, 37), (9, 2)])
def test_frames_smaller_than_a_cell(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    masks = 6 * torch.randn(-(-size[0] // 4), -(-size[1] // 4), 5, generator=generator)
    table = torch.rand(5, 4, generator=generator)
    for output_size in (size, (7, 6)):
        labels, _ = tile_labels(masks, table, size=size, output_size=output_size)
        assert torch.equal(labels, strip_labels(masks, table, size=size, output_size=output_size)[0])


def test_a_compromise_wins_between_two_cells() -> None:
    # classes 0 and 1 win on either side, class 2 is second on both, and first where a smaller output mixes them
    masks = torch.full((16, 16, 3), -12.0)
    masks[:, :8, 0], masks[:, 8:, 1] = 12, 12
    masks[..., 2] = 12
    table = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.3]])
    labels, _ = tile_labels(masks, table, size=(64, 64), output_size=(1, 1))
    assert int(labels) == 2
    assert torch.equal(labels, strip_labels(masks, table, size=(64, 64), output_size=(1, 1))[0])
    whole = functional.interpolate(masks.permute(2, 0, 1)[None], scale_factor=4, mode="bilinear").sigmoid()
    resized = functional.interpolate(whole, size=(1, 1), mode="bilinear")[0, :, 0, 0]
    assert int((resized @ table).argmax()) == 2
