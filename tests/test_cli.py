from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch
from chat_server import ChatServer
from PIL import Image
from safetensors.torch import load_file

from mvcseg.cli import main
from mvcseg.data import read_label_map, write_label_map, write_video
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.compact_checkpoint import save_compact

NAMES = ["sky", "river", "lake"]
FRAMES = 18

SEGMENTER = """
import torch, mvcseg
class ByColour:
    num_classes, class_names = 3, ["sky", "river", "lake"]
    def __call__(self, frames, /):
        return (frames - frames.mean(dim=2, keepdim=True)) * 50
def build():
    return ByColour()
def unnamed():
    return mvcseg.PerFrame(lambda x: x, num_classes=3, logits_of=lambda out: out)
def broken():
    return mvcseg.PerFrame(lambda x: x[..., :5], num_classes=3, logits_of=lambda out: 1 / 0)
def rambling():
    raise RuntimeError("first\\n  second")
def rambling_later():
    return mvcseg.PerFrame(lambda x: rambling(), num_classes=3, logits_of=lambda out: out)
def learning():
    return mvcseg.PerFrame(torch.nn.Conv2d(3, 3, 1), num_classes=3, logits_of=lambda out: out)
def slow():
    import time
    class Slow(ByColour):
        def __call__(self, frames, /):
            time.sleep(0.4)
            return super().__call__(frames)
    return Slow()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set of one video, the same video as a file, a checkpoint and a segmenter's file."""
    folder = tmp_path_factory.mktemp("cli")
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(FRAMES + 6, 3, 6, 9, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(40, 56), mode="bilinear")
    frames = (torch.stack([smooth[t : t + 6].mean(dim=0) for t in range(FRAMES)]) * 255).to(torch.uint8)
    truth = frames.argmax(dim=1)
    video = folder / "set" / "data" / "pan"
    for name in ("origin", "mask"):
        (video / name).mkdir(parents=True)
    for index, (frame, labels) in enumerate(zip(frames, truth, strict=True)):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(video / "origin" / f"{index:08d}.png")
        colours = np.zeros((4, 3), dtype=np.uint8)
        write_label_map(video / "mask" / f"{index:08d}.png", labels + 1, colours=colours)
    for split in ("train", "val"):
        (folder / "set" / f"{split}.txt").write_text("pan\n")
    ids = {"others": "0"} | {name: str(index + 1) for index, name in enumerate(NAMES)}
    (folder / "set" / "label_num_dic_final.json").write_text(json.dumps(ids))
    write_video(folder / "pan.mp4", frames, fps=15)
    torch.manual_seed(0)
    save_compact(CompactSegmenter(3, width=8, depth=1), folder / "model.safetensors", class_names=NAMES)
    (folder / "mine.py").write_text(SEGMENTER)
    return folder


