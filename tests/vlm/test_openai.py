from __future__ import annotations

import base64
import contextlib
import importlib.util
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mvcseg.errors import ConfigError, DTypeError, MissingExtraError, ShapeError, VLMAnswerError
from mvcseg.vlm import Group, OpenAIVLM, Usage, correct_labels
from mvcseg.vlm.structured import choice_format

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
    assert set(request) == {"model", "messages", "temperature", "max_tokens", "response_format"}
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("m", 0.0, 256)
    assert request["messages"][0]["content"][0] == {"type": "text", "text": QUESTION}
    assert headers["authorization"] == f"Bearer {KEY}"
    assert set(headers) <= {
        "host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent",
        "authorization", "x-stainless-raw-response",
    }  # fmt: skip
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


def test_schema_of_the_choices_is_asked_for_and_its_field_comes_back(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers('{"answer": "lake"}')]
    assert client(chat_server)([image()], QUESTION, choices=CHOICES) == "lake"
    assert chat_server.requests[0]["response_format"] == choice_format(CHOICES)["response_format"]


def test_schema_is_left_out_without_choices_or_where_it_is_not_wanted(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers('{"answer": "lake"}')]
    assert client(chat_server)([image()], QUESTION) == "lake"
    assert client(chat_server, structured_choice=False)([image()], QUESTION, choices=CHOICES) == "lake"
    assert ["response_format" in request for request in chat_server.requests] == [False, False]


def test_own_form_of_answers_goes_before_ours(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers('{"answer": "lake"}')]
    own = {"response_format": {"type": "json_object"}}
    assert client(chat_server, extra_body=own)([image()], QUESTION, choices=CHOICES) == "lake"
    assert chat_server.requests[0]["response_format"] == own["response_format"]


def test_way_out_leaves_the_labels_alone(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers('{"answer": "unclear"}')]
    assert client(chat_server)([image()], QUESTION, choices=CHOICES) == "unclear"
    video, labels = torch.zeros(1, 3, 6, 8, dtype=torch.uint8), torch.ones(1, 6, 8, dtype=torch.uint8)
    result = correct_labels(
        video, labels, vlm=client(chat_server), groups=[Group("water", (1, 2))], class_names=["sky", "river", "lake"]
    )
    assert [(change.status, change.answer) for change in result.changes] == [("unclear", "unclear")]
    assert torch.equal(result.labels, labels)


def test_plain_words_of_a_server_that_ignores_schemas_are_passed_on(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers("It is a lake, I think.")]
    assert client(chat_server)([image()], QUESTION, choices=CHOICES) == "It is a lake, I think."
    assert len(chat_server.requests) == 1


@pytest.mark.parametrize("said", ['{"answer": "lake", "why": "calm"}', '{"answer": 2}', '{"answer": "la', "{}"])
def test_json_of_another_form_is_a_failure(chat_server: Any, said: str) -> None:
    chat_server.script = [chat_server.answers(said)]
    for choice in ("auto", True, False):
        with pytest.raises(VLMAnswerError, match="the answer is JSON") as caught:
            client(chat_server, structured_choice=choice)([image()], QUESTION, choices=CHOICES)
        assert caught.value.answer == said


@pytest.mark.parametrize("status", [400, 404, 415, 422, 500, 501])
def test_server_that_refuses_schemas_is_asked_plainly_from_then_on(chat_server: Any, status: int) -> None:
    refusal = chat_server.says_no("response_format is not supported", status=status)
    chat_server.script = [chat_server.by_schema(refusal, chat_server.answers("lake"))]
    vlm = client(chat_server, max_retries=3)
    assert [vlm([image()], QUESTION, choices=CHOICES) for _ in range(3)] == ["lake"] * 3
    assert ["response_format" in request for request in chat_server.requests] == [True, False, False, False]
    assert vlm.usage.requests == 3


def test_refusal_in_any_words_is_tried_plainly(chat_server: Any) -> None:
    refusal = chat_server.sends(b"<html>Bad Request</html>", status=400)
    chat_server.script = [chat_server.by_schema(refusal, chat_server.answers("lake"))]
    vlm = client(chat_server)
    assert [vlm([image()], QUESTION, choices=CHOICES) for _ in range(2)] == ["lake"] * 2
    assert len(chat_server.requests) == 3


