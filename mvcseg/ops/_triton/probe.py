"""The smallest kernel that shows whether Triton compiles and runs."""

import triton
import triton.language as tl


@triton.jit
def count_up(out, SIZE: tl.constexpr):
    """``0, 1, 2, ...`` up to ``SIZE``."""
    lanes = tl.arange(0, SIZE)
    tl.store(out + lanes, lanes)
