"""``mvcseg inspect`` on files of every kind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from mvcseg.cli import main
from mvcseg.models.compact_checkpoint import packaged_checkpoint
from mvcseg.models.dvis import PRESETS
from mvcseg.models.dvis.names import expected_entries


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the names and shapes of an online model; its tensors take no space."""
    monkeypatch.chdir(tmp_path)
    entries = expected_entries(PRESETS["vspw_online_r50"]).items()
    state = {name: torch.zeros((1,) * len(shape), dtype=dtype).expand(shape) for name, (shape, dtype) in entries}
    torch.save({"model": state, "iteration": 20_000}, "online.pth")
    return Path("online.pth")


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(["inspect", *arguments]) == status
    printed = capsys.readouterr()
    assert (printed.err == "") == (status == 0)
    return printed.out or printed.err


def test_a_published_file_is_told_in_short_lines(online: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = inspected(capsys, str(online))
    assert text.startswith("kind: DVIS++ online model with ResNet-50\npreset: vspw_online_r50\n")
    assert "iteration: 20000" in text.splitlines()
    assert max(map(len, text.splitlines())) <= 80


def test_json_is_one_object(online: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(inspected(capsys, str(online), "--json"))
    assert (facts["preset"], facts["num_classes"], facts["num_queries"]) == ("vspw_online_r50", 124, 100)
    assert facts["model_parameters"] == 71_042_682


def test_a_file_on_the_hub_is_fetched(
    online: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repo: str, file: str, *, revision: str | None) -> str:
        asked.append((repo, file, revision))
        return str(online)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert "vspw_online_r50" in inspected(capsys, "hf://owner/repo@v1/a/b.pth")
    assert asked == [("owner/repo", "a/b.pth", "v1")]


def test_a_model_of_mvcseg_train_is_told_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(packaged_checkpoint("plain"))
    facts = json.loads(inspected(capsys, path, "--json"))
    assert facts["kind"] == "CompactSegmenter"
    assert facts["metadata"]["split"] == "train"
    text = inspected(capsys, path)
    assert max(map(len, text.splitlines())) <= 80
    assert "class_names: sky, " in text


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "x.pth: is empty"),
        (b"<html>", "x.pth: is a web page"),
        (b"words", "x.pth: is no checkpoint"),
        (Hostile(), "x.pth: refused: it names "),
        ({}, "x.pth: holds no tensors"),
    ],
    ids=str,
)
def test_what_cannot_be_inspected_ends_with_one_line(
    content: object, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if isinstance(content, bytes):
        Path("x.pth").write_bytes(content)
    else:
        torch.save(content, "x.pth")
    message = inspected(capsys, "x.pth", status=1)
    assert message.startswith(f"mvcseg: {told}")
    assert message.count("\n") == 1
    assert not Path("ran").exists()
