"""What a machine can do: bytes a second by working set, operations a second by kind.

Rates are the fastest of several tries. Elementwise ones are those of one call of NumPy or PyTorch whose operands lie in
a core's cache, times the threads: without a compiler every step of a kernel is such a call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from peers_flow import opencv_loop
from peers_inputs import VIDEO, Size, pan, photograph
from torch.nn import functional

WORKING_SETS = tuple(1 << power for power in range(20, 30))
"""Bytes, from what two cores' second-level caches hold to what no cache does."""
IN_CACHE = tuple(1 << power for power in range(14, 19))
"""Bytes of an operand of an elementwise operation."""
PRODUCTS = ((2048, 1024, 1024), (8192, 256, 256), (8192, 256, 1024))
"""Rows, inputs and outputs of matrix products."""
H100 = {"bandwidth": 3.35e12, "rates": {"products": 67e12, "float32": 67e12}}
"""Of NVIDIA's data sheet of the H100 SXM: memory, and float32 without tensor cores."""
UNITS = {
    "products": "FLOP of multiply-adds",
    "float32": "float32 operations",
    "bytes": "byte operations",
    "look-ups": "look-ups",
    "loads": "bytes out of caches",
    "pairs": "pairs by OpenCV",
}
"""Kinds of operations, for readers."""
Bandwidths = Mapping[int, Mapping[str, float]]


def bandwidths(sizes: Sequence[int] = WORKING_SETS, *, tries: int = 7) -> dict[int, dict[str, float]]:
    """Bytes a second of PyTorch's threads by working set: a copy (read and written) and a sum (read only)."""
    found = {}
    for size in sizes:
        whole = torch.ones(size // 8, dtype=torch.int64)
        source, target = torch.ones(2, size // 8).unbind()
        repeats = max(1, (1 << 26) // size)
        found[size] = {
            "copy": size / fastest(lambda target=target, source=source: target.copy_(source), repeats, tries=tries),
            "read": size / fastest(whole.sum, repeats, tries=tries),
        }
    return found


def bandwidth_at(moved: float, rates: Bandwidths) -> float:
    """Bytes a second of the larger rate at the largest measured working set that is no larger than the work's own."""
    size = max((size for size in rates if size <= moved), default=min(rates))
    return max(rates[size].values())


def operation_rates(*, threads: int, tries: int = 7, size: Size = VIDEO) -> dict[str, float]:
    """Operations a second by kind (``UNITS``), of all threads.

    ``size`` is that of the frames between which OpenCV's one thread finds the flow.
    """
    one_thread = {
        "float32": max(float32_rate(n, tries=tries) for n in IN_CACHE),
        "bytes": max(byte_rate(n, tries=tries) for n in IN_CACHE),
        "look-ups": max(look_up_rate(n, tries=tries) for n in IN_CACHE),
        "pairs": pair_rate(size, tries=tries),
    }
    return {
        "products": max(product_rate(*shape, tries=tries) for shape in PRODUCTS),
        **{kind: threads * rate for kind, rate in one_thread.items()},
    }


def product_rate(rows: int, inputs: int, outputs: int, *, tries: int) -> float:
    """FLOP a second of a float32 matrix product, by MKL or as a 1 x 1 convolution by oneDNN, whichever is faster."""
    x, weight = torch.ones(rows, inputs), torch.ones(outputs, inputs)
    image = x.view(1, rows, 1, inputs).permute(0, 3, 1, 2)
    calls = (lambda: torch.mm(x, weight.t()), lambda: functional.conv2d(image, weight[:, :, None, None]))
    return 2 * rows * inputs * outputs / min(fastest(call, 1, tries=tries) for call in calls)


def float32_rate(size: int, *, tries: int) -> float:
    a, b = np.ones((2, size // 4), dtype=np.float32)
    return len(a) / min(fastest(lambda op=op: op(a, b, out=a), 500, tries=tries) for op in (np.multiply, np.maximum))


def byte_rate(size: int, *, tries: int) -> float:
    a, b = np.ones((2, size), dtype=np.uint8)
    return len(a) / min(fastest(lambda op=op: op(a, b, out=a), 500, tries=tries) for op in (np.bitwise_and, np.add))


def look_up_rate(size: int, *, tries: int) -> float:
    """Numbers a second taken from random places of a table of 64 Ki bytes."""
    places = np.random.default_rng(0).integers(0, 1 << 16, size // 8)
    table = np.ones(1 << 16, dtype=np.uint8)
    return len(places) / fastest(lambda: table.take(places), 500, tries=tries)


def pair_rate(size: Size, *, tries: int) -> float:
    """Pairs of frames a second of OpenCV's Farneback flow on one thread."""
    height, width = size
    loop = opencv_loop(pan(photograph((height + 1, width + 3)), frames=2, size=size))
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return 1 / fastest(loop, 1, tries=tries)
    finally:
        cv2.setNumThreads(before)


def fastest(call: Callable[[], Any], repeats: int, *, tries: int) -> float:
    """Seconds of one call, of the best of so many tries of so many calls in a row, after a warm-up."""
    call()
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        seconds.append((time.perf_counter() - start) / repeats)
    return min(seconds)


def better(one: Any, other: Any) -> Any:
    """The larger of two figures, or of every entry of two alike records."""
    return {key: better(one[key], other[key]) for key in one} if isinstance(one, dict) else max(one, other)
