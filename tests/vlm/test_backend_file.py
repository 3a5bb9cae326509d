from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_vlms import save_clip, save_llava

from mvcseg.errors import DataError, VLMUnavailableError
from mvcseg.vlm import LocalVLM, OpenAIVLM, Price, ReplayVLM, ZeroShotScorer
from mvcseg.vlm.backend_file import Backend, Backends, open_backend, read_backends

SERVER = "{name: a, vlm: 'http://localhost:8000/v1', model: m}"
IMAGE = torch.zeros(3, 16, 16, dtype=torch.uint8)


def written(folder: Path, text: str) -> Path:
    path = folder / "models.yaml"
    path.write_text(text)
    return path


def test_each_kind_is_read(tmp_path: Path) -> None:
    text = """\
- name: gpt
  vlm: https://api.openai.com/v1/
  model: gpt-4o
  price: {input: 2.5, output: 10}
- {name: llava 1.5, vlm: "http://localhost:8000/v1", model: "llava:7b"}
- {name: here, local: models/llava}
- {name: clip, zero_shot: /models/clip}
- {name: log, answers: old/changes.json}
"""
    assert read_backends(written(tmp_path, text)) == (
        Backend("gpt", "vlm", "https://api.openai.com/v1", model="gpt-4o", price=Price(2.5, 10), send_key=True),
        Backend("llava 1.5", "vlm", "http://localhost:8000/v1", model="llava:7b"),
        Backend("here", "local", str(tmp_path / "models/llava")),
        Backend("clip", "zero_shot", "/models/clip"),
        Backend("log", "answers", str(tmp_path / "old/changes.json")),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "line 1: expected a list of entries such as - {name: llava"),
        ("- {name: a}", "line 1: expected one of vlm, local, zero_shot, answers for 'a', got none"),
        ("- {name: a, local: b, answers: c}", "line 1: expected one of .*got local and answers"),
        ("- {local: b}", "line 1: expected 'name'"),
        ("- name: a\n  local: [b]", "line 2: local: expected a text"),
        ("- name: a\n  vlm: http://h/v1", "line 1: vlm and model go together, got vlm alone"),
        ("- name: a\n  local: b\n  model: m", "line 1: vlm and model go together, got model alone"),
        ("- name: a\n  vlm: http://user:secret@h/v1\n  model: m", r"line 2: vlm: expected http\(s\)"),
        ("- name: a\n  vlm: ftp://h/v1\n  model: m", "line 2: vlm: expected http"),
        ("- name: a\n  local: b\n  api_key: secret", "line 3: expected the keys name, .*got 'api_key'"),
        ("- name: ../a\n  local: b", r"line 1: name: expected up to 64 letters.*'\.\./a'"),
        ("- name: .a\n  local: b", "line 1: name: expected"),
        ("- name: a.\n  local: b", "line 1: name: expected"),
        ("- name: Comparison.json\n  local: b", "line 1: name: expected .* got 'Comparison.json'"),
        ("- {name: con, local: b}", "line 1: name: expected .* got 'con'"),
        ("- name: a\n  vlm: http://exa mple/v1\n  model: m", r"line 2: vlm: expected http\(s\)"),
        (f"- name: {'a' * 65}\n  local: b", "line 1: name: expected"),
        ("- name: 7\n  local: b", "line 1: name: expected a text, got 7"),
        (
            "- {name: a, local: b}\n- {name: A, local: c}",
            "line 2: name: expected another for each model, got 'A' again",
        ),
        ("- name: a\n  local: b\n  price: 3", "line 3: price: expected {input: ..., output: ...} .* got 3"),
        ("- name: a\n  local: b\n  price: {input: 3}", "line 3: price: .* got {input: 3}"),
        ("- name: a\n  local: b\n  price: {input: 3, output: x}", "line 3: price: .* got {input: 3, output: 'x'}"),
        ("- name: a\n  local: b\n  price: {input: 3, output: true}", "line 3: price"),
        ("- name: a\n  local: b\n  price: {input: 3, output: 1, extra: 2}", "line 3: price"),
        ("- name: a\n  local: b\n  price: {input: -3, output: 1}", "line 3: price: expected numbers of at least 0"),
        ("- name: a\n  local: b\n  send_key: true", "line 3: send_key: expected true or false beside vlm, got True"),
        ("- name: a\n  vlm: http://h/v1\n  model: m\n  send_key: yes", "line 4: send_key: .* got 'yes'"),
        ("\n".join(f"- {{name: m{i}, local: b}}" for i in range(51)), "line 51: expected at most 50 models, got 51"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"models.yaml, {message}") as raised:
        read_backends(written(tmp_path, text))
    assert "secret" not in str(raised.value)