@pytest.fixture
def inside(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, the inputs reachable as ``in/``."""
    (tmp_path / "in").symlink_to(place)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str, *, status: int = 0) -> None:
    assert main(line.split()) == status, line


def output(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


PREDICT = "predict in/set/data/pan --segmenter in/mine.py:build"


def test_predict_writes_label_maps_a_class_list_and_nothing_else(inside: Path) -> None:
    run(f"{PREDICT} --out masks")
    files = sorted(path.relative_to(inside).as_posix() for path in (inside / "masks").rglob("*") if path.is_file())
    visible = [name for name in files if not Path(name).name.startswith(".")]
    assert visible == ["masks/classes.json", *(f"masks/pan/{index:08d}.png" for index in range(FRAMES))]
    with Image.open("masks/pan/00000003.png") as image:
        assert (image.mode, image.size) == ("P", (56, 40))
        assert image.getextrema()[1] <= 2


def test_predicting_a_split_and_scoring_it(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("predict --vspw in/set --split val --segmenter in/mine.py:build --out masks")
    capsys.readouterr()
    run("eval masks --vspw in/set --split val --json")
    scores = json.loads(output(capsys))
    assert scores["mIoU"] == pytest.approx(1.0)
    assert scores["VC8"] == scores["VC16"] == 1.0
    run("eval masks --vspw in/set --split val")
    table = output(capsys)
    assert "mIoU" in table
    assert "river" in table
    assert max(len(line) for line in table.splitlines()) <= 80


def test_classes_without_names_get_the_data_sets(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("predict --vspw in/set --split val --segmenter in/mine.py:unnamed --out masks")
    assert [entry["name"] for entry in json.loads(Path("masks/classes.json").read_text())["classes"]] == NAMES
    Path("names.txt").write_text("a\nb\nc\n")
    run(f"{PREDICT.replace('build', 'unnamed')} --classes names.txt --out named")
    assert [entry["name"] for entry in json.loads(Path("named/classes.json").read_text())["classes"]] == list("abc")
    Path("in/set/label_num_dic_final.json").rename("in/set/kept")
    run("predict --vspw in/set --split val --segmenter in/mine.py:unnamed --out other")
    Path("in/set/kept").rename("in/set/label_num_dic_final.json")
    assert "note: the model has 3 classes, in/set has 124" in capsys.readouterr().err


def test_raw_ids_are_one_higher(inside: Path) -> None:
    run(f"{PREDICT} --out ids")
    run(f"{PREDICT} --raw-ids --out raw")
    ids, raw = (read_label_map(f"{folder}/pan/00000000.png").int() for folder in ("ids", "raw"))
    assert torch.equal(raw, ids + 1)


def test_a_checkpoint_predicts_a_video_file_with_views_at_another_size(inside: Path) -> None:
    run("predict in/pan.mp4 --checkpoint in/model.safetensors --tta --short-side 36 --clip-length 6 --out masks")
    maps = sorted(Path("masks/pan").glob("0*.png"))
    assert [path.stem for path in maps] == [f"{index:08d}" for index in range(FRAMES)]
    assert read_label_map(maps[0]).shape == (40, 56)


@pytest.mark.slow
def test_a_video_is_read_from_a_pipe(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "mvcseg", "predict", "-", "--segmenter", "in/mine.py:build", "--out", "piped"]
    with Path("in/pan.mp4").open("rb") as video:
        subprocess.run(command, stdin=video, check=True, capture_output=True)
    run("predict in/pan.mp4 --segmenter in/mine.py:build --out masks")
    for name in ("00000000.png", "00000017.png"):
        assert Path("piped/stdin", name).read_bytes() == Path("masks/pan", name).read_bytes()


def test_shards_share_the_videos(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("predict --vspw in/set --split val --segmenter in/mine.py:build --shard 2/2 --out masks")
    assert "0 videos" in output(capsys)
    run("predict --vspw in/set --split val --segmenter in/mine.py:build --shard 1/2 --out masks")
    assert "1 video, 18 label maps" in output(capsys)


def test_select_copies_the_steadier_prediction(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{PREDICT} --out good")
    run("predict in/set/data/pan --checkpoint in/model.safetensors --out other")
    generator = torch.Generator().manual_seed(0)
    for path in Path("other/pan").glob("0*.png"):
        noise = torch.randint(0, 3, (40, 56), generator=generator)
        write_label_map(path, noise, colours=np.zeros((3, 3), dtype=np.uint8))
    capsys.readouterr()
    run("select in/set/data/pan other good --out chosen --json")
    chosen = json.loads(output(capsys))
    assert chosen["name"] == "good"
    assert chosen["scores"]["good"] > chosen["scores"]["other"]
    for name in ("00000000.png", "00000017.png"):
        assert Path("chosen/pan", name).read_bytes() == Path("good/pan", name).read_bytes()
    assert Path("chosen/classes.json").exists()
    run("select in/set/data/pan other good --out chosen")
    assert "good  <- chosen" in output(capsys)
    before = Path("other/pan/00000000.png").read_bytes()
    run("select in/set/data/pan other good --out other", status=1)
    assert "other/pan: would be written to, and is what is read as other/pan" in capsys.readouterr().err
    assert Path("other/pan/00000000.png").read_bytes() == before


def test_select_refuses_predictions_of_different_classes(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{PREDICT} --out a")
    run(f"{PREDICT} --out raw --raw-ids")
    shutil.copytree("a", "other")
    classes = Path("other/classes.json")
    classes.write_text(classes.read_text().replace("river", "brook"))
    for second, told in (("raw", "raw ids"), ("other", "other/classes.json")):
        capsys.readouterr()
        run(f"select in/set/data/pan a {second} --out o", status=1)
        assert told in capsys.readouterr().err
    assert not Path("o").exists()


def test_correct_asks_applies_and_records(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{PREDICT} --out masks")
    Path("groups.json").write_text('[{"noun": "water", "classes": ["river", "lake"]}]')
    Path("answers.json").write_text(
        json.dumps({"Is the water in the image a river, lake? Please give me the only answer.": "A lake."})
    )
    capsys.readouterr()
    run("correct in/set/data/pan masks --groups groups.json --dry-run --out corrected")
    assert "Is the water inside the magenta outline a river, lake?" in " ".join(output(capsys).split())
    assert not Path("corrected").exists()
    run("correct in/set/data/pan masks --groups groups.json --answers answers.json --out corrected")
    assert "changed" in output(capsys)
    before, after = (read_label_map(f"{folder}/pan/00000004.png") for folder in ("masks", "corrected"))
    assert (before == 1).any()
    assert torch.equal(after == 0, before == 0)
    changes = json.loads(Path("corrected/changes.json").read_text())
    assert {change["to"] for change in changes if change["status"] == "changed"} == {"lake"}
    run("correct in/set/data/pan masks --groups groups.json --answers answers.json --max-questions 0 --out none")
    assert torch.equal(read_label_map("none/pan/00000004.png"), before)


def test_run_writes_everything_to_look_at(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    save_compact(CompactSegmenter(3, width=8, depth=1), "second.safetensors", class_names=NAMES)
    run("run in/pan.mp4 --checkpoint in/model.safetensors --checkpoint second.safetensors --out result")
    assert "<- chosen" in output(capsys)
    for name in ("classes.json", "choice.json", "changes.json", "overlay.mp4", "report.html", "pan/00000000.png"):
        assert Path("result", name).stat().st_size > 0


WATER = '[{"noun": "water", "classes": ["river", "lake"]}]'


def asked_by_run(server: ChatServer) -> str:
    Path("groups.json").write_text(WATER)
    line = "run in/pan.mp4 --checkpoint in/model.safetensors --groups groups.json --min-area 0.01"
    run(f"{line.partition(' --groups')[0]} --out plain")
    return f"{line} --vlm {server.url} --model m"


def test_run_corrects_within_its_limits(
    inside: Path, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[int] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        written.append(len(list(Path("result/pan").glob("*.png"))))
        chat_server.answers("A lake.")(handler)

    chat_server.script = [answer]
    line = asked_by_run(chat_server)
    run(f"{line} --max-questions 2 --out result")
    assert written == [FRAMES] * 2  # there before anything is asked
    text = output(capsys)
    assert "2 questions asked" in text
    log = json.loads(Path("result/changes.json").read_text())
    assert {row["video"] for row in log} == {"pan"}
    assert {row["reason"] for row in log if row["status"] == "skipped"} <= {"not asked: max_questions is 2"}
    run(f"{line} --out whole")
    before, after = (read_label_map(f"{folder}/pan/00000004.png") for folder in ("plain", "whole"))
    assert (before == 1).any()
    assert (after == 1).sum() < (before == 1).sum()
    run(f"{line} --min-area 1 --out none")
    assert "0 questions asked" in output(capsys)
    assert Path("none/pan/00000004.png").read_bytes() == Path("plain/pan/00000004.png").read_bytes()


def test_run_keeps_its_label_maps_where_nothing_can_be_asked(
    inside: Path, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    chat_server.script = [chat_server.says_no("wrong key", status=401)]
    run(f"{asked_by_run(chat_server)} --out result", status=1)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "mvcseg: no question got an answer, the label maps are as predicted: the server refused: HTTP"
    )
    assert error.endswith("result/changes.failed.json holds the log")
    assert not Path("result/changes.json").exists()
    for path in Path("plain/pan").iterdir():
        assert Path("result/pan", path.name).read_bytes() == path.read_bytes()
    assert Path("result/report.html").exists()


def test_label_maps_of_another_video_are_not_mixed_with_this_ones(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("result/pan").mkdir(parents=True)
    Path("result/pan/extra.png").write_bytes(b"")
    run("run in/pan.mp4 --checkpoint in/model.safetensors --out result", status=1)
    assert "holds 1 label maps that are no frame of this video, first extra.png" in capsys.readouterr().err


def test_frames_are_not_written_over(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("in/set/data/pan/origin", "frames/pan")
    before = Path("frames/pan/00000000.png").read_bytes()
    run("run frames/pan --checkpoint in/model.safetensors --out frames", status=1)
    assert "frames/pan: would be written to, and is what is read as frames/pan" in capsys.readouterr().err
    assert Path("frames/pan/00000000.png").read_bytes() == before


def test_report_writes_a_page(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{PREDICT} --out masks")
    capsys.readouterr()
    for option in ("", "--no-flicker"):
        run(f"report in/set/data/pan masks {option} --out page.html")
        assert ("of its pixels flicker" in Path("page.html").read_text()) == (not option)
    capsys.readouterr()
    run("report in/set/data/pan masks --labels in/set/data/pan/mask --out page.html")
    assert output(capsys).strip() == "page.html"
    assert "VC8" in Path("page.html").read_text()


def test_report_shows_a_run_alone(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    Path("run/log.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    run("report --run run --out page.html")
    assert output(capsys).strip() == "page.html"
    assert "loss: 2 at step 1" in Path("page.html").read_text()


OWN = {"model": "own", "steps": 2, "clip_length": 2, "crop_size": [32, 32], "batch_size": 1, "picture_every": 2}


def test_ones_own_segmenter_trains_resumes_and_predicts(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.json").write_text(json.dumps(OWN))
    train = "train --vspw in/set --config own.json --segmenter in/mine.py:learning --out own"
    run(train)
    assert output(capsys).strip() == "2 steps: own/model.safetensors"
    assert Path("own/pictures/step_2.png").stat().st_size > 0
    first = load_file("own/model.safetensors")
    run(f"{train} --resume")
    assert torch.equal(load_file("own/model.safetensors")["net.weight"], first["net.weight"])
    run("predict in/set/data/pan --segmenter in/mine.py:learning --weights own/model.safetensors --out masks")
    assert [entry["name"] for entry in json.loads(Path("masks/classes.json").read_text())["classes"]] == NAMES
    run("report --run own --out page.html")


def test_a_segmenter_and_its_configuration_go_together(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.json").write_text(json.dumps(OWN))
    Path("compact.json").write_text(json.dumps({"steps": 1}))
    for line, told in (
        ("--config own.json", "--segmenter FILE.py:FUNCTION"),
        ("--config compact.json --segmenter in/mine.py:learning", 'model: expected "own" together with'),
        ("--config own.json --segmenter in/mine.py:build", "expected a torch.nn.Module with weights to train"),
    ):
        run(f"train --vspw in/set {line} --out o", status=1)
        assert told in capsys.readouterr().err
        assert not Path("o").exists()
    run("predict in/pan.mp4 --checkpoint in/model.safetensors --weights w --out o", status=2)
    assert "--weights goes with --segmenter" in capsys.readouterr().err


def test_inspect_tells_what_a_checkpoint_holds(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("inspect in/model.safetensors --json")
    facts = json.loads(output(capsys))
    assert (facts["num_classes"], facts["class_names"]) == (3, NAMES)
    run("inspect in/model.safetensors")
    assert "class_names: sky, river, lake" in output(capsys)


def test_checking_a_data_set_tells_what_it_holds_or_every_fault(
    inside: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "set", "copy")
    run("data check copy")
    assert "18" in output(capsys)
    Path("copy/data/pan/mask/00000003.png").unlink()
    Path("copy/data/pan/mask/00000005.png").write_bytes(b"no image")
    run("data check copy", status=1)
    told = capsys.readouterr().err
    assert "00000003" in told
    assert "00000005" in told


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("predict in/none.mp4 --segmenter in/mine.py:build --out o", "none.mp4"),
        ("predict in/pan.mp4 --checkpoint in/none.safetensors --out o", "none.safetensors"),
        ("predict in/pan.mp4 --checkpoint in/mine.py --out o", "mine.py"),
        ("predict in/pan.mp4 --segmenter in/mine.py:missing --out o", "mine.py:missing"),
        ("predict in/pan.mp4 --segmenter in/mine.py:build --device gpu --out o", "device"),
        ("predict --vspw in/set --split nope --segmenter in/mine.py:build --out o", "nope.txt"),
        ("eval in/set --vspw in/set --split val", "missing"),
        ("select in/pan.mp4 in/set in/none --out o", "in/"),
        ("inspect in/mine.py", "mine.py"),
        ("train --vspw in/set --config in/none.json --out o", "none.json"),
        ("correct in/pan.mp4 in/set/data/pan/mask --dry-run --groups in/none.json --out o", "none.json"),
        ("predict in/pan.mp4 --segmenter in/mine.py:broken --out o", "unexpected ZeroDivisionError"),
    ],
)
def test_bad_input_ends_with_one_message(
    line: str, told: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(line, status=1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert told in printed.err
    assert "Traceback" not in printed.err
    assert printed.err.startswith("mvcseg: ")


@pytest.mark.parametrize("function", ["rambling", "rambling_later"])
def test_an_error_of_several_lines_is_told_in_one(
    function: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(f"predict in/pan.mp4 --segmenter in/mine.py:{function} --out o", status=1)
    told = capsys.readouterr().err
    assert "RuntimeError: first second" in told
    assert told.count("\n") == 1


def test_a_local_model_is_a_folder_and_never_looked_for_elsewhere(
    inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(f"{PREDICT} --out p")
    Path("g.json").write_text(json.dumps([{"noun": "water", "classes": ["river", "lake"]}]))
    monkeypatch.setattr("mvcseg.vlm.LocalVLM", None)  # calling it fails
    capsys.readouterr()
    run("correct in/set/data/pan p --local some/model --groups g.json --out o", status=1)
    assert capsys.readouterr().err == "mvcseg: some/model: expected a folder of an image-text model, got none\n"
    assert not Path("o").exists()


def test_debug_shows_the_traceback(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("inspect in/mine.py --debug", status=1)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "predict in/pan.mp4 --out o",
        "predict in/pan.mp4 --checkpoint a --segmenter b --out o",
        "predict in/pan.mp4 --segmenter in/mine.py:build --clip-length 0 --out o",
        "predict in/pan.mp4 --segmenter in/mine.py:build --short-side wide --out o",
        "eval masks --vspw in/set",
        "predict in/pan.mp4 --segmenter in/mine.py:build --shard 3/2 --out o",
        "predict in/pan.mp4 --segmenter in/mine.py:build --shard half --out o",
        "correct in/pan.mp4 p --vlm u --answers f --out o",
    ],
)
def test_wrong_usage_exits_with_two(line: str, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    assert stop.value.code == 2
    assert "usage: mvcseg" in capsys.readouterr().err


def test_a_number_that_is_none_is_told_in_words(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "in/pan.mp4", "--segmenter", "in/mine.py:build", "--clip-length", "few", "--out", "o"])
    assert "expected a number of at least 1, got few" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "predict --segmenter in/mine.py:build --out o",
        "predict in/pan.mp4 --vspw in/set --split val --segmenter in/mine.py:build --out o",
        "predict --vspw in/set --segmenter in/mine.py:build --out o",
        "select in/pan.mp4 one --out o",
        "select in/pan.mp4 one one --out o",
        "correct in/pan.mp4 p --out o",
        "report --out o",
        "report in/pan.mp4 --out o",
        "report in/pan.mp4 --run in --out o",
        "report --run in --labels in/set/data/pan/mask --out o",
        "correct in/pan.mp4 in/set/data/pan --vlm http://localhost/v1 --groups in/g.json --out o",
    ],
)
def test_arguments_that_do_not_go_together_exit_with_two(
    line: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(line, status=2)
    assert "see --help" in capsys.readouterr().err
    assert not Path("o").exists()


@pytest.mark.slow
def test_ctrl_c_leaves_whole_files_and_the_run_goes_on(inside: Path) -> None:
    command = [sys.executable, "-m", "mvcseg", *PREDICT.replace("build", "slow").split(), "--clip-length", "2"]
    process = subprocess.Popen(
        [*command, "--out", "masks"],
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job is born deaf to Ctrl-C, and so are its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(Path("masks/pan").glob("0*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    done = sorted(Path("masks/pan").iterdir())
    assert 0 < len([path for path in done if path.suffix == ".png"]) < FRAMES
    assert all(read_label_map(path).shape == (40, 56) for path in done if path.suffix == ".png")
    assert not [path for path in done if "part" in path.name]
    run(f"{PREDICT.replace('build', 'slow')} --clip-length 2 --out masks")
    run(f"{PREDICT} --clip-length 2 --out whole")
    for path in Path("whole/pan").glob("0*.png"):
        assert Path("masks/pan", path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_a_closed_pipe_is_no_failure_to_shout_about(inside: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        command = [sys.executable, "-m", "mvcseg", "inspect", "in/model.safetensors"]
        result = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in result.stderr
    assert "Error" not in result.stderr
