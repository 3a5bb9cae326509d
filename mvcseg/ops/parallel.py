"""Items of a batch shared out to a pool of threads.

For NumPy and OpenCV, which release the interpreter while they work. One thread an item, each on its own data, beats
several threads on one item's small arrays: nothing waits for anything but the end.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def for_each_item(work: Callable[[int], None], number: int) -> None:
    """Call ``work(0)`` to ``work(number - 1)`` in as many threads as PyTorch would use, and wait for all.

    Raises whatever a call raised, the first by number.
    """
    workers = min(number, torch.get_num_threads())
    if workers <= 1:
        for item in range(number):
            work(item)
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(work, range(number)):
            pass