def test_key_goes_to_no_other_server_unless_its_entry_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat_server: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789")
    chat_server.script = [chat_server.answers("A river.")]
    entry = f"name: {{}}, vlm: '{chat_server.url}', model: m"
    text = f"- {{{entry.format('quiet')}}}\n- {{{entry.format('trusted')}, send_key: true}}"
    for backend in read_backends(written(tmp_path, text)):
        open_backend(backend)([IMAGE], "Is it a river, lake?", choices=("river", "lake"))
    assert [headers["authorization"] for headers in chat_server.headers] == [
        "Bearer none",
        "Bearer sk-secret-0123456789",
    ]


@pytest.mark.slow
def test_each_kind_is_opened(tmp_path: Path) -> None:
    save_llava(tmp_path / "llava")
    save_clip(tmp_path / "clip")
    (tmp_path / "log.json").write_text('["A river."]')
    text = f"- {SERVER}\n- {{name: b, local: llava}}\n- {{name: c, zero_shot: clip}}\n- {{name: d, answers: log.json}}"
    backends = Backends(read_backends(written(tmp_path, text)))
    assert [type(backends[name]) for name in backends] == [OpenAIVLM, LocalVLM, ZeroShotScorer, ReplayVLM]
    assert len(backends) == 4


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("local: nothing", "nothing: expected a folder of a model, got none"),
        ("zero_shot: empty", "empty"),
        ("answers: nothing.json", "nothing.json: cannot be read"),
        ("vlm: 'https://api.openai.com/v1', model: m", "OPENAI_API_KEY: .* needs a key"),
    ],
)
def test_model_that_cannot_be_opened_is_one_that_nobody_can_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, message: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "empty").mkdir()
    backends = Backends(read_backends(written(tmp_path, f"- {{name: a, {entry}}}")))
    with pytest.raises(VLMUnavailableError, match=message):
        backends["a"]([IMAGE], "Is it a river, lake?", choices=("river", "lake"))


@pytest.mark.parametrize("error", [MemoryError("20 GiB"), ValueError("odd"), RuntimeError("driver")])
def test_whatever_ends_the_opening_of_a_model_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("mvcseg.vlm.backend_file.LocalVLM", fails)
    backends = Backends((Backend("a", "local", str(tmp_path)),))
    with pytest.raises(VLMUnavailableError, match=f"{type(error).__name__}: {error}"):
        backends["a"]([IMAGE], "Is it a river, lake?", choices=("river", "lake"))


def test_name_that_is_not_listed_is_no_model() -> None:
    assert "b" not in Backends((Backend("a", "local", "nowhere"),))


def test_example_is_read() -> None:
    backends = read_backends(Path(__file__).parents[2] / "examples/models.yaml")
    assert [backend.kind for backend in backends] == ["vlm", "vlm", "local", "zero_shot", "answers"]
    assert [backend.name for backend in backends if backend.send_key] == ["gpt-4o"]


def test_prices_are_those_given(tmp_path: Path) -> None:
    text = "- {name: a, local: b, price: {input: 0, output: 1.5}}\n- {name: c, local: d}"
    assert Backends(read_backends(written(tmp_path, text))).prices == {"a": Price(0, 1.5)}