def test_refusal_with_another_cause_is_shown_and_nothing_is_concluded(chat_server: Any) -> None:
    chat_server.script = [
        chat_server.says_no("response_format is odd", status=400),
        chat_server.says_no("image too large", status=400),
        chat_server.answers('{"answer": "lake"}'),
    ]
    vlm = client(chat_server)
    with pytest.raises(VLMAnswerError, match=r"HTTP 400.*image too large"):
        vlm([image()], QUESTION, choices=CHOICES)
    assert vlm([image()], QUESTION, choices=CHOICES) == "lake"
    assert ["response_format" in request for request in chat_server.requests] == [True, False, True]


def test_server_that_took_a_schema_is_asked_by_schema_for_ever(chat_server: Any) -> None:
    by_schema = chat_server.answers('{"answer": "lake"}')
    chat_server.script = [
        by_schema,
        chat_server.says_no("image too large", status=400),
        chat_server.says_no("enum of response_format too long", status=400),
        chat_server.answers("sea"),
        by_schema,
    ]
    vlm = client(chat_server)
    assert vlm([image()], QUESTION, choices=CHOICES) == "lake"
    with pytest.raises(VLMAnswerError, match="image too large"):
        vlm([image()], QUESTION, choices=CHOICES)
    assert vlm([image()], QUESTION, choices=CHOICES) == "sea"  # this one schema was refused
    assert vlm([image()], QUESTION, choices=CHOICES) == "lake"
    assert ["response_format" in request for request in chat_server.requests] == [True, True, True, False, True]


def test_schema_that_must_be_used_is_not_given_up(chat_server: Any) -> None:
    chat_server.script = [chat_server.says_no("response_format is not supported", status=400)]
    with pytest.raises(VLMAnswerError, match=r"HTTP 400.*response_format"):
        client(chat_server, structured_choice=True)([image()], QUESTION, choices=CHOICES)
    assert len(chat_server.requests) == 1


def test_white_space_up_to_the_bound_is_no_answer_by_schema(chat_server: Any) -> None:
    chat_server.script = [chat_server.by_schema(chat_server.answers(" \n" * 90), chat_server.answers("lake"))]
    vlm = client(chat_server)
    assert [vlm([image()], QUESTION, choices=CHOICES) for _ in range(2)] == ["lake"] * 2
    assert len(chat_server.requests) == 3


def test_threads_find_out_together_that_schemas_are_refused(chat_server: Any) -> None:
    refusal = chat_server.says_no("response_format is not supported", status=400)
    chat_server.script = [chat_server.by_schema(refusal, chat_server.answers("lake"))]
    vlm = client(chat_server)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: vlm([image()], QUESTION, choices=CHOICES), range(12)))
    assert answers == ["lake"] * 12
    assert sum("response_format" in request for request in chat_server.requests) <= 4
    assert sum("response_format" not in request for request in chat_server.requests) == 12


def test_usage_is_what_the_server_reports_added_up(chat_server: Any) -> None:
    counted = {"usage": {"prompt_tokens": 800, "completion_tokens": 4, "total_tokens": 804}}
    chat_server.script = [
        chat_server.answers("lake", **counted),
        chat_server.answers("lake"),
        chat_server.answers("lake", usage={"prompt_tokens": -800, "completion_tokens": "many"}),
        chat_server.answers(None, **counted),
        chat_server.sends(b"{"),
        chat_server.says_no("no", status=400),
        chat_server.answers("lake", **counted),
    ]
    vlm = client(chat_server)
    assert vlm.usage == Usage()
    for _ in range(7):
        with contextlib.suppress(VLMAnswerError):
            vlm([image()], QUESTION)
    assert vlm.usage == Usage(requests=6, prompt_tokens=2400, completion_tokens=12, unreported=3)


def test_usage_is_complete_over_threads(chat_server: Any) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 3}
    chat_server.script = [chat_server.answers("lake", usage=usage)]
    vlm = client(chat_server)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: vlm([image()], QUESTION, choices=CHOICES), range(24)))
    assert vlm.usage == Usage(requests=24, prompt_tokens=2400, completion_tokens=72)


def test_options_can_be_left_out_or_added(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers("lake")]
    client(chat_server, temperature=None, max_tokens=None, extra_body={"max_completion_tokens": 9})([], QUESTION)
    assert set(chat_server.requests[0]) == {"model", "messages", "max_completion_tokens"}


def refusing_settings(server: Any) -> Any:
    """A step as OpenAI's reasoning models answer: one refusal at a time, with the field's name."""

    def step(handler: Any) -> None:
        for name in ("max_tokens", "temperature"):
            if name in handler.asked:
                error = {"message": f"Unsupported parameter: '{name}'", "param": name, "code": "unsupported_parameter"}
                return server.sends(json.dumps({"error": error}).encode(), status=400)(handler)
        return server.answers('{"answer": "lake"}')(handler)

    return step


