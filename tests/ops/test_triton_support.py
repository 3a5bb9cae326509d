from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mvcseg.ops import triton_support
from mvcseg.ops.triton_support import TritonUnavailableWarning, disabled, triton_is_usable

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_support, "_problems", {})
    monkeypatch.setattr(triton_support, "_warned", [])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


class Probe:
    """Stands in for the test kernel: counts its launches, then raises what it was given or answers."""

    def __init__(self, outcome: bool | Exception, *, seconds: float = 0) -> None:
        self.outcome, self.seconds = outcome, seconds
        self.devices: list[torch.device] = []

    def __call__(self, device: torch.device) -> bool:
        self.devices.append(device)
        time.sleep(self.seconds)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def use(monkeypatch: pytest.MonkeyPatch, outcome: bool | Exception, *, seconds: float = 0) -> Probe:
    probe = Probe(outcome, seconds=seconds)
    monkeypatch.setattr(triton_support, "_probe", probe)
    return probe


@pytest.mark.usefixtures("no_warning")
@pytest.mark.parametrize("kind", ["cpu", "meta", "mps"])
def test_other_devices_have_no_kernels_and_are_not_probed(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    probe = use(monkeypatch, True)
    assert not triton_is_usable(torch.device(kind))
    assert probe.devices == []


@pytest.mark.usefixtures("no_warning")
def test_each_gpu_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = use(monkeypatch, True)
    devices = [GPU, torch.device("cuda", 1)]
    assert all(triton_is_usable(device) for device in [*devices, *devices, torch.device("cuda")])
    assert probe.devices == devices


def test_a_missing_package_is_told_once_for_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mvcseg.ops._triton.probe", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.warns(TritonUnavailableWarning) as told:
        answers = [triton_is_usable(torch.device("cuda", index)) for index in (0, 1, 0, 1)]
    assert answers == [False] * 4
    assert len(told) == 1
    assert "cuda:0: plain PyTorch is used" in str(told[0].message)
    assert "pip install triton" in str(told[0].message)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("Failed to find C compiler. Please specify via CC\nmore"), "RuntimeError: .* via CC; .*gcc"),
        (subprocess.CalledProcessError(1, ["gcc", "main.c"]), "CalledProcessError: .*python3-dev"),
        (PermissionError(13, "Permission denied", "cache"), "PermissionError: .*TRITON_CACHE_DIR"),
        (ImportError("libtriton.so: undefined symbol", name="libtriton"), "does not import: libtriton.so"),
        (ImportError("libz.so: cannot open", name="triton._C.libtriton"), "does not import: libz.so"),
    ],
)
def test_a_failed_kernel_is_told_with_a_remedy(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    probe = use(monkeypatch, error)
    with pytest.warns(TritonUnavailableWarning, match=words) as told:
        answers = [triton_is_usable(GPU) for _ in range(2)]
    assert answers == [False, False]
    assert len(told) == len(probe.devices) == 1
    assert "\n" not in str(told[0].message)


def test_wrong_numbers_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, False)
    with pytest.warns(TritonUnavailableWarning, match="wrong numbers"):
        assert not triton_is_usable(GPU)


def test_a_full_gpu_says_nothing_about_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = use(monkeypatch, torch.cuda.OutOfMemoryError("full"))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        triton_is_usable(GPU)
    probe.outcome = True
    assert triton_is_usable(GPU)


def test_threads_share_one_probe_and_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = use(monkeypatch, RuntimeError("no"), seconds=0.05)
    together = threading.Barrier(8)

    def ask(_: int) -> bool:
        together.wait()
        return triton_is_usable(GPU)

    with pytest.warns(TritonUnavailableWarning) as told, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [False] * 8
    assert len(told) == len(probe.devices) == 1


@pytest.mark.usefixtures("no_warning")
def test_disabled_is_for_every_thread_nests_and_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, True)
    with ThreadPoolExecutor(1) as pool:
        with disabled():
            with disabled():
                assert not triton_is_usable(GPU)
            assert not triton_is_usable(GPU)
            assert not pool.submit(triton_is_usable, GPU).result()
        with pytest.raises(KeyError), disabled():
            raise KeyError
        assert triton_is_usable(GPU)
        assert pool.submit(triton_is_usable, GPU).result()


@pytest.mark.usefixtures("no_warning")
def test_disabled_neither_probes_nor_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = use(monkeypatch, RuntimeError("no"))
    with disabled():
        assert not triton_is_usable(GPU)
    assert probe.devices == []


def test_nothing_is_probed_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = use(monkeypatch, True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not triton_is_usable(GPU)
    assert probe.devices == []
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert triton_is_usable(GPU)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert triton_is_usable(GPU)


def test_a_compiled_graph_holds_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, True)

    def double_if_usable(x: torch.Tensor) -> torch.Tensor:
        return 2 * x if triton_is_usable(GPU) else 1 * x

    assert torch.compile(double_if_usable, backend="eager", fullgraph=True)(torch.ones(1)) == 2


def test_importing_the_package_does_not_import_triton() -> None:
    # PyTorch itself may look for Triton, so what counts is what our modules add to it
    script = (
        "import sys, torch; before = set(sys.modules); import mvcseg, mvcseg.ops.triton_support as t; "
        "t.triton_is_usable(torch.device('cpu')); print('triton' in set(sys.modules) - before)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


INTERPRETED = """
import torch
from mvcseg.ops._triton.probe import count_up
out = torch.full((32,), -1, dtype=torch.int32)
count_up[(1,)](out, SIZE=32)
assert out.tolist() == list(range(32)), out
"""


def test_the_test_kernel_counts_up() -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        check=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )


@pytest.mark.cuda
def test_a_gpu_at_hand_runs_kernels() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    assert triton_is_usable(torch.device("cuda"))
