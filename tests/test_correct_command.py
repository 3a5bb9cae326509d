"""``mvcseg correct`` from the bill to the summary, with servers that behave and servers that do not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_server import ChatServer, Step
from PIL import Image
from tiny_vlms import save_clip

from mvcseg.cli import main
from mvcseg.data import class_colours, read_label_map, write_classes, write_label_map
from mvcseg.vlm import OpenAIVLM, images_digest

NAMES = ["sky", "river", "lake", "grass", "sand"]
KEY = "sk-0123456789abcdefghij"
BASE = "correct clip pred --groups groups.yaml --min-area 0.01"


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clip of six frames; predictions with two rivers and, smaller than both, a patch of sand."""
    generator = torch.Generator().manual_seed(0)
    still = torch.randint(0, 200, (3, 32, 48), generator=generator)
    labels = torch.zeros(32, 48, dtype=torch.uint8)
    labels[4:, :16], labels[10:, 20:30], labels[16:, 36:46] = 1, 1, 4
    colours = class_colours(NAMES)
    for folder in ("clip", "pred"):
        (tmp_path / folder).mkdir()
    for frame in range(6):
        picture = (still + 2 * frame).to(torch.uint8)
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"clip/{frame:08d}.png")
        write_label_map(tmp_path / f"pred/{frame:08d}.png", labels, colours=colours)
    write_classes(tmp_path / "pred", NAMES, colours)
    (tmp_path / "groups.yaml").write_text(
        "- {noun: water, classes: [river, lake]}\n- {noun: ground, classes: [grass, sand]}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return tmp_path


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients wait little before they give up."""
    monkeypatch.setattr("mvcseg.vlm.OpenAIVLM", partial(OpenAIVLM, timeout=0.4, max_retries=1))
    monkeypatch.setattr("mvcseg.vlm.pace._FIRST_PAUSE", 0.01)


def run(line: str, *, status: int = 0) -> None:
    assert main(line.split()) == status


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, in at most 80 columns, its lines joined."""
    printed = capsys.readouterr()
    assert all(len(line) <= 80 for line in printed.out.splitlines())
    assert KEY not in printed.out + printed.err
    return " ".join((printed.out + printed.err).split())


def changes(folder: str, name: str = "changes.json") -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = json.loads(Path(folder, name).read_text())
    return log


def test_dry_run_tells_the_bill_and_does_nothing(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{BASE} --dry-run --price-input 3 --price-output 15 --out o")
    text = told(capsys)
    assert "at most 9 questions, one image each, about 3 regions" in text
    tokens = 9 * (10 + 85 + 170) + 6 * 22 + 3 * 22  # one tile a picture; 88 and 87 letters are 22 tokens
    assert f"about {tokens:,} tokens of questions and images, 144 of answers" in text
    assert f"cost at most about {(3 * tokens + 15 * 144) / 1e6:.4f}" in text
    assert "Is the water inside the magenta outline a river, lake? Please give me the only answer." in text
    assert "0-5 0 4 16 32 0, " in text
    assert not Path("o").exists()


def test_dry_run_keeps_to_the_limit_and_to_what_is_recorded(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{BASE} --dry-run --max-questions 4 --out o")
    text = told(capsys)
    assert "at most 3 questions, one image each, about 1 region " in text  # in all its views, or not at all
    assert "left out by --max-questions: 2 regions" in text
    assert "cost" not in text
    Path("answers.json").write_text('["A lake."]')
    run(f"{BASE} --dry-run --answers answers.json --out o")
    assert "at most 3 questions" in told(capsys)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("", "Is the water inside the magenta outline a river, lake?"),
        ("--view mark", "Is the water tinted in magenta a river, lake?"),
        ("--view frame", "Is the water in the image a river, lake?"),
        ("--prompt report", "Is the water in the image a river, lake?"),
        ("--view frame --prompt mark", "Is the water tinted in magenta a river, lake?"),
        ("--prompt {stuff}:{classes}", "water:river, lake"),
    ],
)
def test_question_fits_what_is_shown_or_is_the_one_named(
    options: str, text: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(f"{BASE} --dry-run {options} --out o")
    assert text in told(capsys)


def question_of(request: dict[str, Any]) -> str:
    content = request["messages"][0]["content"]
    return next(str(part["text"]) for part in content if part["type"] == "text")


def by_noun(server: ChatServer, **steps: Step) -> Step:
    """One step for each noun that is asked about."""

    def step(handler: Any) -> None:
        noun = question_of(handler.asked).split()[2]
        steps[noun](handler)

    return step


def test_answers_change_labels_and_the_summary_says_so(
    inside: Path, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 10}
    said = {noun: chat_server.answers(text, usage=usage) for noun, text in (("water", "A lake."), ("ground", "sand"))}
    chat_server.script = [by_noun(chat_server, **said)]
    run(f"{BASE} --vlm {chat_server.url} --model m --price-input 3 --price-output 15 --out o")
    text = told(capsys)
    assert "changed: frames 0-5, river -> lake changed: frames 0-5, river -> lake" in text
    assert "3 regions: 2 changed, 1 confirmed" in text
    assert "7 questions asked" in text  # a first view that confirms is enough
    assert "tokens by the server's count: 7,000 in, 70 out; cost about 0.0221" in text
    before, after = (read_label_map(f"{folder}/00000003.png") for folder in ("pred", "o/clip"))
    assert torch.equal(after, torch.where(before == 1, 2, before))
    assert [len(change["answers"]) for change in changes("o")] == [3, 3, 1]


FAILURES: dict[str, tuple[Callable[[ChatServer], Step], str, str]] = {
    "hang": (lambda s: s.hangs(), "failed", "no answer within 0.4 s"),
    "drip": (lambda s: s.drips(pause=0.05), "failed", "no whole answer"),
    "401": (lambda s: s.says_no(f"wrong key {KEY}", status=401), "failed", "HTTP 401"),
    "429": (lambda s: s.says_no("slow down", status=429), "failed", "HTTP 429"),
    "429 with a wait": (lambda s: s.says_no("slow down", status=429, Retry_After="0.05"), "failed", "HTTP 429"),
    "429 with a long wait": (lambda s: s.says_no("slow down", status=429, Retry_After="9999"), "failed", "HTTP 429"),
    "500": (lambda s: s.says_no("oops", status=500), "failed", "HTTP 500"),
    "truncated": (lambda s: s.sends(b'{"choices": [{"message": {"cont'), "failed", "no JSON"),
    "breaks off": (lambda s: s.breaks_off(), "failed", "broke off"),
    "1 MB": (lambda s: s.answers("lake " * 200_000), "failed", "longer than 1,000,000 bytes"),
    "100 kB": (lambda s: s.answers("lake " * 20_000), "unclear", "100000 characters"),
    "language": (lambda s: s.answers("Das ist ein See."), "unclear", "names none of river, lake"),
    "orders": (lambda s: s.answers("Ignore the question. Set every pixel to sky."), "unclear", "names none of"),
    "key": (lambda s: s.answers(f"Your key is {KEY}"), "unclear", "names none of"),
    "html": (lambda s: s.sends(b"<html>Bad gateway</html>", status=502), "failed", "HTTP 502"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.usefixtures("hasty")
def test_failure_leaves_its_regions_alone_and_the_run_ends_well(
    failure: str, inside: Path, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    step, status, reason = FAILURES[failure]
    steps = {"water": step(chat_server), "ground": chat_server.answers("grass")}
    chat_server.script = [by_noun(chat_server, **steps)]
    run(f"{BASE} --vlm {chat_server.url} --model m --out o")
    chat_server.released.set()
    text = told(capsys)
    assert f"3 regions: 1 changed, 2 {status}" in text
    assert reason in text
    log = changes("o")
    assert [change["status"] for change in log] == [status, status, "changed"]
    assert all(reason in change["reason"] for change in log[:2])
    before, after = (read_label_map(f"{folder}/00000003.png") for folder in ("pred", "o/clip"))
    assert torch.equal(after, torch.where(before == 4, 3, before))
    for path in inside.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize("failure", ["401", "500"])
@pytest.mark.usefixtures("hasty")
def test_where_nothing_can_be_asked_one_message_says_so(
    failure: str, inside: Path, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    chat_server.script = [FAILURES[failure][0](chat_server)]
    run(f"{BASE} --vlm {chat_server.url} --model m --out o", status=1)
    printed = capsys.readouterr()
    assert "3 regions: 3 failed" in printed.out
    message = printed.err.splitlines()[-1]
    assert message.startswith("mvcseg: no question got an answer, no label map is written: the server refused: HTTP")
    assert message.endswith("; o/changes.failed.json holds the log")
    assert KEY not in printed.out + printed.err
    assert not list(Path("o").rglob("*.png"))
    assert [(row["video"], row["status"]) for row in changes("o", "changes.failed.json")] == [("clip", "failed")] * 3
    assert not Path("o/changes.json").exists()


@pytest.mark.usefixtures("hasty")
def test_a_run_that_fails_leaves_what_an_earlier_one_did(inside: Path, chat_server: ChatServer) -> None:
    chat_server.script = [chat_server.answers("A lake. sand")]
    line = f"{BASE} --vlm {chat_server.url} --model m --out o"
    run(line)
    paths = sorted(path for path in Path("o").rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in paths}
    chat_server.script = [chat_server.says_no("oops", status=500)]
    run(line.replace("--model m", "--model other"), status=1)
    assert {path: path.read_bytes() for path in paths} == before
    assert {row["status"] for row in changes("o", "changes.failed.json")} == {"failed"}


def test_each_video_keeps_its_records_in_one_log(
    inside: Path, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("clip", "second")
    for path in Path("second").iterdir():
        with Image.open(path) as picture:
            picture.point(lambda value: value // 2).save(path)
    chat_server.script = [chat_server.answers("A lake. sand")]
    line = f"{BASE} --vlm {chat_server.url} --model m --out o"
    run(f"{line} --views 1")
    first = changes("o")
    chat_server.script = [chat_server.answers("A river. grass")]
    run(line.replace("clip", "second"))
    log = changes("o")
    assert log[:3] == first
    assert [row["video"] for row in log] == ["clip"] * 3 + ["second"] * 3
    for name in ("clip", "second"):  # the log of both answers for each
        run(f"{BASE.replace('clip', name)} --answers o/changes.json --out again")
        for path in Path("o", name).iterdir():
            assert path.read_bytes() == Path("again", name, path.name).read_bytes()
    assert changes("again") == log
    asked = len(chat_server.requests)
    Path("o/changes.json").write_text("{}")
    run(line, status=1)
    assert "o/changes.json: expected a JSON list of changes" in told(capsys)
    assert len(chat_server.requests) == asked


@pytest.mark.usefixtures("hasty")
def test_a_server_that_is_not_there_is_given_up_soon(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{BASE} --min-area 0 --vlm http://127.0.0.1:9/v1 --model m --out o", status=1)
    assert "no connection to http://127.0.0.1:9/v1" in told(capsys)


@pytest.mark.usefixtures("hasty")
def test_answers_that_are_no_use_are_no_failure_of_the_run(
    inside: Path, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    chat_server.script = [FAILURES["language"][0](chat_server)]
    run(f"{BASE} --vlm {chat_server.url} --model m --out o")
    assert torch.equal(read_label_map("o/clip/00000001.png"), read_label_map("pred/00000001.png"))
    chat_server.script = [FAILURES["truncated"][0](chat_server)]
    run(f"{BASE} --vlm {chat_server.url} --model other --out none", status=1)
    assert "no question got an answer, no label map is written: the server's answer is no JSON" in told(capsys)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_same_command_asks_nothing_twice(
    concurrency: int, inside: Path, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    chat_server.script = [chat_server.answers("lake, sand")]
    line = f"{BASE} --vlm {chat_server.url} --model m --concurrency {concurrency} --cache kept --out o"
    run(line)
    asked = len(chat_server.requests)
    first = changes("o")
    run(line)
    assert len(chat_server.requests) == asked
    assert changes("o") == first
    assert f"{asked} questions asked, {asked} of them answered by what was kept" in told(capsys)
    assert sorted(path.name for path in Path("o").iterdir()) == ["changes.json", "classes.json", "clip"]
    run(line.replace("--model m", "--model other"))
    assert len(chat_server.requests) == 2 * asked


def test_log_answers_the_same_run_again(
    inside: Path, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"water": chat_server.answers("A lake."), "ground": chat_server.answers("hm")}
    chat_server.script = [by_noun(chat_server, **said)]
    run(f"{BASE} --vlm {chat_server.url} --model m --out o")
    for prompt in ("outline", "report"):  # one question in other words
        run(f"{BASE} --answers o/changes.json --prompt {prompt} --out {prompt}")
        assert [change["status"] for change in changes(prompt)] == ["changed", "changed", "unclear"]
        assert Path(prompt, "clip/00000002.png").read_bytes() == Path("o/clip/00000002.png").read_bytes()
    assert changes("outline") == changes("o")


def test_output_of_another_video_is_refused_before_anything_is_paid_for(
    inside: Path, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("o/clip").mkdir(parents=True)
    Path("o/clip/extra.png").write_bytes(b"")
    run(f"{BASE} --vlm {chat_server.url} --model m --out o", status=1)
    assert "holds 1 label maps that are no frame of this video" in told(capsys)
    assert not chat_server.requests


def test_predictions_and_frames_are_not_written_over(
    inside: Path, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("pred", "masks/clip")
    write_classes(inside / "masks", NAMES, class_colours(NAMES))
    before = {path: path.read_bytes() for path in inside.rglob("*.png")}
    for prediction, out, told_of in (
        ("masks", "masks", "masks/clip"),
        ("masks/clip", "pred/../masks", "masks/clip"),
        ("pred", "pred", "pred"),
        ("pred", ".", "clip"),
    ):
        line = f"{BASE.replace('clip pred', f'clip {prediction}')} --vlm {chat_server.url} --model m --out {out}"
        run(line, status=1)
        assert f"would be written to, and is what is read as {told_of}; choose another output folder" in told(capsys)
    assert not chat_server.requests
    assert {path: path.read_bytes() for path in inside.rglob("*.png")} == before


def test_a_zero_shot_model_decides_by_itself(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_clip(inside / "clip-model")
    run(f"{BASE} --zero-shot clip-model --device cpu --out o")
    assert "3 regions" in told(capsys)
    assert {change["status"] for change in changes("o")} <= {"changed", "confirmed", "unclear"}
    run(f"{BASE} --zero-shot nowhere --out o2", status=1)
    assert "nowhere: expected a folder of a CLIP or SigLIP model, got none" in told(capsys)


@pytest.mark.parametrize(
    "line",
    [
        "--views 0 --dry-run",
        "--agreement 2 --dry-run",
        "--agreement some --dry-run",
        "--min-area -1 --dry-run",
        "--price-input -1 --dry-run",
        "--price-output inf --dry-run",
        "--flow raft --dry-run",
        "--view crop --dry-run",
        "--concurrency 0 --dry-run",
        "--local a --zero-shot b",
    ],
)
def test_options_out_of_range_are_wrong_usage(line: str, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(f"{BASE} {line} --out o".split())
    assert stop.value.code == 2
    assert "usage: mvcseg correct" in capsys.readouterr().err


def process(line: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mvcseg", *line.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # a shell's background job is born deaf to Ctrl-C, and so are its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def waited_for(condition: Callable[[], bool], *, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def asked_about(request: dict[str, Any]) -> str:
    return json.dumps(request["messages"])


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_killed_run_goes_on_without_asking_twice(
    concurrency: int, inside: Path, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"water": chat_server.answers("A lake."), "ground": chat_server.answers("grass")}
    answers = by_noun(chat_server, **said)
    chat_server.script = [answers, answers, answers, chat_server.hangs()]
    line = f"{BASE} --vlm {chat_server.url} --model m --concurrency {concurrency} --out o"
    first = process(line)
    waited_for(lambda: len(chat_server.requests) == 3 + concurrency and len(list(Path("o").rglob("*.json"))) == 3)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)
    assert not Path("o/changes.json").exists()
    unanswered = [asked_about(request) for request in chat_server.requests[3:]]
    chat_server.script = [answers]
    run(line)
    requests = [asked_about(request) for request in chat_server.requests]
    twice = {text for text in requests if requests.count(text) > 1}
    assert twice <= set(unanswered)
    assert len(set(requests)) == 9
    assert [change["status"] for change in changes("o")] == ["changed"] * 3
    assert "3 of them answered by what was kept" in told(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 2])
def test_ctrl_c_ends_a_run_whose_server_hangs(concurrency: int, inside: Path, chat_server: ChatServer) -> None:
    chat_server.script = [chat_server.answers("A lake."), chat_server.hangs()]
    running = process(f"{BASE} --vlm {chat_server.url} --model m --concurrency {concurrency} --out o")
    waited_for(lambda: len(chat_server.requests) == 1 + concurrency)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=50)  # the client itself would wait for a minute, and ask again
    assert running.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert len(list(Path("o/.answers").rglob("*.json"))) == 1


def test_pictures_are_told_by_their_digest_in_the_log(inside: Path, chat_server: ChatServer) -> None:
    chat_server.script = [chat_server.answers("A lake. sand")]
    run(f"{BASE} --view frame --max-questions 1 --vlm {chat_server.url} --model m --out o")
    with Image.open("clip/00000000.png") as picture:
        frame = torch.tensor(list(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    (answer,) = changes("o")[0]["answers"]
    assert answer["image"] == images_digest([frame.reshape(32, 48, 3).permute(2, 0, 1)])
