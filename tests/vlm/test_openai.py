from __future__ import annotations

import base64
import importlib.util
import io
import json
import socket
import time
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mvcseg.errors import ConfigError, DTypeError, MissingExtraError, ShapeError, VLMAnswerError
from mvcseg.vlm import Group, OpenAIVLM, correct_labels

KEY = "sk-test-0123456789abcdefghijKLMN"
QUESTION = "Is the water in the image a river, lake, sea? Please give me the only answer."
CHOICES = ("river", "lake", "sea")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def image(*, height: int = 6, width: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def client(server: Any, **options: Any) -> OpenAIVLM:
    return OpenAIVLM(**{"model": "m", "base_url": server.url, "timeout": 5.0, "max_retries": 0, **options})


def shown(request: dict[str, Any], *, position: int = 0) -> np.ndarray:
    (message,) = request["messages"]
    parts = [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]
    header, _, data = parts[position].partition(",")
    assert header in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_good_answer_comes_back_as_it_was_said(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers("The water in the image is a lake.")]
    assert client(chat_server)([image()], QUESTION, choices=CHOICES) == "The water in the image is a lake."


def test_question_image_and_key_are_sent_and_nothing_else(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers("lake")]
    client(chat_server, image_format="png")([image()], QUESTION, choices=CHOICES)
    (request,), (headers,) = chat_server.requests, chat_server.headers
    assert set(request) == {"model", "messages", "temperature", "max_tokens"}
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("m", 0.0, 256)
    assert request["messages"][0]["content"][0] == {"type": "text", "text": QUESTION}
    assert headers["authorization"] == f"Bearer {KEY}"
    np.testing.assert_array_equal(shown(request), image().permute(1, 2, 0).numpy())


def test_jpeg_is_close_and_large_images_are_scaled_down(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers("lake")]
    smooth = torch.arange(200, dtype=torch.uint8).expand(3, 100, 200)
    client(chat_server, max_side=50)([smooth, image()], QUESTION, choices=CHOICES)
    first, second = (shown(chat_server.requests[0], position=position) for position in range(2))
    assert first.shape == (25, 50, 3)
    assert second.shape == (6, 10, 3)
    assert abs(first.astype(int) - np.linspace(1.5, 197.5, 50)[None, :, None]).max() < 8


def test_several_images_come_in_order(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers("lake")]
    client(chat_server, image_format="png")([image(), image().flip(2)], QUESTION, choices=CHOICES)
    np.testing.assert_array_equal(shown(chat_server.requests[0]), shown(chat_server.requests[0], position=1)[:, ::-1])


def test_choices_are_structured_only_where_asked_for(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers("lake")]
    client(chat_server, structured_choice=True)([image()], QUESTION, choices=CHOICES)
    client(chat_server)([image()], QUESTION, choices=CHOICES)
    assert chat_server.requests[0]["structured_outputs"] == {"choice": list(CHOICES)}
    assert "structured_outputs" not in chat_server.requests[1]


def test_options_can_be_left_out_or_added(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers("lake")]
    client(chat_server, temperature=None, max_tokens=None, extra_body={"max_completion_tokens": 9})([], QUESTION)
    assert set(chat_server.requests[0]) == {"model", "messages", "max_completion_tokens"}


def test_server_without_keys_gets_a_word(chat_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    chat_server.script = [chat_server.answers("lake")]
    client(chat_server)([image()], QUESTION)
    assert chat_server.headers[0]["authorization"] == "Bearer none"


def test_retry_after_is_honoured_on_429(chat_server: Any) -> None:
    busy = chat_server.sends(b'{"error": {"message": "slow down"}}', status=429, Retry_After="1")
    chat_server.script = [busy, chat_server.answers("lake")]
    assert client(chat_server, max_retries=1)([image()], QUESTION) == "lake"
    assert 1.0 <= chat_server.times[1] - chat_server.times[0] < 3.0


def test_500_is_asked_again(chat_server: Any) -> None:
    chat_server.script = [chat_server.sends(b"oops", status=500, Retry_After="0.05"), chat_server.answers("lake")]
    assert client(chat_server, max_retries=1)([image()], QUESTION) == "lake"
    assert len(chat_server.requests) == 2


@pytest.mark.parametrize("status", [429, 500])
def test_lasting_refusal_ends_after_the_retries(chat_server: Any, status: int) -> None:
    chat_server.script = [chat_server.sends(b'{"error": {"message": "slow"}}', status=status, Retry_After="0.05")]
    with pytest.raises(VLMAnswerError, match=f"HTTP {status}.*slow"):
        client(chat_server, max_retries=2)([image()], QUESTION)
    assert len(chat_server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 404])
def test_refusal_that_will_not_change_is_not_repeated(chat_server: Any, status: int) -> None:
    chat_server.script = [chat_server.sends(b'{"error": {"message": "no model m"}}', status=status)]
    with pytest.raises(VLMAnswerError, match=f"HTTP {status}.*no model m"):
        client(chat_server, max_retries=3)([image()], QUESTION)
    assert len(chat_server.requests) == 1


def test_key_in_a_refusal_is_removed(chat_server: Any) -> None:
    chat_server.script = [chat_server.sends(f'{{"error": {{"message": "bad key {KEY}!"}}}}'.encode(), status=401)]
    with pytest.raises(VLMAnswerError, match=r"bad key \*\*\*!") as caught:
        client(chat_server)([image()], QUESTION)
    assert KEY[10:] not in str(caught.value)


def test_hang_ends_at_the_time_out(chat_server: Any) -> None:
    chat_server.script = [chat_server.hangs()]
    start = time.monotonic()
    with pytest.raises(VLMAnswerError, match=r"no answer within 0\.3 s"):
        client(chat_server, timeout=0.3)([image()], QUESTION)
    assert 0.3 <= time.monotonic() - start < 3


def test_dripping_body_ends_at_the_time_out(chat_server: Any) -> None:
    chat_server.script = [chat_server.drips(pause=0.02)]
    start = time.monotonic()
    with pytest.raises(VLMAnswerError, match=r"no whole answer within 0\.3 s"):
        client(chat_server, timeout=0.3)([image()], QUESTION)
    assert 0.3 <= time.monotonic() - start < 3


def test_body_that_breaks_off_is_a_failure(chat_server: Any) -> None:
    chat_server.script = [chat_server.breaks_off()]
    with pytest.raises(VLMAnswerError, match="broke off"):
        client(chat_server)([image()], QUESTION)


def test_body_of_many_megabytes_is_not_read_to_its_end(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers("lake " * 1_000_000)]
    with pytest.raises(VLMAnswerError, match="longer than 1,000,000 bytes"):
        client(chat_server)([image()], QUESTION)


@pytest.mark.parametrize("body", [b"", b"{", b"not json", b"\xff\xfe", b"[" * 100_000, b'{"choices": ['])
def test_broken_json_is_a_failure(chat_server: Any, body: bytes) -> None:
    chat_server.script = [chat_server.sends(body)]
    with pytest.raises(VLMAnswerError, match="no JSON"):
        client(chat_server)([image()], QUESTION)


@pytest.mark.parametrize("value", [[], {}, 3, None, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": 1}]}])
def test_json_that_is_no_completion_is_a_failure(chat_server: Any, value: object) -> None:
    chat_server.script = [chat_server.sends(json.dumps(value).encode())]
    with pytest.raises(VLMAnswerError, match="holds no choices"):
        client(chat_server)([image()], QUESTION)


def test_completion_without_text_says_why_it_ended(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers(None)]
    with pytest.raises(VLMAnswerError, match=r"no text .finish reason 'stop'"):
        client(chat_server)([image()], QUESTION)


def test_refused_connection_is_a_failure() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    vlm = OpenAIVLM(model="m", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
    with pytest.raises(VLMAnswerError, match=r"no connection to http://127\.0\.0\.1:"):
        vlm([image()], QUESTION)


def test_redirect_is_not_followed(chat_server: Any) -> None:
    chat_server.script = [chat_server.sends(b"", status=307, Location=f"{chat_server.url}/elsewhere")]
    with pytest.raises(VLMAnswerError, match="HTTP 307"):
        client(chat_server)([image()], QUESTION)
    assert len(chat_server.requests) == 1


def test_every_failure_keeps_the_labels_and_is_recorded(chat_server: Any) -> None:
    chat_server.script = [
        chat_server.answers("The water in the image appears to be a river, as it is flowing."),
        chat_server.sends(b"", status=429, Retry_After="0.01"),
        chat_server.sends(b"oops", status=500, Retry_After="0.01"),
        chat_server.sends(b"{"),
        chat_server.breaks_off(),
        chat_server.answers("I see trees, clouds and two dogs playing ball."),
        chat_server.hangs(),
        chat_server.answers("lake"),
    ]
    names = ["sky", "river", "lake", "sea"]
    labels = torch.zeros(1, 24, 64, dtype=torch.uint8)
    for position in range(8):  # from left to right ever smaller, so asked in this order
        labels[0, : 20 - position, 8 * position : 8 * position + 6] = 3
    video = torch.zeros(1, 3, 24, 64, dtype=torch.uint8)
    result = correct_labels(
        video, labels, vlm=client(chat_server, timeout=0.4), groups=[Group("water", (1, 2, 3))], class_names=names
    )
    assert [change.status for change in result.changes] == [
        "changed", "failed", "failed", "failed", "failed", "unclear", "failed", "changed",
    ]  # fmt: skip
    assert [bool(change.reason) for change in result.changes] == [
        change.status != "changed" for change in result.changes
    ]
    expected = labels.clone()
    expected[..., :6][expected[..., :6] == 3] = 1
    expected[..., 56:][expected[..., 56:] == 3] = 2
    assert torch.equal(result.labels, expected)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://host/v1",
        f"http://user:{KEY}@host/v1",
        f"https://host/v1?key={KEY}",
        "http://h:99999/v1",
    ],
)
def test_url_that_could_hold_a_key_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="base_url: expected") as caught:
        OpenAIVLM(model="m", base_url=url)
    assert KEY not in str(caught.value)


def test_openai_itself_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OpenAIVLM(model="gpt-4o")


def test_key_that_no_header_can_hold_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ключ")
    with pytest.raises(ConfigError, match="printable ASCII") as caught:
        OpenAIVLM(model="gpt-4o")
    assert "ключ" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ""}, "model"),
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_side": 0}, "max_side"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"image_format": "gif"}, "image_format"),
    ],
)
def test_option_outside_its_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OpenAIVLM(**{"model": "m", "base_url": "http://localhost/v1", **options})


def test_wrong_images_are_refused_before_anything_is_sent(chat_server: Any) -> None:
    with pytest.raises(DTypeError, match="expected uint8"):
        client(chat_server)([image().float()], QUESTION)
    with pytest.raises(ShapeError, match="3 h w"):
        client(chat_server)([image()[None]], QUESTION)
    assert not chat_server.requests


def test_missing_openai_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "mvcseg\[vlm\]"'):
        OpenAIVLM(model="m", base_url="http://localhost/v1")


def test_identity_tells_models_servers_and_options_apart() -> None:
    base = {"model": "m", "base_url": "http://localhost:1/v1"}
    variants: list[dict[str, Any]] = [
        {}, {"model": "n"}, {"base_url": "http://localhost:2/v1"}, {"temperature": 1.0}, {"structured_choice": True},
        {"max_side": 64}, {"image_format": "png"}, {"extra_body": {"seed": 1}},
    ]  # fmt: skip
    assert len({OpenAIVLM(**{**base, **variant}).identity for variant in variants}) == len(variants)
