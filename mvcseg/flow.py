"""Eq. 5: optical flow between frames: the protocol, and Farneback's method from OpenCV or as tensor operations.

OpenCV is imported on first use.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mvcseg.errors import ConfigError, MissingExtraError
from mvcseg.ops.farneback import farneback
from mvcseg.shapes import check_float, check_positive, check_shapes

_RANGE_TOLERANCE = 1e-3


class FlowEstimator(Protocol):
    """Anything that says where pixels went between two frames.

    ``flow(source, target)`` takes frames ``(N, 3, H, W)`` float RGB in ``[0, 1]`` and returns ``(N, 2, H, W)``
    float pixels ``(dx, dy)`` with ``target(x + flow(x)) ~ source(x)``.
    """

    def __call__(self, source: Tensor, target: Tensor, /) -> Tensor:
        """Flow ``(N, 2, H, W)`` from each source frame to its target."""
        ...


class FarnebackFlow:
    """Dense flow by Farneback's polynomial expansion, OpenCV's implementation on 8-bit grey.

    Frames become bytes by ``round(255 * frame)`` (halves to even: the bytes a frame was made from come back
    exactly), then grey by OpenCV's ``COLOR_RGB2GRAY``: 0.299 R + 0.587 G + 0.114 B in fixed point, rounded.

    Pairs run in a pool of Python threads with OpenCV at one thread each, which beats one pair on OpenCV's own
    threads. OpenCV's thread number is global to the process: it is set to 1 while any call is at work and set
    back when the last one ends, so other OpenCV work done meanwhile runs on one thread too.

    Args:
        pyramid_scale: size of each pyramid level relative to the one below, in ``(0, 1)``.
        levels: pyramid levels beside the full size.
        window: side of the averaging window in pixels.
        iterations: refinements at each level.
        poly_n: side of the neighbourhood of each polynomial expansion, in pixels.
        poly_sigma: Gaussian width of that neighbourhood, in pixels.
        flags: OpenCV's flags (256 weighs the window by a Gaussian). ``OPTFLOW_USE_INITIAL_FLOW`` (4) has no
            meaning here.
        workers: pairs at work at once; None for as many as ``torch.get_num_threads()``.

    Raises:
        ConfigError: a number is outside its range.

    The defaults are the usual call (OpenCV's function has none; the report names none).
    Source: arXiv 2406.04979, Eq. 5; G. Farneback, SCIA 2003.

    Example:
        >>> frames = torch.rand(3, 3, 32, 48)
        >>> FarnebackFlow()(frames[1:], frames[:-1]).shape
        torch.Size([2, 2, 32, 48])
    """

    def __init__(
        self,
        *,
        pyramid_scale: float = 0.5,
        levels: int = 3,
        window: int = 15,
        iterations: int = 3,
        poly_n: int = 5,
        poly_sigma: float = 1.2,
        flags: int = 0,
        workers: int | None = None,
    ) -> None:
        _check_numbers(pyramid_scale, poly_sigma, levels=levels, window=window, iterations=iterations, poly_n=poly_n)
        if workers is not None:
            check_positive(workers=workers)
        if flags & 4:
            raise ConfigError("flags: OPTFLOW_USE_INITIAL_FLOW (4) has no meaning here: there is no initial flow")
        self.pyramid_scale = pyramid_scale
        self.levels = levels
        self.window = window
        self.iterations = iterations
        self.poly_n = poly_n
        self.poly_sigma = poly_sigma
        self.flags = flags
        self.workers = workers

    def __call__(self, source: Tensor, target: Tensor, /) -> Tensor:
        """Flow from each source frame to its target: ``target(x + flow(x)) ~ source(x)``.

        Args:
            source: ``(N, 3, H, W)`` float RGB in ``[0, 1]``.
            target: the same shape.

        Returns:
            ``(N, 2, H, W)`` float32 pixels ``(dx, dy)``, on the device of ``source`` (computed on the CPU).

        Raises:
            ShapeError: the frames are not ``(N, 3, H, W)`` or differ in shape.
            DTypeError: they are not floating-point.
            ConfigError: a value is outside ``[0, 1]`` or NaN.
            MissingExtraError: OpenCV does not load.
        """
        sizes = check_shapes(source=(source, "n 3 h w"), target=(target, "n 3 h w"))
        check_float(source=source, target=target)
        cv2 = load_cv2()
        flow = torch.empty((sizes["n"], 2, sizes["h"], sizes["w"]))
        if flow.numel() == 0:
            return flow.to(source.device)
        sources, targets = (list(frames.detach().cpu()) for frames in (source, target))

        def estimate(pair: int) -> None:
            moved = cv2.calcOpticalFlowFarneback(
                grey[_place(sources[pair])],
                grey[_place(targets[pair])],
                None,
                self.pyramid_scale,
                self.levels,
                self.window,
                self.iterations,
                self.poly_n,
                self.poly_sigma,
                self.flags,
            )
            flow[pair].numpy()[:] = np.moveaxis(moved, 2, 0)

        workers = min(sizes["n"], self.workers or torch.get_num_threads())
        with _single_threaded(cv2), ThreadPoolExecutor(workers) as pool:
            # In consecutive pairs of one video nearly every frame occurs twice, as a view of the same memory.
            frames = {_place(frame): ("target", frame) for frame in targets}
            frames |= {_place(frame): ("source", frame) for frame in sources}
            grey = dict(zip(frames, pool.map(lambda named: _to_grey(cv2, *named), frames.values()), strict=True))
            list(pool.map(estimate, range(sizes["n"])))
        return flow.to(source.device)


class TensorFarnebackFlow:
    """The flow of `FarnebackFlow` computed where the frames are, many pairs at once: for frames on a GPU.

    Equal to OpenCV's within 0.001 pixels on average (grey bytes are OpenCV's exactly). On a CPU `FarnebackFlow` is
    faster. Nothing is copied to the host, so values outside ``[0, 1]`` are clamped and not refused; NaN gives NaN.

    Args:
        pyramid_scale: size of each pyramid level relative to the one below, in ``(0, 1)``.
        levels: pyramid levels beside the full size.
        window: side of the averaging window in pixels.
        iterations: refinements at each level.
        poly_n: side of the neighbourhood of each polynomial expansion, in pixels.
        poly_sigma: Gaussian width of that neighbourhood, in pixels.
        pairs_at_once: pairs in memory at once, some 60 floats a pixel each.
        device: where to compute, whatever device the frames are on; None for where they are. The flow stays there.

    Raises:
        ConfigError: a number is outside its range.

    Source: as `FarnebackFlow`.

    Example:
        >>> frames = torch.rand(3, 3, 32, 48)
        >>> TensorFarnebackFlow()(frames[1:], frames[:-1]).shape
        torch.Size([2, 2, 32, 48])
    """

    def __init__(
        self,
        *,
        pyramid_scale: float = 0.5,
        levels: int = 3,
        window: int = 15,
        iterations: int = 3,
        poly_n: int = 5,
        poly_sigma: float = 1.2,
        pairs_at_once: int = 16,
        device: torch.device | None = None,
    ) -> None:
        _check_numbers(pyramid_scale, poly_sigma, levels=levels, window=window, iterations=iterations, poly_n=poly_n)
        check_positive(pairs_at_once=pairs_at_once)
        self._numbers: dict[str, Any] = {
            "pyramid_scale": pyramid_scale,
            "levels": levels,
            "window": window,
            "iterations": iterations,
            "poly_n": poly_n,
            "poly_sigma": poly_sigma,
        }
        self.pairs_at_once = pairs_at_once
        self.device = device

    def __call__(self, source: Tensor, target: Tensor, /) -> Tensor:
        """Flow from each source frame to its target: ``target(x + flow(x)) ~ source(x)``.

        Args:
            source: ``(N, 3, H, W)`` float RGB in ``[0, 1]``.
            target: the same shape and device.

        Returns:
            ``(N, 2, H, W)`` float32 pixels ``(dx, dy)``, on the device of ``source`` where no other was named.

        Raises:
            ShapeError: the frames are not ``(N, 3, H, W)`` or differ in shape.
            DTypeError: they are not floating-point.
        """
        sizes = check_shapes(source=(source, "n 3 h w"), target=(target, "n 3 h w"))
        check_float(source=source, target=target)
        device = source.device if self.device is None else self.device
        flow = torch.empty((sizes["n"], 2, sizes["h"], sizes["w"]), device=device)
        if flow.numel() == 0:
            return flow
        for start in range(0, sizes["n"], self.pairs_at_once):
            pairs = slice(start, start + self.pairs_at_once)
            one, other = (_grey_bytes(frames[pairs].to(device)) for frames in (source, target))
            flow[pairs] = farneback(one, other, **self._numbers)
        return flow


def farneback_on(device: torch.device) -> FarnebackFlow | TensorFarnebackFlow:
    """Farneback's flow for work on a device: OpenCV's on a CPU, tensor operations on an accelerator.

    MPS gets OpenCV's, too: what is computed with the flow needs float64, which it lacks.

    Example:
        >>> type(farneback_on(torch.device("cpu"))).__name__
        'FarnebackFlow'
    """
    return FarnebackFlow() if device.type in ("cpu", "mps") else TensorFarnebackFlow(device=device)


def _grey_bytes(frames: Tensor) -> Tensor:
    """OpenCV's ``COLOR_RGB2GRAY`` of frames rounded to bytes, ``(N, H, W)`` float32 whole numbers."""
    red, green, blue = (frames.detach().to(torch.float32) * 255).round().clamp(0, 255).unbind(dim=1)
    # fixed point of 15 bits; every sum is below 2 ** 24, so float32 holds it exactly
    return torch.floor((red * 9798 + green * 19235 + blue * 3735 + 16384) / 32768)


