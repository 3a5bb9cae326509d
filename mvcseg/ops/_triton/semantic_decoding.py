"""Semantic decoding in one kernel: a program decides the classes of a small tile of output pixels.

Mask values of all queries are interpolated and made probabilities in registers, some queries at a time, multiplied with
the class table in full float32, and of the sums only the number of the greatest is written.
"""

# mypy: disable-error-code="no-untyped-def"
import triton
import triton.language as tl


@triton.jit
def _probability(masks, row, column, height, width, query, inside, QUERIES: tl.constexpr):
    """Mask probabilities ``(pixels, queries)`` at pixels of the padded input, four to a mask pixel and axis."""
    y = tl.maximum(row.to(tl.float32) * 0.25 - 0.375, 0.0)
    x = tl.maximum(column.to(tl.float32) * 0.25 - 0.375, 0.0)
    top, left = y.to(tl.int32), x.to(tl.int32)
    below, right = (y - top)[:, None], (x - left)[:, None]
    first_row = masks + (top * width * QUERIES)[:, None] + query[None, :]
    second_row = masks + (tl.minimum(top + 1, height - 1) * width * QUERIES)[:, None] + query[None, :]
    near, far = (left * QUERIES)[:, None], (tl.minimum(left + 1, width - 1) * QUERIES)[:, None]
    upper_left = tl.load(first_row + near, mask=inside, other=0).to(tl.float32)
    upper_right = tl.load(first_row + far, mask=inside, other=0).to(tl.float32)
    lower_left = tl.load(second_row + near, mask=inside, other=0).to(tl.float32)
    lower_right = tl.load(second_row + far, mask=inside, other=0).to(tl.float32)
    upper = (1 - right) * upper_left + right * upper_right
    lower = (1 - right) * lower_left + right * lower_right
    return tl.sigmoid((1 - below) * upper + below * lower)


@triton.jit
def _blend(first, second, share):
    return tl.where(share < 0.5, first + share * (second - first), second - (second - first) * (1 - share))


@triton.jit(do_not_specialize=["height", "width", "rows", "columns"])
def decode(
    masks,
    table,
    row_low,
    row_high,
    row_share,
    column_low,
    column_high,
    column_share,
    labels,
    is_number,
    height,
    width,
    rows,
    columns,
    QUERIES: tl.constexpr,
    CLASSES: tl.constexpr,
    RESIZED: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Best classes ``labels[rows, columns]`` uint8; ``is_number`` turns False where a score is NaN.

    ``masks`` is ``(height, width, QUERIES)``, ``table`` ``(QUERIES, CLASSES)`` float32, both contiguous. Where the
    frame is resized, ``row_low``, ``row_high`` and ``row_share`` hold for each output row the two rows of the frame
    around it and the share of the second; columns likewise. Otherwise they are not read.
    """
    pixel = tl.arange(0, TILE_H * TILE_W)
    row = tl.program_id(1) * TILE_H + pixel // TILE_W
    column = tl.program_id(0) * TILE_W + pixel % TILE_W
    is_pixel = (row < rows) & (column < columns)
    row, column = tl.minimum(row, rows - 1), tl.minimum(column, columns - 1)
    if RESIZED:
        top, bottom, down = tl.load(row_low + row), tl.load(row_high + row), tl.load(row_share + row)[:, None]
        left, right = tl.load(column_low + column), tl.load(column_high + column)
        across = tl.load(column_share + column)[:, None]
        top, bottom, left, right = top.to(tl.int32), bottom.to(tl.int32), left.to(tl.int32), right.to(tl.int32)
    lane = tl.arange(0, BLOCK_Q)
    label = tl.arange(0, BLOCK_K)
    scores = tl.zeros((TILE_H * TILE_W, BLOCK_K), dtype=tl.float32)
    for first in range(0, QUERIES, BLOCK_Q):
        query = first + lane
        is_query = query < QUERIES
        inside = is_pixel[:, None] & is_query[None, :]
        if RESIZED:
            near = _blend(
                _probability(masks, top, left, height, width, query, inside, QUERIES),
                _probability(masks, bottom, left, height, width, query, inside, QUERIES),
                down,
            )
            far = _blend(
                _probability(masks, top, right, height, width, query, inside, QUERIES),
                _probability(masks, bottom, right, height, width, query, inside, QUERIES),
                down,
            )
            shares = _blend(near, far, across)
        else:
            shares = _probability(masks, row, column, height, width, query, inside, QUERIES)
        weights = tl.load(
            table + query[:, None] * CLASSES + label[None, :],
            mask=is_query[:, None] & (label < CLASSES)[None, :],
            other=0,
        )
        scores = tl.dot(shares, weights, scores, input_precision="ieee")
    is_nan = tl.max(((scores != scores) & is_pixel[:, None]).to(tl.int32)) > 0
    scores = tl.where((label < CLASSES)[None, :], scores, float("-inf"))
    best = tl.max(scores, axis=1)
    winner = tl.min(tl.where(scores == best[:, None], label[None, :], BLOCK_K), axis=1)  # the lowest of equals
    tl.store(labels + row * columns + column, winner.to(tl.uint8), mask=is_pixel)
    tl.store(is_number, False, mask=is_nan)  # every program that stores stores the same