def test_model_that_refuses_settings_by_name_is_asked_without_them(
    chat_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    chat_server.script = [refusing_settings(chat_server)]
    vlm = client(chat_server)
    before = vlm.identity
    assert [vlm([image()], QUESTION, choices=CHOICES) for _ in range(2)] == ["lake"] * 2
    assert len(chat_server.requests) == 4
    assert set(chat_server.requests[-1]) == {"model", "messages", "max_completion_tokens", "response_format"}
    assert vlm.identity == before  # answers kept before the model was known are found again
    assert [record.getMessage() for record in caplog.records if record.name == "mvcseg.vlm.openai"] == [
        "m refuses max_tokens and is asked without it from now on",
        "m refuses temperature and is asked without it from now on",
    ]


def test_threads_find_out_together_what_a_model_refuses(chat_server: Any) -> None:
    chat_server.script = [refusing_settings(chat_server)]
    vlm = client(chat_server)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: vlm([image()], QUESTION, choices=CHOICES), range(18)))
    assert answers == ["lake"] * 18
    assert len(chat_server.requests) <= 18 + 2 * 6


def test_setting_that_was_not_sent_is_refused_in_vain(chat_server: Any) -> None:
    error = {"message": "odd", "param": "temperature", "code": None}
    chat_server.script = [chat_server.sends(json.dumps({"error": error}).encode(), status=400)]
    with pytest.raises(VLMAnswerError, match="HTTP 400"):
        client(chat_server)([image()], QUESTION)
    assert len(chat_server.requests) == 2  # once with it, once without


def test_other_variables_of_the_sdk_reach_no_server(chat_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-ours")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-ours")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-ours")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Tenant: ours\nAuthorization: Bearer ours")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/ours")
    chat_server.script = [chat_server.answers("lake")]
    client(chat_server)([image()], QUESTION)
    assert not [value for value in chat_server.headers[0].values() if "ours" in value]
    assert chat_server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_key_is_kept_from_a_server_that_is_not_to_have_it(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers(f"lake, and your key is {KEY}")]
    assert client(chat_server, send_key=False)([image()], QUESTION) == "lake, and your key is ***"
    assert chat_server.headers[0]["authorization"] == "Bearer none"
    assert KEY not in json.dumps(chat_server.requests)


def test_server_without_keys_gets_a_word(chat_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    chat_server.script = [chat_server.answers("lake")]
    client(chat_server)([image()], QUESTION)
    assert chat_server.headers[0]["authorization"] == "Bearer none"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://host/v1",
        f"http://user:{KEY}@host/v1",
        f"https://host/v1?key={KEY}",
        "http://h:99999/v1",
        "http://h:0/v1",
        "http://h/\x07",
        "http://h/v1\n",
        "http://h/v\t1",
        " http://h/v1",
        "http://\u2028/v1",
        "http://\u3000/v1",
        "http://exa mple/v1",
        "http://h/v 1",
        "http://h/\u00fc",
        "http://h%20h/v1",
        "http://@h/v1",
        "http://h/v1?",
        "http://h\\v1",
        "http://a..b/v1",
        f"http://{'a' * 64}/v1",
        "http:///v1",
        "http://[::1/v1",
        "http://[::g]/v1",
        "http://-\u00fc-/v1",
    ],
)
def test_url_that_could_hold_a_key_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="base_url: expected") as caught:
        OpenAIVLM(model="m", base_url=url)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/v1/", "https://a_b.example", "http://[::1]:80/v1", "http://m\u00fcnchen.example/v1"]
)
def test_plain_url_of_any_host_is_taken_as_it_is(url: str) -> None:
    assert OpenAIVLM(model="m", base_url=url).base_url == url.rstrip("/")


@pytest.mark.parametrize(
    ("variable", "value"), [("HTTPS_PROXY", f"what://user:{KEY}@proxy"), ("SSL_CERT_FILE", f"/nowhere/{KEY}")]
)
def test_environment_that_no_client_can_be_made_of_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=variable) as caught:
        OpenAIVLM(model="m", base_url="https://host/v1")
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
        ({"timeout": float("inf")}, "timeout"),
        ({"structured_choice": "yes"}, "structured_choice"),
        ({"base_url": "https://api.openai.com/v1/", "send_key": False}, "send_key"),
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
        {"structured_choice": False},
        {"max_side": 64}, {"image_format": "png"}, {"extra_body": {"seed": 1}},
    ]  # fmt: skip
    assert len({OpenAIVLM(**{**base, **variant}).identity for variant in variants}) == len(variants)
