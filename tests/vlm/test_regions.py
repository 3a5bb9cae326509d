from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.vlm.regions import areas, find_regions, frame_of, mask_of

GROUPS = {1: 0, 2: 0, 3: 0, 4: 1, 5: 1}


def pixels_of(labels: torch.Tensor, region: object) -> set[tuple[int, int, int]]:
    found = set()
    for frame, parts in region.parts.items():  # type: ignore[attr-defined]
        mask = mask_of(areas(frame_of(labels, frame), classes=GROUPS), parts)
        found |= {(frame, int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    return found


def reference(labels: torch.Tensor) -> set[frozenset[tuple[int, int, int]]]:
    """The rule of the module's docstring, pixel by pixel."""
    frames = labels.tolist()
    area_of: dict[tuple[int, int, int], int] = {}
    members: list[list[tuple[int, int, int]]] = []
    for t, rows in enumerate(frames):
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                if value not in GROUPS or (t, y, x) in area_of:
                    continue
                stack = [(y, x)]
                area_of[t, y, x] = len(members)
                members.append([])
                while stack:
                    cy, cx = stack.pop()
                    members[-1].append((t, cy, cx))
                    for ny in range(max(0, cy - 1), min(len(rows), cy + 2)):
                        for nx in range(max(0, cx - 1), min(len(row), cx + 2)):
                            if rows[ny][nx] == value and (t, ny, nx) not in area_of:
                                area_of[t, ny, nx] = len(members) - 1
                                stack.append((ny, nx))
    parent = list(range(len(members)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    shared = Counter((area, area_of[t + 1, y, x]) for (t, y, x), area in area_of.items() if (t + 1, y, x) in area_of)
    for (one, other), count in shared.items():
        a, b = (frames[t][y][x] for t, y, x in (members[one][0], members[other][0]))
        halves = 2 * count >= len(members[one]) and 2 * count >= len(members[other])
        if GROUPS[a] == GROUPS[b] and halves:
            parent[root(one)] = root(other)
    regions: dict[int, set[tuple[int, int, int]]] = {}
    for number, pixels in enumerate(members):
        regions.setdefault(root(number), set()).update(pixels)
    return {frozenset(pixels) for pixels in regions.values()}


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(1, 1, 1), (3, 4, 6), (4, 6, 5), (5, 2, 3)]), st.booleans())
def test_regions_are_those_of_the_rule_written_out(seed: int, size: tuple[int, int, int], is_blocky: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 7, size, generator=generator)
    if is_blocky:  # classes that stay and flip, so that every kind of link occurs
        labels = torch.where(torch.rand(size, generator=generator) < 0.8, labels[:1, :1, :1], labels)
    found = find_regions(labels, group_of=GROUPS, min_area=0)
    assert {frozenset(pixels_of(labels, region)) for region in found.large} == reference(labels)
    assert found.too_small == 0
    for region in found.large:
        pixels = sorted(pixels_of(labels, region))
        assert region.pixels == len(pixels) == sum(count for _, count in region.shares)
        assert dict(region.shares) == Counter(labels[pixel].item() for pixel in pixels)
        assert region.frames == (pixels[0][0], pixels[-1][0])
        rows, columns = [y for _, y, _ in pixels], [x for _, _, x in pixels]
        assert region.box == (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
        per_frame = Counter(t for t, _, _ in pixels)
        assert region.key_frame == min(per_frame, key=lambda t: (-per_frame[t], t))
    sizes = [region.pixels for region in found.large]
    assert sizes == sorted(sizes, reverse=True)


def test_area_whose_class_flips_stays_one_region() -> None:
    labels = torch.zeros(5, 6, 8, dtype=torch.uint8)
    labels[:, 1:5, 2:7] = 1
    labels[2, 1:5, 2:7] = 2
    (region,) = find_regions(labels, group_of=GROUPS, min_area=0).large
    assert (region.frames, region.box, region.shares) == ((0, 4), (2, 1, 7, 5), ((1, 80), (2, 20)))


def test_classes_side_by_side_stay_two_regions() -> None:
    labels = torch.ones(5, 6, 8, dtype=torch.uint8)
    labels[:, :, 4:] = 2
    regions = find_regions(labels, group_of=GROUPS, min_area=0).large
    assert sorted(region.shares for region in regions) == [((1, 120),), ((2, 120),)]


def test_other_groups_and_classes_are_left_alone() -> None:
    labels = torch.tensor([[[1, 1, 0, 4, 255]], [[4, 1, 0, 4, 6]]])
    regions = find_regions(labels, group_of=GROUPS, min_area=0).large
    assert sorted((region.group, region.shares) for region in regions) == [
        (0, ((1, 3),)),
        (1, ((4, 1),)),
        (1, ((4, 2),)),
    ]


def test_region_is_large_when_it_is_large_in_one_frame() -> None:
    labels = torch.zeros(3, 5, 10, dtype=torch.uint8)
    labels[:, 0, 0] = 1  # 2 % of each frame
    labels[1, 3:, 4:6] = 4  # 8 % of one
    found = find_regions(labels, group_of=GROUPS, min_area=0.05)
    assert [region.shares for region in found.large] == [((4, 4),)]
    assert found.too_small == 1


def test_parts_of_one_region_in_a_frame_count_together() -> None:
    labels = torch.zeros(2, 1, 10, dtype=torch.uint8)
    labels[0, 0, :] = 1
    labels[1, 0, :5], labels[1, 0, 5:] = 1, 2
    (region,) = find_regions(labels, group_of=GROUPS, min_area=1.0).large
    assert len(region.parts[1]) == 2
    assert region.pixels == 20


def test_road_and_grass_that_are_one_area_in_one_frame_stay_two_before_and_after() -> None:
    labels = torch.ones(5, 6, 8, dtype=torch.uint8)
    labels[:, :, 5:] = 2
    labels[2] = 2  # the larger part flips and swallows the smaller for a frame
    regions = find_regions(labels, group_of=GROUPS, min_area=0).large
    assert [(region.frames, region.pixels) for region in regions] == [((0, 4), 168), ((0, 1), 36), ((3, 4), 36)]


def test_areas_that_cover_less_than_half_of_each_other_are_two_regions() -> None:
    labels = torch.zeros(2, 1, 12, dtype=torch.uint8)
    labels[0, 0, :8] = 1
    labels[1, 0, 4:12] = 1
    assert len(find_regions(labels, group_of=GROUPS, min_area=0).large) == 1
    labels[1, 0, 4] = 0
    assert len(find_regions(labels, group_of=GROUPS, min_area=0).large) == 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integer_labels_are_read_one_frame_at_a_time(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 7, (4, 5, 6), generator=generator).to(dtype)

    class Lazy:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: slice) -> torch.Tensor:
            part = labels[index]
            assert len(part) == 1
            return part

    assert find_regions(Lazy(), group_of=GROUPS, min_area=0) == find_regions(labels.long(), group_of=GROUPS, min_area=0)


def test_negative_and_huge_labels_belong_to_no_group() -> None:
    labels = torch.tensor([[[-1, 1, 2**40, 300, -2]]])
    assert [region.pixels for region in find_regions(labels, group_of=GROUPS, min_area=0).large] == [1]


@pytest.mark.parametrize("labels", [torch.zeros(0, 4, 5, dtype=torch.uint8), torch.zeros(3, 4, 5, dtype=torch.uint8)])
def test_video_without_frames_or_group_pixels_has_no_regions(labels: torch.Tensor) -> None:
    assert find_regions(labels, group_of=GROUPS, min_area=0).large == ()
    assert find_regions(labels, group_of={}, min_area=0).large == ()


def test_wrong_labels_are_refused() -> None:
    with pytest.raises(DTypeError, match="integer tensor"):
        find_regions(torch.zeros(2, 3, 4), group_of=GROUPS, min_area=0)
    with pytest.raises(ShapeError, match=r"labels: expected \(1 h w\)"):
        find_regions(torch.zeros(2, 3, 4, 5, dtype=torch.uint8), group_of=GROUPS, min_area=0)
    with pytest.raises(DTypeError, match="slices that are tensors"):
        find_regions([[1, 2]], group_of=GROUPS, min_area=0)  # type: ignore[arg-type]


def test_frames_of_different_size_are_refused() -> None:
    class Uneven:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: slice) -> torch.Tensor:
            return torch.ones(1, 4, 5 + index.start, dtype=torch.uint8)

    with pytest.raises(ShapeError, match="in frame 1 as before"):
        find_regions(Uneven(), group_of=GROUPS, min_area=0)
