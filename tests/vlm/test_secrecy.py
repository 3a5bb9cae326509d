from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mvcseg.vlm import CachedVLM, Group, OpenAIVLM, correct_labels, write_changes
from mvcseg.vlm.secrecy import api_key, without_key

KEY = "sk-proj-Zq81xTrw0123456789abcdefgh"


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_piece_of_eight_characters_is_left(before: str, after: str) -> None:
    text = without_key(f"{before}{KEY}{after}", key=KEY)
    assert not any(KEY[start : start + 8] in text for start in range(len(KEY) - 7))


def test_the_rest_of_the_text_stays() -> None:
    assert without_key(f"key {KEY} and {KEY[:12]}... refused", key=KEY) == "key *** and ***... refused"
    assert without_key("nothing here", key=KEY) == "nothing here"
    assert without_key("nothing here", key="") == "nothing here"


def test_short_key_is_removed_where_it_stands_alone() -> None:
    assert without_key("key abc, abcd", key="abc") == "key ***, abcd"


def test_key_is_read_without_white_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    assert api_key() == KEY
    monkeypatch.delenv("OPENAI_API_KEY")
    assert api_key() == ""


def test_key_is_in_no_file_log_output_or_record(
    chat_server: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A server that shows the key wherever it can, with every logger at its most talkative."""
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    refusal = f'{{"error": {{"message": "Incorrect API key provided: {KEY}"}}}}'.encode()
    chat_server.script = [
        chat_server.answers(f"With your key {KEY} I say lake."),
        chat_server.sends(refusal, status=401),
        # Tried twice with a schema, and twice without.
        *[chat_server.sends(refusal, status=500, Retry_After="0.01")] * 4,
        chat_server.sends(KEY.encode()),
        chat_server.answers(KEY),
    ]
    vlm = OpenAIVLM(model="m", base_url=chat_server.url, max_retries=1)
    labels = torch.zeros(1, 24, 60, dtype=torch.uint8)
    for position in range(5):
        labels[0, : 20 - position, 8 * position : 8 * position + 6] = 1
    video = torch.zeros(1, 3, 24, 60, dtype=torch.uint8)
    cached = CachedVLM(vlm, tmp_path / "cache")
    groups = [Group("water", (1, 2))]
    result = correct_labels(video, labels, vlm=cached, groups=groups, class_names=["sky", "river", "lake"])
    write_changes(tmp_path / "changes.json", result.changes)
    assert [change.status for change in result.changes] == ["changed", "failed", "failed", "failed", "unclear"]
    assert result.changes[0].answer == "With your key *** I say lake."
    assert all(headers["authorization"] == f"Bearer {KEY}" for headers in chat_server.headers)  # it was in use
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert written
    texts = [caplog.text, *capfd.readouterr(), repr(result), repr(vlm), vlm.identity, written.decode()]
    secret = KEY.removeprefix("sk-proj-")
    assert not [text for text in texts if secret in text or secret[:10] in text]


def test_key_in_the_error_of_a_callers_own_client_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def own(images: object, prompt: str, *, choices: object) -> str:
        raise RuntimeError(f"401 for {KEY}")

    video, labels = torch.zeros(1, 3, 4, 6, dtype=torch.uint8), torch.ones(1, 4, 6, dtype=torch.uint8)
    result = correct_labels(video, labels, vlm=own, groups=[Group("water", (1, 2))], class_names=["sky", "a", "b"])
    assert result.changes[0].reason == "RuntimeError: 401 for ***"
