"""Deformable attention, forward and backward: a program gathers for some queries of one head of one frame.

A row of a tile is a query, its lanes are a head's channels, which lie beside each other in memory: every sample reads
four runs of a pixel's channels. Sums are kept in ``EXACT``. The ``(height, width)`` of up to four maps come as numbers,
so that no launch waits for a copy from the host and no new size compiles anew. Loops stay loops: unrolled, they take
ten times as long to compile.
"""

import triton
import triton.language as tl

SIDES = ("h0", "w0", "h1", "w1", "h2", "w2", "h3", "w3")


@triton.jit
def _of_level(level, side0, side1, side2, side3):
    return tl.where(level == 0, side0, tl.where(level == 1, side1, tl.where(level == 2, side2, side3)))


@triton.jit
def _place(coordinate, side, EXACT: tl.constexpr, INDEX: tl.constexpr):
    """First pixel of the two that a coordinate lies between, and the share of the second.

    What lies far outside moves to where neither pixel is on the map; so does NaN, whose share stays NaN.
    """
    place = coordinate.to(EXACT) * side - 0.5
    place = tl.where(place < -2, -2.0, place)
    place = tl.where(place > side + 1, (side + 1).to(EXACT), place)
    first = tl.floor(place)
    return tl.where(first == first, first, -2.0).to(INDEX), place - first


@triton.jit
def _corners(maps, first_pixel, column, row, height, width, channel_inside, lane, STRIDE: tl.constexpr):
    """Addresses of four pixels' channels, upper ones first, and which of them are on the map."""
    upper_left = maps + ((first_pixel + row * width + column) * STRIDE)[:, None] + lane[None, :]
    below = width.to(column.dtype) * STRIDE
    left = (column >= 0) & (column < width)
    right = (column >= -1) & (column < width - 1)
    upper = (row >= 0) & (row < height)
    lower = (row >= -1) & (row < height - 1)
    return (
        upper_left,
        upper_left + STRIDE,
        upper_left + below,
        upper_left + below + STRIDE,
        (upper & left)[:, None] & channel_inside[None, :],
        (upper & right)[:, None] & channel_inside[None, :],
        (lower & left)[:, None] & channel_inside[None, :],
        (lower & right)[:, None] & channel_inside[None, :],
    )


