"""Semantic decoding on a GPU in one kernel: no mask, probability or score of full size is ever in memory.

The kernel is in ``ops/_triton/semantic_decoding.py`` and imported at its first use.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from mvcseg.ops.lerp import Lerp
from mvcseg.ops.triton_support import triton_is_usable

TILE = (4, 16)
"""Rows and columns of a program's pixels: whole mask pixels, whose values serve 16 pixels each."""
BLOCK_Q = 16
"""Queries at a time."""
_LARGEST = 2**31
"""Addresses are 32-bit numbers."""


def can_decode(masks: Tensor, *, output_size: tuple[int, int]) -> bool:
    """Whether the kernel serves these masks: on a GPU where Triton runs, not float64, fewer than 2^31 values."""
    return (
        masks.dtype != torch.float64
        and max(masks.numel(), output_size[0] * output_size[1]) < _LARGEST
        and triton_is_usable(masks.device)
    )


@torch.no_grad()
def kernel_labels(
    masks: Tensor, table: Tensor, *, size: tuple[int, int], output_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The best class of every pixel of one frame; arguments and result as in ``strip_labels``.

    Sums are in float32 in the order of the queries. Labels differ from ``strip_labels``'s only where the best two
    scores are as close as rounding. Nothing here waits for the device.
    """
    from mvcseg.ops._triton.semantic_decoding import decode

    height, width, queries = masks.shape
    classes = table.shape[-1]
    masks, table = masks.contiguous(), table.to(masks.device, torch.float32).contiguous()
    labels = torch.empty(output_size, dtype=torch.uint8, device=masks.device)
    is_number = torch.ones((), dtype=torch.bool, device=masks.device)
    if size == output_size:
        axes = [masks] * 6  # not read
    else:
        lerps = [Lerp(old, new, table) for old, new in zip(size, output_size, strict=True)]
        axes = [part for lerp in lerps for part in (lerp.low, lerp.high, lerp.share)]
    numbers, options = _compiled_for(queries, classes, is_resized=size != output_size)
    grid = (-(-output_size[1] // TILE[1]), -(-output_size[0] // TILE[0]))
    with torch.cuda.device(masks.device) if masks.is_cuda else nullcontext():
        decode[grid](
            masks,
            table,
            *axes,
            labels,
            is_number,
            height,
            width,
            *output_size,
            **numbers,
            **options,
        )
    return labels, is_number


def _compiled_for(queries: int, classes: int, *, is_resized: bool) -> tuple[dict[str, int], dict[str, int]]:
    """Numbers that the kernel is compiled for, and options of the compiler."""
    block_k = max(16, 1 << (classes - 1).bit_length())
    numbers = {
        "QUERIES": queries,
        "CLASSES": classes,
        "RESIZED": is_resized,
        "TILE_H": TILE[0],
        "TILE_W": TILE[1],
        "BLOCK_Q": BLOCK_Q,
        "BLOCK_K": block_k,
    }
    # in one stage: loads ahead of their use would want more shared memory than there is
    return numbers, {"num_warps": 8 if block_k > 64 else 4, "num_stages": 1}
