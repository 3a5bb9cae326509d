from __future__ import annotations

import sys

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.ops import confusion
from mvcseg.ops.confusion import check_label_counts, confusion_matrix, count_pairs

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64]


def counted_one_by_one(pred: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    counts = np.zeros((num_classes, num_classes + 1), dtype=np.int64)
    for given_class, true in zip(pred.ravel().tolist(), labels.ravel().tolist(), strict=True):
        if true != 255:
            counts[true, given_class if 0 <= given_class < num_classes else num_classes] += 1
    return counts


@pytest.fixture(params=["as it comes", "every pixel", "runs only", "without opencv", "on a device"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways to count, each forced."""
    if request.param == "every pixel":
        monkeypatch.setattr(confusion, "DENSE", -1)
    elif request.param == "runs only":
        monkeypatch.setattr(confusion, "DENSE", 1)
    elif request.param == "without opencv":
        monkeypatch.setitem(sys.modules, "cv2", None)
    elif request.param == "on a device":
        monkeypatch.setattr(confusion, "_count_on_cpu", confusion._count_on_device)


@pytest.mark.usefixtures("way")
def test_hand_case(device: torch.device) -> None:
    labels = torch.tensor([[0, 0, 0], [1, 1, 255]], device=device)
    pred = torch.tensor([[0, 1, 255], [1, -1, 1]], device=device)
    expected = torch.tensor([[1, 1, 1], [0, 1, 1]])
    counts = confusion_matrix(pred, labels, num_classes=2)
    assert counts.device == pred.device
    assert counts.dtype == torch.int64
    assert torch.equal(counts.cpu(), expected)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("num_classes", [1, 5, 124, 254, 255])
def test_equals_counting_pixel_by_pixel(num_classes: int, device: torch.device, generator: torch.Generator) -> None:
    pred = torch.randint(0, 256, (3, 17, 23), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, num_classes + 1, (3, 17, 23), generator=generator)
    labels[labels == num_classes] = 255
    counts = confusion_matrix(pred.to(device), labels.to(device), num_classes=num_classes)
    assert np.array_equal(counts.cpu().numpy(), counted_one_by_one(pred.numpy(), labels.numpy(), num_classes))


@settings(max_examples=40, deadline=None)
@given(
    npst.arrays(np.int64, st.integers(0, 30), elements=st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 260)),
    st.integers(1, 255),
    st.data(),
)
def test_any_prediction_value_counts_once(pred: np.ndarray, num_classes: int, data: st.DataObject) -> None:
    labels = data.draw(npst.arrays(np.int64, pred.shape, elements=st.integers(0, num_classes - 1) | st.just(255)))
    counts = confusion_matrix(torch.from_numpy(pred), torch.from_numpy(labels), num_classes=num_classes)
    assert np.array_equal(counts.numpy(), counted_one_by_one(pred, labels, num_classes))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_integer_dtype_gives_the_same_counts(dtype: torch.dtype) -> None:
    pred, labels = torch.tensor([0, 3, 2, 1, 120]), torch.tensor([0, 3, 3, 0, 2])
    expected = confusion_matrix(pred, labels, num_classes=4)
    assert torch.equal(confusion_matrix(pred.to(dtype), labels.to(dtype), num_classes=4), expected)
    assert expected[2, 4] == 1


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.int8, torch.int32])
def test_negative_prediction_is_no_class_even_with_255_classes(dtype: torch.dtype) -> None:
    pred = torch.tensor([-1, -128, -126], dtype=dtype)
    counts = confusion_matrix(pred, torch.zeros(3, dtype=torch.uint8), num_classes=255)
    assert counts[0, 255] == 3


@pytest.mark.usefixtures("way")
def test_more_pixels_than_one_chunk(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    pred, labels = torch.randint(0, 6, (2, 5, 7, 11), generator=generator).unbind()
    whole = confusion_matrix(pred, labels, num_classes=6)
    monkeypatch.setattr(confusion, "CHUNK", 13)
    monkeypatch.setattr(confusion, "DEVICE_CHUNK", 13)
    assert torch.equal(confusion_matrix(pred, labels, num_classes=6), whole)
    assert whole.sum() == pred.numel()


def test_coherent_maps_do_not_load_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "_opencv", lambda: pytest.fail("loaded"))
    labels = torch.arange(4).repeat_interleave(50)
    assert confusion_matrix(labels, labels, num_classes=4).diagonal().tolist() == [50, 50, 50, 50]


def test_non_contiguous_maps_are_counted(generator: torch.Generator) -> None:
    pred, labels = torch.randint(0, 4, (2, 6, 8), generator=generator).unbind()
    counts = confusion_matrix(pred.T, labels.T, num_classes=4)
    assert torch.equal(counts, confusion_matrix(pred, labels, num_classes=4))


def test_nothing_to_count_gives_zeros() -> None:
    empty = torch.zeros(0, 4, 5, dtype=torch.uint8)
    assert torch.equal(confusion_matrix(empty, empty, num_classes=3), torch.zeros(3, 4, dtype=torch.int64))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("value", "dtype", "name"),
    [
        (3, torch.uint8, "3"),
        (254, torch.int64, "254"),
        (-1, torch.int64, "-1|got a negative value"),
        (256, torch.int32, "256|got a value above 255"),
        (2**40, torch.int64, "1099511627776|got a value above 255"),
    ],
)
def test_label_that_is_no_class_is_named(value: int, dtype: torch.dtype, name: str) -> None:
    labels = torch.tensor([0, value], dtype=dtype)
    with pytest.raises(DataError, match=rf"labels: expected class ids 0\.\.2 or 255 \(ignored\), (got {name})"):
        confusion_matrix(torch.zeros(2, dtype=torch.uint8), labels, num_classes=3)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_number_of_threads_does_not_matter(
    threads: int, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    pred, labels = torch.randint(0, 6, (2, 5, 7, 11), generator=generator).unbind()
    whole = confusion_matrix(pred, labels, num_classes=6)
    monkeypatch.setattr(confusion, "CHUNK", 50)
    monkeypatch.setattr(confusion.torch, "get_num_threads", lambda: threads)
    assert torch.equal(confusion_matrix(pred, labels, num_classes=6), whole)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_counting_off_the_cpu_never_waits_for_the_device(dtype: torch.dtype) -> None:
    """Tensors without values refuse whatever has to look at one, or to bring it to the host."""
    maps = torch.empty(3, 5, 7, dtype=dtype, device="meta")
    counts = count_pairs(maps, maps, num_classes=4)
    assert (counts.device.type, counts.shape) == ("meta", (258, 5))


def test_an_accelerators_counts_keep_every_label(generator: torch.Generator) -> None:
    labels = torch.tensor([0, 1, 1, 255, 200, -1, -9, 256, 2**40])
    counts = confusion._count_on_device(torch.zeros_like(labels), labels, num_classes=2)
    places = {0: 1, 1: 2, 255: 1, 200: 1, confusion.BELOW: 2, confusion.ABOVE: 2}
    assert counts[:, 0].tolist() == [places.get(row, 0) for row in range(258)]
    assert counts.sum() == len(labels)
    with pytest.raises(DataError, match="got 200"):
        check_label_counts(counts.sum(dim=1), num_classes=2)


def test_unmapped_mask_gets_the_hint() -> None:
    with pytest.raises(DataError, match="raw mask"):
        confusion_matrix(torch.tensor([0]), torch.tensor([3]), num_classes=3)


def test_bad_arguments_are_typed_errors() -> None:
    ids = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ShapeError, match=r"labels: expected \(2, 3\) from pred, got \(3, 2\)"):
        confusion_matrix(ids, ids.T, num_classes=3)
    with pytest.raises(DTypeError, match="pred: expected an integer tensor"):
        confusion_matrix(ids.float(), ids, num_classes=3)
    with pytest.raises(DTypeError, match="labels: expected an integer tensor"):
        confusion_matrix(ids, ids.bool(), num_classes=3)
    with pytest.raises(ConfigError, match="num_classes"):
        confusion_matrix(ids, ids, num_classes=256)


def test_arguments_are_left_as_they_are() -> None:
    pred, labels = torch.tensor([-5, 300]), torch.tensor([255, 0])
    confusion_matrix(pred, labels, num_classes=2)
    assert pred.tolist() == [-5, 300]
    assert labels.tolist() == [255, 0]
