"""Videos through a pipe."""

from __future__ import annotations

import io
import resource
from pathlib import Path

import pytest
import torch

from mvcseg.data import open_video, write_video
from mvcseg.data.spool import spool_video
from mvcseg.errors import DataError


def test_a_piped_video_is_the_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    write_video(tmp_path / "a.mp4", torch.zeros(5, 3, 32, 48, dtype=torch.uint8), fps=5)
    with (tmp_path / "a.mp4").open("rb") as pipe, spool_video(pipe) as video:
        assert video.name == "stdin"
        assert torch.equal(video[:], open_video(tmp_path / "a.mp4")[:])
    assert list((tmp_path / "temporary").iterdir()) == []


def test_what_is_no_video_is_named() -> None:
    with pytest.raises(DataError, match=r"^pipe: no readable video"), spool_video(io.BytesIO(b"text"), name="pipe"):
        pass


def test_a_full_temporary_folder_is_named() -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, old[1]))
    try:
        with pytest.raises(DataError, match=r"stdin: cannot be kept in "), spool_video(io.BytesIO(b"x" * 1000)):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
