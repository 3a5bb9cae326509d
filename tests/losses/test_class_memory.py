"""The class memory: what stays, in which order, over processes and restarts."""

from __future__ import annotations

import itertools
import pickle

import pytest
import torch
from torch import Tensor

from mvcseg.errors import CheckpointError, ConfigError, DataError, DTypeError, ShapeError
from mvcseg.losses.class_memory import ClassMemory


def numbered(count: int, *, first: int = 0) -> Tensor:
    """Vectors of width 2 that tell their number."""
    return torch.arange(first, first + count).float()[:, None].repeat(1, 2)


def held(memory: ClassMemory, row: int) -> list[int]:
    return [int(vector[0]) for vector in memory.vectors[row, : int(memory.counts[row])]]


def fill(memory: ClassMemory, count: int, row: int, *, first: int = 0) -> None:
    memory.remember(numbered(count, first=first), torch.full((count,), row), priorities=torch.rand(count))


def test_nothing_is_there_before_the_first_commit() -> None:
    memory = ClassMemory(4, width=2, length=3)
    fill(memory, 2, 1)
    vectors, is_filled = memory.of_classes(torch.tensor([1, 3]))
    assert vectors.shape == (2, 3, 2)
    assert not is_filled.any()
    memory.commit()
    assert memory.of_classes(torch.tensor([1, 3]))[1].tolist() == [[True, True, False], [False] * 3]


def test_vectors_stay_with_their_class() -> None:
    memory = ClassMemory(4, width=2, length=3)
    memory.remember(numbered(3), torch.tensor([3, 0, 3], dtype=torch.uint8), priorities=torch.tensor([0.2, 0.9, 0.1]))
    memory.commit()
    assert (held(memory, 0), held(memory, 3)) == ([1], [0, 2])
    assert torch.equal(memory.of_classes(torch.tensor([3]))[0][0, :2], numbered(3)[[0, 2]])


def test_the_largest_priorities_stay() -> None:
    memory = ClassMemory(1, width=2, length=2)
    memory.remember(numbered(4), torch.zeros(4, dtype=torch.int64), priorities=torch.tensor([0.3, 0.9, 0.1, 0.5]))
    memory.commit()
    assert held(memory, 0) == [1, 3]


def test_old_and_new_vectors_stay_equally_often() -> None:
    kept, generator = torch.zeros(30), torch.Generator().manual_seed(5)
    for seed in range(600):
        memory = ClassMemory(1, width=2, length=10)
        memory._num_commits = 7 * seed  # another draw for what is there already
        for first, count in ((0, 10), (10, 20)):
            priorities = torch.rand(count, generator=generator)
            memory.remember(numbered(count, first=first), torch.zeros(count, dtype=torch.int64), priorities=priorities)
            memory.commit()
        kept[held(memory, 0)] += 1
    # each of 30 is kept with probability 1/3; 5 standard deviations of 600 trials
    assert ((kept / 600 - 1 / 3).abs() < 5 * (2 / 9 / 600) ** 0.5).all()


def test_every_commit_draws_anew_what_of_the_old_stays() -> None:
    memory, replaced = ClassMemory(1, width=2, length=1), 0
    for number in range(1, 201):
        memory.remember(numbered(1, first=number), torch.tensor([0]), priorities=torch.tensor([0.5]))
        memory.commit()
        replaced += held(memory, 0) == [number]
    assert 65 <= replaced <= 135  # 5 standard deviations about one half


def test_what_is_kept_does_not_depend_on_the_order_of_arrival() -> None:
    parts = [(numbered(4, first=4 * i), torch.tensor([0, 1, 0, 1]), torch.rand(4)) for i in range(3)]
    memories = []
    for order in itertools.permutations(parts):
        memory = ClassMemory(2, width=2, length=3)
        for _ in range(2):
            for vectors, class_ids, priorities in order:
                memory.remember(vectors, class_ids, priorities=priorities)
            memory.commit()
        memories.append(memory)
    assert all(torch.equal(memory.vectors, memories[0].vectors) for memory in memories)