@triton.jit(do_not_specialize=["queries", "pixels", *SIDES])
def gather(
    value,
    locations,
    weights,
    out,
    queries,
    pixels,
    h0,
    w0,
    h1,
    w1,
    h2,
    w2,
    h3,
    w3,
    HEADS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    DEPTH: tl.constexpr,
    EXACT: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Weighted samples: ``out[n, q, m, :]`` of ``value[n, :, m, :]``; tensors are contiguous."""
    program = tl.program_id(0)
    blocks = tl.cdiv(queries, BLOCK_Q)
    query = program % blocks * BLOCK_Q + tl.arange(0, BLOCK_Q)
    head = program // blocks % HEADS
    frame = (program // blocks // HEADS).to(tl.int64)
    inside = query < queries
    lane = tl.arange(0, BLOCK_D)
    channel_inside = lane < DEPTH
    maps = value + (frame * pixels * HEADS + head) * DEPTH
    rows = (frame * queries + query) * HEADS + head
    first_sample = rows * (LEVELS * POINTS)
    total = tl.zeros((BLOCK_Q, BLOCK_D), dtype=EXACT)
    first_pixel = tl.zeros((), dtype=INDEX)
    for level in range(LEVELS):
        height = _of_level(level, h0, h1, h2, h3)
        width = _of_level(level, w0, w1, w2, w3)
        for point in range(POINTS):
            sample = first_sample + (level * POINTS + point)
            column, x_share = _place(tl.load(locations + 2 * sample, mask=inside, other=0), width, EXACT, INDEX)
            row, y_share = _place(tl.load(locations + 2 * sample + 1, mask=inside, other=0), height, EXACT, INDEX)
            weight = tl.load(weights + sample, mask=inside, other=0).to(EXACT)
            at00, at01, at10, at11, is00, is01, is10, is11 = _corners(
                maps, first_pixel, column, row, height, width, channel_inside, lane, HEADS * DEPTH
            )
            upper, lower = weight * (1 - y_share), weight * y_share
            total += tl.load(at00, mask=is00, other=0).to(EXACT) * (upper * (1 - x_share))[:, None]
            total += tl.load(at01, mask=is01, other=0).to(EXACT) * (upper * x_share)[:, None]
            total += tl.load(at10, mask=is10, other=0).to(EXACT) * (lower * (1 - x_share))[:, None]
            total += tl.load(at11, mask=is11, other=0).to(EXACT) * (lower * x_share)[:, None]
        first_pixel += (height * width).to(INDEX)
    places = out + (rows * DEPTH)[:, None] + lane[None, :]
    tl.store(places, total.to(out.dtype.element_ty), mask=inside[:, None] & channel_inside[None, :])


@triton.jit(do_not_specialize=["queries", "pixels", *SIDES])
def scatter(
    value,
    locations,
    weights,
    grad_out,
    grad_value,
    grad_locations,
    grad_weights,
    queries,
    pixels,
    h0,
    w0,
    h1,
    w1,
    h2,
    w2,
    h3,
    w3,
    HEADS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    DEPTH: tl.constexpr,
    EXACT: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Gradients of ``gather``; ``grad_value`` begins as zeros of type ``EXACT``, the programs add up in any order."""
    program = tl.program_id(0)
    blocks = tl.cdiv(queries, BLOCK_Q)
    query = program % blocks * BLOCK_Q + tl.arange(0, BLOCK_Q)
    head = program // blocks % HEADS
    frame = (program // blocks // HEADS).to(tl.int64)
    inside = query < queries
    lane = tl.arange(0, BLOCK_D)
    channel_inside = lane < DEPTH
    first_value = (frame * pixels * HEADS + head) * DEPTH
    rows = (frame * queries + query) * HEADS + head
    first_sample = rows * (LEVELS * POINTS)
    tile_inside = inside[:, None] & channel_inside[None, :]
    slope = tl.load(grad_out + (rows * DEPTH)[:, None] + lane[None, :], mask=tile_inside, other=0).to(EXACT)
    first_pixel = tl.zeros((), dtype=INDEX)
    for level in range(LEVELS):
        height = _of_level(level, h0, h1, h2, h3)
        width = _of_level(level, w0, w1, w2, w3)
        for point in range(POINTS):
            sample = first_sample + (level * POINTS + point)
            column, x_share = _place(tl.load(locations + 2 * sample, mask=inside, other=0), width, EXACT, INDEX)
            row, y_share = _place(tl.load(locations + 2 * sample + 1, mask=inside, other=0), height, EXACT, INDEX)
            weight = tl.load(weights + sample, mask=inside, other=0).to(EXACT)
            at00, at01, at10, at11, is00, is01, is10, is11 = _corners(
                value + first_value, first_pixel, column, row, height, width, channel_inside, lane, HEADS * DEPTH
            )
            dot00 = tl.sum(tl.load(at00, mask=is00, other=0).to(EXACT) * slope, axis=1)
            dot01 = tl.sum(tl.load(at01, mask=is01, other=0).to(EXACT) * slope, axis=1)
            dot10 = tl.sum(tl.load(at10, mask=is10, other=0).to(EXACT) * slope, axis=1)
            dot11 = tl.sum(tl.load(at11, mask=is11, other=0).to(EXACT) * slope, axis=1)
            upper, lower = dot00 + (dot01 - dot00) * x_share, dot10 + (dot11 - dot10) * x_share
            grad_weight = upper + (lower - upper) * y_share
            grad_x = weight * width * ((dot01 - dot00) * (1 - y_share) + (dot11 - dot10) * y_share)
            grad_y = weight * height * (lower - upper)
            tl.store(grad_weights + sample, grad_weight.to(grad_weights.dtype.element_ty), mask=inside)
            tl.store(grad_locations + 2 * sample, grad_x.to(grad_locations.dtype.element_ty), mask=inside)
            tl.store(grad_locations + 2 * sample + 1, grad_y.to(grad_locations.dtype.element_ty), mask=inside)

            to00, to01, to10, to11, is00, is01, is10, is11 = _corners(
                grad_value + first_value, first_pixel, column, row, height, width, channel_inside, lane, HEADS * DEPTH
            )
            tilted = slope * weight[:, None]
            x, y = x_share[:, None], y_share[:, None]
            tl.atomic_add(to00, tilted * (1 - x) * (1 - y), mask=is00, sem="relaxed")
            tl.atomic_add(to01, tilted * x * (1 - y), mask=is01, sem="relaxed")
            tl.atomic_add(to10, tilted * (1 - x) * y, mask=is10, sem="relaxed")
            tl.atomic_add(to11, tilted * x * y, mask=is11, sem="relaxed")
        first_pixel += (height * width).to(INDEX)
