from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from mvcseg.errors import CheckpointError
from mvcseg.models.dvis import sources
from mvcseg.models.dvis.sources import fetch

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def asked(local: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str | None]]:
    """What the hub is asked for; every answer is the local file."""
    calls = []

    def download(repo: str, file: str, *, revision: str | None = None) -> str:
        calls.append((repo, file, revision))
        return str(local)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return calls


def test_a_local_file_is_itself(local: Path) -> None:
    assert fetch(local) == fetch(str(local)) == local


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("hf://owner/repo/model.pth", ("owner/repo", "model.pth", None)),
        ("hf://owner/repo/sub/dir/model.pth", ("owner/repo", "sub/dir/model.pth", None)),
        ("hf://owner/repo@v1.0/DVIS++/model.pth", ("owner/repo", "DVIS++/model.pth", "v1.0")),
    ],
)
def test_a_hub_address_names_repository_revision_and_file(
    address: str, expected: tuple[str, str, str | None], asked: list[tuple[str, str, str | None]], local: Path
) -> None:
    assert fetch(address) == local
    assert asked == [expected]


@pytest.mark.parametrize(
    "address",
    [
        "hf://",
        "hf://model.pth",
        "hf://owner/model.pth",
        "hf://owner/repo/",
        "hf://owner/repo/../../model.pth",
        "hf://owner/repo//model.pth",
        "hf://owner/repo@/model.pth",
        "hf://owner/repo@a@b/model.pth",
        "hf://owner/repo/a\\b",
        "hf://owner/repo/a\x1b[31m",
        "hf://ow ner/repo/a",
    ],
)
def test_a_malformed_address_is_refused_before_any_connection(
    address: str, asked: list[tuple[str, str, str | None]]
) -> None:
    with pytest.raises(CheckpointError, match="expected hf://owner/repo/file") as caught:
        fetch(address)
    assert str(caught.value).isprintable()
    assert asked == []


def http(kind: type[Exception]) -> Exception:
    """A hub error without the response that its constructor wants."""
    return kind.__new__(kind)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (http(errors.GatedRepoError), "login"),
        (http(errors.RepositoryNotFoundError), "no repository owner/repo"),
        (http(errors.RevisionNotFoundError), "no revision r1"),
        (errors.LocalEntryNotFoundError("x"), "cannot be reached and the file is not in its cache"),
        (errors.EntryNotFoundError("x"), "no file model.pth"),
        (errors.HFValidationError("x"), "allows no such name"),
        (errors.OfflineModeIsEnabled("offline"), "download failed"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_a_download_that_fails_is_one_error_with_the_reason(
    raised: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        raise raised

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(CheckpointError, match=told) as caught:
        fetch("hf://owner/repo@r1/model.pth")
    assert str(caught.value).startswith("hf://owner/repo@r1/model.pth: ")
    assert str(caught.value).isprintable()


def test_without_a_network_a_cached_file_is_used_and_others_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"hf://owner/repo/model\.pth: "):
        fetch("hf://owner/repo/model.pth")


def test_a_digest_is_checked(local: Path) -> None:
    assert fetch(local, sha256=DIGEST) == fetch(local, sha256=DIGEST.upper()) == local
    with pytest.raises(CheckpointError, match=f"expected SHA-256 {'0' * 64}, got {DIGEST}; download it again"):
        fetch(local, sha256="0" * 64)
    with pytest.raises(CheckpointError, match="sha256: expected 64 hexadecimal digits, got 'abc'"):
        fetch(local, sha256="abc")


def test_a_pinned_file_must_have_its_digest(
    asked: list[tuple[str, str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "hf://owner/repo@r1/model.pth"
    monkeypatch.setitem(sources.PINNED, address, DIGEST)
    fetch(address)
    monkeypatch.setitem(sources.PINNED, address, "1" * 64)
    with pytest.raises(CheckpointError, match="expected SHA-256 1111"):
        fetch(address)


@pytest.mark.parametrize("name", ["none.pth", "", "a\x00b", "n" * 5000, "none\x1b[31m.pth"])
def test_a_missing_file_or_folder_is_one_printable_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such file|got a folder") as caught:
        fetch(f"{tmp_path}/{name}")
    assert str(caught.value).isprintable()
