"""SSIM losses of label maps: tiles that disagree against every window, and one number that stands for three counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from mvcseg.ops import label_windows
from mvcseg.ops.label_windows import losses_everywhere, losses_of_disagreement
from mvcseg.ops.similarity import binary_similarity

K = 4


def window_by_window(a: np.ndarray, b: np.ndarray, keep: np.ndarray, *, window: int) -> np.ndarray:
    """The definition: ones of every window counted, nothing left out."""
    losses = []
    for index in range(K):
        in_a, in_b = a == index, b == index
        counts = [
            sliding_window_view(ones, (window, window)).sum(axis=(2, 3)).astype(np.float64)
            for ones in (in_a, in_b, in_a & in_b)
        ]
        losses.append(((1 - binary_similarity(*counts, area=window**2)) * keep).sum())
    return np.array(losses)


def label_maps(seed: int, *, height: int, width: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Random labels 0 to K (K is no class) and a copy with a share of other labels."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, K + 1, (height // 5 + 1, width // 5 + 1), dtype=np.uint8).repeat(5, axis=0).repeat(5, axis=1)
    a = np.ascontiguousarray(a[:height, :width])
    other = rng.integers(0, K + 1, a.shape, dtype=np.uint8)
    return a, np.where(rng.random(a.shape) < share, other, a)


@pytest.mark.parametrize("window", [3, 5, 7])
def test_three_counts_have_a_number_of_their_own(window: int) -> None:
    """Otherwise two different losses would share a place of the table."""
    seen: dict[int, tuple[int, int, int]] = {}
    for n_both in range(window**2 + 1):
        for n_a in range(n_both, window**2 + 1):
            for n_b in range(n_both, window**2 + n_both - n_a + 1):
                ones = np.zeros((1, 1, window**2, 2), dtype=bool)
                ones[..., :n_a, 0] = True
                ones[..., n_a - n_both : n_a - n_both + n_b, 1] = True
                code = (n_a + 256 * n_b + 2089 * n_both) % 65536
                assert code not in seen, f"{(n_a, n_b, n_both)} and {seen[code]} are both {code}"
                seen[code] = n_a, n_b, n_both
    some = list(seen.items())[:: len(seen) // 50]
    for code, (n_a, n_b, n_both) in some:  # and the pixels add up to it
        ones = np.zeros((1, 1, window**2, 2), dtype=bool)
        ones[..., :n_a, 0] = True
        ones[..., n_a - n_both : n_a - n_both + n_b, 1] = True
        assert int(label_windows._codes(ones, window).sum(dtype=np.uint16)) == code


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**20),
    st.integers(9, 60),
    st.integers(9, 60),
    st.sampled_from([3, 7, 9]),
    st.sampled_from([0.0, 0.003, 0.3]),
)
def test_tiles_that_disagree_add_up_to_all_windows(
    seed: int, height: int, width: int, window: int, share: float
) -> None:
    a, b = label_maps(seed, height=height, width=width, share=share)
    keep = np.random.default_rng(seed).random((height - window + 1, width - window + 1)) < 0.8
    expected = window_by_window(a, b, keep, window=window)
    got = losses_of_disagreement(a, b, keep, num_classes=K, window=window)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)
    tensors = (torch.from_numpy(x)[None] for x in (a, b, keep))
    everywhere = losses_everywhere(*tensors, num_classes=K, window=window)
    np.testing.assert_allclose(everywhere[0].numpy(), expected, rtol=0, atol=1e-10)


def test_blobs_in_opposite_corners_are_both_seen() -> None:
    a = np.zeros((70, 100), dtype=np.uint8)
    b = a.copy()
    b[0, 0], b[-1, -1] = 1, 2
    keep = np.ones((64, 94), dtype=bool)
    got = losses_of_disagreement(a, b, keep, num_classes=K, window=7)
    np.testing.assert_allclose(got, window_by_window(a, b, keep, window=7), rtol=0, atol=1e-12)
    assert (got[:3] > 0).all()
    assert got[3] == 0


@pytest.mark.parametrize("pixels", [1, 5000, 18000])
def test_what_is_worked_on_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    a, b = label_maps(1, height=50, width=90, share=0.05)
    keep = np.ones((44, 84), dtype=bool)
    tensors = [torch.from_numpy(x)[None].repeat(2, 1, 1) for x in (a, b, keep)]
    one = losses_of_disagreement(a, b, keep, num_classes=K, window=7)
    other = losses_everywhere(*tensors, num_classes=K, window=7)
    monkeypatch.setattr(label_windows, "_PIXELS_AT_ONCE", pixels)
    monkeypatch.setattr(label_windows, "_DEVICE_PIXELS_AT_ONCE", pixels)
    np.testing.assert_array_equal(losses_of_disagreement(a, b, keep, num_classes=K, window=7), one)
    assert torch.equal(losses_everywhere(*tensors, num_classes=K, window=7), other)


@pytest.mark.parametrize("window", [7, 9])
def test_losses_everywhere_look_at_no_value(window: int) -> None:
    """Tensors without data: whatever asks for a value fails."""
    labels = torch.empty(2, 30, 40, dtype=torch.uint8, device="meta")
    keep = torch.empty(2, 31 - window, 41 - window, dtype=torch.bool, device="meta")
    got = losses_everywhere(labels, labels, keep, num_classes=K, window=window)
    assert (got.device.type, got.shape, got.dtype) == ("meta", (2, K), torch.float64)
