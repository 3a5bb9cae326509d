from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from mvcseg.data.lazy_labels import LazyLabels
from mvcseg.metrics import MeanIoU, VideoConsistency

STORED = torch.arange(4 * 2 * 3, dtype=torch.uint8).view(4, 2, 3)


@pytest.fixture
def reads() -> list[slice]:
    return []


@pytest.fixture
def labels(reads: list[slice]) -> LazyLabels:
    def read(index: slice) -> torch.Tensor:
        reads.append(index)
        return STORED[index]

    return LazyLabels((4, 2, 3), read)


def test_shape_and_dtype_are_known_without_reading(labels: LazyLabels, reads: list[slice]) -> None:
    assert isinstance(labels, torch.Tensor)
    assert labels.shape == (4, 2, 3) == tuple(labels.size())
    assert (len(labels), labels.ndim, labels.dim(), labels.numel()) == (4, 3, 3, 24)
    assert labels.dtype == torch.uint8
    assert labels.device.type == "cpu"
    assert not labels.is_floating_point()
    assert reads == []


def test_slice_reads_its_frames_only(labels: LazyLabels, reads: list[slice]) -> None:
    assert torch.equal(labels[1:3], STORED[1:3])
    assert reads == [slice(1, 3, None)]
    assert type(labels[1:3]) is torch.Tensor


def test_anything_else_reads_once_and_gives_plain_tensors(labels: LazyLabels, reads: list[slice]) -> None:
    results = [labels + 0, labels.clone(), labels.cpu(), labels.to(torch.int64), labels.reshape(24), labels.max()]
    assert {type(result) for result in results} == {torch.Tensor}
    assert torch.equal(labels, STORED)
    assert torch.equal(labels[:, 0, 1:], STORED[:, 0, 1:])
    assert torch.equal(labels[2], STORED[2])
    assert torch.equal(labels[1:], STORED[1:])
    assert torch.equal(torch.stack([labels, STORED])[0], STORED)
    assert reads == [slice(None)]


def test_it_stands_for_its_tensor_outside_torch(labels: LazyLabels) -> None:
    assert np.array_equal(np.asarray(labels), STORED.numpy())
    assert labels.tolist() == STORED.tolist()
    assert repr(labels) == repr(STORED)
    assert [frame.tolist() for frame in labels] == STORED.tolist()
    for other in (pickle.loads(pickle.dumps(labels)), copy.deepcopy(labels)):
        assert type(other) is torch.Tensor
        assert torch.equal(other, STORED)


def test_metrics_read_it_once(labels: LazyLabels, reads: list[slice]) -> None:
    miou, vc2 = MeanIoU(24), VideoConsistency(2)
    miou.update(STORED, labels)
    vc2.update(STORED, labels)
    assert miou.compute() == 1.0
    assert reads == [slice(None)]


def test_a_level_below_functions_is_answered_too(labels: LazyLabels) -> None:
    with torch._C.DisableTorchFunctionSubclass():
        assert torch.equal(torch.add(labels, 1), STORED + 1)