def _check_numbers(pyramid_scale: float, poly_sigma: float, **whole: int) -> None:
    if not 0 < pyramid_scale < 1:
        raise ConfigError(f"pyramid_scale: expected a number in (0, 1), got {pyramid_scale!r}")
    if not poly_sigma > 0:
        raise ConfigError(f"poly_sigma: expected a number above 0, got {poly_sigma!r}")
    check_positive(**whole)


def load_cv2() -> ModuleType:
    """OpenCV, imported on first use.

    Raises:
        MissingExtraError: it is not installed, or a system library it needs is missing.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError(
            f"OpenCV does not load ({error}): install the system library it names (Debian, Ubuntu: apt install "
            "libgl1 libglib2.0-0), or replace the package by one that needs none: "
            "pip uninstall opencv-python && pip install opencv-python-headless"
        ) from error
    return cv2


def _place(frame: Tensor) -> tuple[object, ...]:
    """Equal for two frames only if they are the same memory read the same way."""
    return frame.data_ptr(), frame.stride(), frame.dtype


def _to_grey(cv2: ModuleType, name: str, frame: Tensor) -> Any:
    rgb = frame.to(torch.promote_types(frame.dtype, torch.float32)).numpy()
    low, high = rgb.min(), rgb.max()
    if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):
        raise ConfigError(
            f"{name}: expected values in [0, 1], got {low:.4g} to {high:.4g}; divide 8-bit frames by 255, and "
            "undo any normalisation"
        )
    scaled = rgb * 255
    np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
    return cv2.cvtColor(cv2.merge(list(scaled.astype(np.uint8))), cv2.COLOR_RGB2GRAY)


_lock = threading.Lock()
_running = 0
_threads_before = 0


@contextmanager
def _single_threaded(cv2: ModuleType) -> Iterator[None]:
    """OpenCV at one thread until the last of all overlapping calls has left."""
    global _running, _threads_before
    with _lock:
        if _running == 0:
            _threads_before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _running += 1
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if _running == 0:
                cv2.setNumThreads(_threads_before)
