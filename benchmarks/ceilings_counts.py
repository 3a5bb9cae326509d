"""The least that kernels must do: bytes moved at least once, operations done at least once.

Bytes are inputs read and outputs written, nothing between. Of several kinds of operations each has its own rate; they
may overlap, so that the kind that takes longest is the ceiling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WINDOW = 7
FLOAT = 4
Shapes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Least:
    """Bytes moved at least once, and operations by kind (``ceilings_rates.UNITS``)."""

    moved: int
    operations: Mapping[str, float]


def vote(views: int, pixels: int, itemsize: int) -> Least:
    """A vote of V maps.

    All maps are read, one is written. Each pixel of the first map is compared with every other (V - 1), the
    agreements are added up (V - 1) and compared with half the votes (1); wide labels are made bytes and back
    first, an operation on each of their bytes.
    """
    narrowing = 0 if itemsize == 1 else (views + 1) * itemsize
    return Least((views + 1) * pixels * itemsize, {"bytes": pixels * (2 * (views - 1) + 1 + narrowing)})


def counting(frames: int, pixels: int) -> Least:
    """The confusion matrix of a video.

    Predictions and labels are read. Both are compared with their left neighbours and the two answers joined (3):
    a run of equal pairs is then counted once, which is left out.
    """
    return Least(2 * frames * pixels, {"bytes": 3 * frames * pixels})


def consistency(frames: int, pixels: int) -> Least:
    """VC8 and VC16 of a video.

    Predictions and labels are read. Each is compared with the frame before (2) and packed into bits (2); for clips
    of 8 and 16 frames 11 "and" and 4 counts work on bits, an eighth each.
    """
    return Least(2 * frames * pixels, {"bytes": (frames - 1) * pixels * (4 + 15 / 8)})


def plane_ssim(planes: int, pixels: int) -> Least:
    """SSIM of image planes.

    Two images of float32 are read. Three products, five sums over windows (an addition and a subtraction along each
    axis), five means, nine operations for variances and covariance, 15 for the formula and the mean: 52 a pixel.
    """
    return Least(2 * planes * pixels * FLOAT, {"float32": planes * pixels * (3 + 5 * 4 + 5 + 9 + 15)})


def label_ssim(pixels: int, seen: int) -> Least:
    """SSIM of two label maps, class by class.

    Two maps of bytes are read and compared (1). Each of the ``seen`` windows of a class that hold a disagreement
    about it takes two comparisons and an "and", three sums (an addition and a subtraction along each axis) and a
    look-up of its loss; windows without one score 1.
    """
    return Least(2 * pixels, {"bytes": pixels + seen * (3 + 3 * 4), "look-ups": seen})


def warp(maps: int, pixels: int) -> Least:
    """Label maps moved along a flow.

    Two float32 of flow and a byte are read for each pixel, a byte is written. Two additions, four comparisons, two
    roundings and a multiply-add (2) give the place, where one label is looked up.
    """
    return Least(maps * pixels * (2 * FLOAT + 2), {"float32": maps * pixels * 10, "look-ups": maps * pixels})


def flow(pairs: int, pixels: int) -> Least:
    """Farneback's flow by OpenCV.

    Frames of three float32 are read, two float32 a pixel and pair written. The work of a pair is OpenCV's own, on as
    many pairs at once as there are threads.
    """
    return Least((3 * (pairs + 1) + 2 * pairs) * pixels * FLOAT, {"pairs": pairs})


def selection(candidates: int, frames: int, pixels: int) -> Least:
    """The choice of a model by flow, warp and SSIM.

    Frames and candidates' labels are read as bytes. The flow of every pair is OpenCV's own work; warping and SSIM
    are left out.
    """
    return Least((3 + candidates) * frames * pixels, {"pairs": frames - 1})


def attention(tokens: int, heads: int, depth: int, samples: int) -> Least:
    """Deformable attention between its projections.

    Values, places and weights are read, as many values written. Each sample of each head reads four corners of D
    numbers from the caches and multiplies and adds each (2 FLOP).
    """
    corners = tokens * heads * samples * 4 * depth
    moved = tokens * heads * (2 * depth + 3 * samples) * FLOAT
    return Least(moved, {"loads": corners * FLOAT, "products": 2 * corners})


def attention_backward(tokens: int, heads: int, depth: int, samples: int) -> Least:
    """Its gradients.

    The output's gradient, values, places and weights are read, the gradients of the last three written. Each corner
    of each sample takes a multiply-add for the gradients of place and weight, and one into the gradient of the value.
    """
    corners = tokens * heads * samples * 4 * depth
    moved = tokens * heads * (3 * depth + 6 * samples) * FLOAT
    return Least(moved, {"loads": 2 * corners * FLOAT, "products": 4 * corners})


def linear(rows: int, inputs: int, outputs: int) -> Least:
    """A linear map.

    Rows and weights are read, rows written; a multiply-add (2 FLOP) for each row, input and output.
    """
    moved = (rows * (inputs + outputs) + inputs * outputs) * FLOAT
    return Least(moved, {"products": 2 * rows * inputs * outputs})


def decoding(queries: int, classes: int, mask_pixels: int, pixels: int) -> Least:
    """Mask logits to labels.

    Mask logits at a quarter of the size and the table are read, a byte a pixel written. The product of all masks and
    classes, at full size; interpolation and sigmoid are left out, and so is that classes which cannot win need not be
    computed.
    """
    moved = (mask_pixels * queries + queries * classes) * FLOAT + pixels
    return Least(moved, {"products": 2 * queries * classes * pixels})


def network(weights: int, inputs: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]], flop: int) -> Least:
    """A network of layers.

    Weights and the inputs' float32 maps are read, the outputs' written, none between. FLOP of convolutions, matrix
    products and attention as PyTorch's own counter has them.
    """
    return Least((weights + sum(map(prod, (*inputs, *outputs)))) * FLOAT, {"products": flop})


def tensor_flow(pixels: int, traffic: int) -> Least:
    """Farneback's flow of a pair as tensor operations.

    Bytes: what its operations read and write one after the other, counted as they run. Operations, on each of four
    levels (85/64 of the frame's pixels in all): nine correlations of 11 taps for each of two frames, and three times
    five bilinear samples of 8, 40 for the systems, sliding sums of five planes (4 each) and 12 to solve.
    """
    return Least(traffic, {"float32": pixels * 85 / 64 * (2 * 9 * 11 * 2 + 3 * (5 * 8 + 40 + 5 * 4 + 12))})


class Traffic(TorchDispatchMode):
    """Counts in ``moved`` the bytes of tensors that operations of PyTorch read and write; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            touched = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.moved += sum(min(one.nbytes, one.untyped_storage().nbytes()) for one in touched)
        return result
