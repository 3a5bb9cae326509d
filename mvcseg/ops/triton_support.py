"""Whether kernels written in Triton can serve a device.

Triton comes with PyTorch's builds for GPUs on Linux and is imported at the first use only. At run time it wants a C
compiler and Python's headers on the host, so that a package being there says little: a small kernel is compiled and run
once for every device. Where that fails the plain PyTorch path serves, and one warning says why.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class TritonUnavailableWarning(UserWarning):
    """A GPU is used without the kernels written for it: results are the same, speed and memory are not."""


def triton_is_usable(device: torch.device) -> bool:
    """Whether kernels in Triton may be launched on a device.

    The first question about a GPU compiles and runs a small kernel there and waits for it, seconds at most; the answer
    is kept for the rest of the process. The first failure warns (``TritonUnavailableWarning``), later ones do not. May
    be asked from any thread, and in code that ``torch.compile`` reads, where the answer becomes part of the graph.

    Args:
        device: where the kernel's tensors lie. Only ``cuda`` devices, which AMD's are too, have kernels; for all others
            the answer is False without a warning.

    Returns:
        False inside ``disabled``, and while a CUDA graph is captured on a device that was not asked about before.

    Example:
        >>> triton_is_usable(torch.device("cpu"))
        False
    """
    if device.type != "cuda" or _disabling.depth:
        return False
    index = torch.cuda.current_device() if device.index is None else device.index
    with _lock:
        if index not in _problems:
            if torch.cuda.is_current_stream_capturing():
                return False
            _problems[index] = _problem(torch.device("cuda", index))
            if _problems[index] is not None:
                _warn_once(index, _problems[index])
        return _problems[index] is None


triton_is_usable._dynamo_marked_constant = True  # type: ignore[attr-defined]
# as torch.compiler.assume_constant_result would, which imports the compiler


@contextmanager
def disabled() -> Iterator[None]:
    """Plain PyTorch instead of kernels in Triton, in every thread of the process, as long as the context lasts.

    Graphs that ``torch.compile`` made before keep their kernels.

    Example:
        >>> with disabled():
        ...     triton_is_usable(torch.device("cuda", 0))
        False
    """
    with _lock:
        _disabling.depth += 1
    try:
        yield
    finally:
        with _lock:
            _disabling.depth -= 1


class _Depth:
    """How many ``disabled`` contexts are open."""

    depth = 0


_disabling = _Depth()
_lock = threading.RLock()
_problems: dict[int, str | None] = {}
"""What keeps Triton from running on a GPU, by its number; None where it runs."""
_warned: list[int] = []
"""The GPU that was warned about."""


def _warn_once(index: int, problem: str | None) -> None:
    if _warned:
        return
    _warned.append(index)
    warnings.warn(
        f"cuda:{index}: plain PyTorch is used in place of kernels in Triton, slower and with more memory: {problem}. "
        "mvcseg.ops.triton_support.disabled() chooses plain PyTorch without this warning",
        TritonUnavailableWarning,
        stacklevel=3,
    )


def _problem(device: torch.device) -> str | None:
    """Why Triton does not run here and what to do, or None."""
    try:
        return (
            None if _probe(device) else "a test kernel gave wrong numbers; install the Triton that your PyTorch names"
        )
    except torch.cuda.OutOfMemoryError:
        raise  # says nothing about Triton
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError)  # else a library that it wants is
        if is_missing and error.name is not None and error.name.partition(".")[0] == "triton":
            return f"Triton is not installed ({error}); where it exists, `pip install triton` brings it"
        return f"Triton does not import: {error}"
    except Exception as error:  # whatever a compiler, a driver or a disk raises is told in the warning
        return f"a test kernel failed with {type(error).__name__}: {_first_line(error)}; {_remedy(error)}"


def _probe(device: torch.device) -> bool:
    from mvcseg.ops._triton.probe import count_up

    size = 32
    with torch.cuda.device(device):
        out = torch.full((size,), -1, dtype=torch.int32, device=device)
        count_up[(1,)](out, SIZE=size)
    return out.tolist() == list(range(size))


def _remedy(error: Exception) -> str:
    if "compiler" in str(error).lower() or type(error).__name__ == "CalledProcessError":
        return "it wants a C compiler and Python's headers at run time: install gcc and python3-dev, or set CC"
    return "TRITON_CACHE_DIR must be writable, and Triton's version the one your PyTorch names"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
