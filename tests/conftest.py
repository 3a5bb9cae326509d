"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from chat_server import chat_server as chat_server
from dvis_files import DVISFiles, write_dvis_files
from golden_files import GoldenFolders

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device at hand."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return torch.device(request.param)


@pytest.fixture
def generator() -> torch.Generator:
    """A freshly seeded CPU generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real video (CamVid, VSPW samples, small nets), beside the repository or in MVCSEG_SHARED_DATA."""
    folder = Path(os.environ.get("MVCSEG_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "camvid").is_dir():
        pytest.skip(f"no real data at {folder}: set MVCSEG_SHARED_DATA to the folder that holds camvid/")
    return folder


@pytest.fixture(scope="session")
def golden() -> GoldenFolders:
    """Where reference outputs lie: MVCSEG_SHARED_GOLDEN or the folder beside the repository, then tests/golden."""
    shared = Path(os.environ.get("MVCSEG_SHARED_GOLDEN", ROOT.parent / "shared" / "golden"))
    return GoldenFolders(shared, ROOT / "tests" / "golden")


@pytest.fixture(scope="session")
def dvis_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DVISFiles]:
    """Checkpoints of small DVIS++ models, gone with the session."""
    files = write_dvis_files(tmp_path_factory.mktemp("dvis"))
    yield files
    files.remove()