def test_all_processes_hold_what_one_process_would() -> None:
    parts = [(numbered(5, first=5 * i), torch.tensor([0, 1, 1, 0, 1]), torch.rand(5)) for i in range(4)]
    alone = ClassMemory(2, width=2, length=3)
    first, second = ClassMemory(2, width=2, length=3), ClassMemory(2, width=2, length=3)
    for number, (vectors, class_ids, priorities) in enumerate(parts):
        for memory in (alone, (first, second)[number % 2]):
            memory.remember(vectors, class_ids, priorities=priorities)
    sent: list[object] = []
    for memory in (first, second):
        memory.commit(lambda waiting: sent.extend(pickle.loads(pickle.dumps(waiting))) or [])
    for memory in (first, second):
        memory._num_commits = 0
        memory.commit(lambda _: sent)
    alone.commit()
    assert torch.equal(first.vectors, alone.vectors)
    assert torch.equal(second.vectors, alone.vectors)


def test_a_stored_memory_goes_on_as_if_it_had_not_stopped() -> None:
    memory, restored = ClassMemory(2, width=2, length=3), ClassMemory(2, width=2, length=3)
    fill(memory, 5, 0)
    memory.commit()
    state = memory.state_dict()
    fill(restored, 2, 1)  # waits, and is dropped
    for each in (memory, restored):
        if each is restored:
            restored.load_state_dict(state)
        torch.manual_seed(0)
        fill(each, 4, 0, first=5)
        each.commit()
    assert torch.equal(restored.vectors, memory.vectors)
    assert torch.equal(restored.counts, memory.counts)
    assert max(int(vector[0]) for vector in state["vectors"][0]) < 5, "a state is not changed by what follows"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_are_kept_without_graph_as_single_precision_copies(dtype: torch.dtype) -> None:
    memory = ClassMemory(1, width=2)
    vectors = numbered(1).to(dtype).requires_grad_()
    memory.remember(vectors, torch.tensor([0]), priorities=torch.rand(1))
    with torch.no_grad():
        vectors.fill_(7)
    memory.commit()
    assert memory.vectors.dtype == torch.float32
    assert not memory.vectors.requires_grad
    assert held(memory, 0) == [0]


def test_what_does_not_fit_is_refused() -> None:
    memory = ClassMemory(4, width=2)
    vectors, class_ids, priorities = numbered(2), torch.tensor([0, 1]), torch.rand(2)
    with pytest.raises(ShapeError, match=r"class_ids: expected \(n\) with n=2 from vectors"):
        memory.remember(vectors, class_ids[:1], priorities=priorities)
    with pytest.raises(ShapeError, match=r"vectors: expected width 2, got \(2, 4\)"):
        memory.remember(vectors.repeat(1, 2), class_ids, priorities=priorities)
    with pytest.raises(DTypeError, match="vectors: expected a floating-point"):
        memory.remember(vectors.long(), class_ids, priorities=priorities)
    with pytest.raises(DTypeError, match="class_ids: expected an integer"):
        memory.remember(vectors, class_ids.float(), priorities=priorities)
    with pytest.raises(DataError, match=r"class_ids: expected 0\.\.3, got 4"):
        memory.remember(vectors, class_ids + 3, priorities=priorities)
    with pytest.raises(DataError, match=r"class_ids: expected 0\.\.3, got -1"):
        memory.of_classes(torch.tensor([-1]))
    with pytest.raises(ShapeError, match=r"class_ids: expected \(m\)"):
        memory.of_classes(torch.tensor([[1]]))


@pytest.mark.parametrize("numbers", [{"num_classes": 0}, {"num_classes": 256}, {"width": 0}, {"length": 0}])
def test_sizes_are_at_least_one(numbers: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(numbers))}: expected an integer"):
        ClassMemory(**{"num_classes": 4, "width": 2, **numbers})


def test_a_state_of_another_memory_is_refused() -> None:
    state = ClassMemory(4, width=2).state_dict()
    with pytest.raises(CheckpointError, match=r"expected vectors .* \(4, 20, 3\), got \(4, 20, 2\)"):
        ClassMemory(4, width=3).load_state_dict(state)
    del state["counts"]
    with pytest.raises(CheckpointError, match="expected counts in its state"):
        ClassMemory(4, width=2).load_state_dict(state)
