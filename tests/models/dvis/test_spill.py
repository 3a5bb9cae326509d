from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.models.dvis.spill import SpillFile


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64])
def test_frames_come_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path, generator: torch.Generator) -> None:
    frames = torch.randint(-(2**40), 2**40, (7, 5, 3), generator=generator).to(dtype)
    if dtype.is_floating_point:
        frames[0, 0] = torch.tensor([float("nan"), float("-inf"), -0.0])
    with SpillFile(tmp_path) as spill:
        kept = spill.array((5, 3), dtype)
        kept.append(frames)
        back = kept.read(slice(None))
    assert back.dtype == dtype
    assert torch.equal(back.view(torch.uint8), frames.view(torch.uint8))


def test_arrays_that_grow_in_turn_stay_apart(tmp_path: Path, generator: torch.Generator) -> None:
    first, second = torch.randn(9, 4, 6, generator=generator), torch.randn(9, 2, 3, 5, generator=generator).double()
    with SpillFile(tmp_path) as spill:
        a, b = spill.array((4, 6), torch.float32), spill.array((2, 3, 5), torch.float64)
        for start, stop in ((0, 1), (1, 4), (4, 4), (4, 9)):
            a.append(first[start:stop])
            b.append(second[start:stop])
        assert (a.shape, b.shape, len(a)) == ((9, 4, 6), (9, 2, 3, 5), 9)
        for start in range(10):
            for stop in range(start, 10):
                assert torch.equal(a.read(slice(start, stop)), first[start:stop])
                assert torch.equal(b.read(slice(start, stop)), second[start:stop])
                assert torch.equal(a.read(slice(start, stop), rows=slice(1, 3)), first[start:stop, 1:3])
        assert torch.equal(a.read(slice(-2, None), slice(3, 3)), first[-2:, 3:3])
        assert spill.size == 9 * 4 * 6 * 4 + 9 * 30 * 8


def test_rows_are_replaced_in_place(tmp_path: Path, generator: torch.Generator) -> None:
    expected = torch.randn(6, 5, 4, generator=generator)
    with SpillFile(tmp_path) as spill:
        kept = spill.array((5, 4), torch.float32)
        kept.append(expected[:2])
        spill.array((8,), torch.uint8, frames=3)  # so that the frames do not lie together
        kept.append(expected[2:])
        part = torch.randn(3, 2, 4, generator=generator)
        kept.write(1, part, rows=slice(2, 4))
        expected[1:4, 2:4] = part
        assert torch.equal(kept.read(slice(None)), expected)
        whole = torch.randn(4, 5, 4, generator=generator)
        kept.write(2, whole)
        expected[2:6] = whole
        assert torch.equal(kept.read(slice(None)), expected)


def test_frames_to_begin_with_hold_zeros(tmp_path: Path) -> None:
    with SpillFile(tmp_path) as spill:
        kept = spill.array((2, 3), torch.float64, frames=4)
        kept.write(1, torch.ones(1, 1, 3, dtype=torch.float64), rows=slice(1, 2))
        assert kept.read(slice(None)).sum(dim=(1, 2)).tolist() == [0.0, 3.0, 0.0, 0.0]


def test_strided_and_differentiated_frames_are_taken(tmp_path: Path, generator: torch.Generator) -> None:
    frames = torch.randn(3, 4, 5, generator=generator, requires_grad=True).transpose(0, 2)
    with SpillFile(tmp_path) as spill:
        kept = spill.array((4, 3), torch.float32)
        kept.append(frames)
        assert torch.equal(kept.read(slice(None)), frames)


def test_threads_read_while_one_writes(tmp_path: Path) -> None:
    with SpillFile(tmp_path) as spill:
        kept = spill.array((64, 64), torch.float32)
        wrong: list[int] = []

        def read() -> None:
            for _ in range(200):
                count = len(kept)
                got = kept.read(slice(0, count))[:, 0, 0]
                wrong.extend([count] * (not torch.equal(got, torch.arange(count).float())))

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for number in range(60):
            kept.append(torch.full((1, 64, 64), float(number)))
        for reader in readers:
            reader.join()
    assert wrong == []


def test_nothing_bears_a_name_in_the_folder(tmp_path: Path) -> None:
    with SpillFile(tmp_path) as spill:
        spill.array((4,), torch.float32).append(torch.ones(10, 4))
        assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_after_a_kill(tmp_path: Path) -> None:
    code = (
        "import sys, time, torch\n"
        "from mvcseg.models.dvis.spill import SpillFile\n"
        "spill = SpillFile(sys.argv[1])\n"
        "spill.array((1000, 100), torch.float32).append(torch.ones(10, 1000, 100))\n"
        "print(spill.size, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"4000000\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_closing_and_forgetting_give_the_file_back(tmp_path: Path) -> None:
    def open_files() -> int:
        return sum(entry.is_symlink() and str(tmp_path) in str(entry.readlink()) for entry in descriptors.iterdir())

    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("no /proc here")
    spill = SpillFile(tmp_path)
    kept = spill.array((4,), torch.float32, frames=1)
    assert open_files() == 1
    del spill
    gc.collect()
    assert kept.read(slice(None)).shape == (1, 4)  # an array holds its file
    del kept
    gc.collect()
    assert open_files() == 0
    spill = SpillFile(tmp_path)
    spill.close()
    spill.close()
    assert open_files() == 0


def test_a_full_disk_is_a_data_error_that_names_folder_size_and_way_out(tmp_path: Path) -> None:
    code = (
        "import resource, sys, torch\n"
        "from mvcseg.errors import DataError\n"
        "from mvcseg.models.dvis.spill import SpillFile\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))\n"
        "kept = SpillFile(sys.argv[1]).array((100,), torch.float32)\n"
        "kept.append(torch.ones(5, 100))\n"
        "try:\n"
        "    kept.append(torch.ones(10000, 100))\n"
        "except DataError as error:\n"
        "    print(error)\n"
        "kept.append(torch.full((1, 100), 2.0))\n"
        "print(kept.read(slice(None))[:, 0].tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    message, values = done.stdout.splitlines()
    assert values == "[1.0, 1.0, 1.0, 1.0, 1.0, 2.0]"
    for part in (str(tmp_path), "no room left", "4.0 MB", "spill_folder", "TMPDIR"):
        assert part in message


def test_a_missing_or_unwritable_folder_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*spill_folder"):
        SpillFile(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file"):
        SpillFile(tmp_path / "file")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with SpillFile(tmp_path) as spill:
        with pytest.raises(ShapeError, match="sizes of one frame"):
            spill.array((), torch.float32)
        with pytest.raises(ConfigError, match="frames"):
            spill.array((2,), torch.float32, frames=-1)
        kept = spill.array((5, 4), torch.float32, frames=3)
        with pytest.raises(ShapeError, match=r"expected \(t, 5, 4\), got \(1, 4, 5\)"):
            kept.append(torch.zeros(1, 4, 5))
        with pytest.raises(ShapeError, match=r"expected \(t, 2, 4\)"):
            kept.write(0, torch.zeros(1, 5, 4), rows=slice(0, 2))
        with pytest.raises(DTypeError, match=r"float32.*float64"):
            kept.append(torch.zeros(1, 5, 4).double())
        with pytest.raises(ShapeError, match="2 to 4 lie outside the 3"):
            kept.write(2, torch.zeros(2, 5, 4))
        with pytest.raises(ShapeError, match="without a step"):
            kept.read(slice(None, None, 2))
