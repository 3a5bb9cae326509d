"""DVIS++ models through the commands, from a checkpoint to label maps."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from dvis_files import CLASSES, DVISFiles
from torch import Tensor

from mvcseg.cli import main
from mvcseg.data import open_video, read_classes, read_label_map, write_video
from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.loading import load_checkpoint
from mvcseg.models.dvis import DVIS
from mvcseg.ops.resize import resize_frames
from mvcseg.tta import multiscale_flip, scaled_views, vote_labels

FRAMES = 4
SIZE = (96, 160)
SEEN = (60, 100)  # of the small models, tested at a shorter side of 64 and a longer one of at most 100

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the videos a.mkv and b.mkv."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate("ab"):
        coarse = torch.rand(FRAMES + 2, 3, 6, 9, generator=torch.Generator().manual_seed(seed))
        smooth = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")
        frames = torch.stack([smooth[index : index + 3].mean(dim=0) for index in range(FRAMES)])
        write_video(folder / f"{name}.mkv", (frames * 255).to(torch.uint8), fps=10)
    return folder


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Sizes of the frames that models are shown."""
    sizes: list[tuple[int, int]] = []
    segment = DVIS.segment

    def watched(self: DVIS, frames: Tensor) -> object:
        sizes.append((frames.shape[-2], frames.shape[-1]))
        return segment(self, frames)

    monkeypatch.setattr(DVIS, "segment", watched)
    return sizes


def run(*line: object, status: int = 0) -> None:
    assert main([str(word) for word in line]) == status, line


def model(files: DVISFiles, name: str) -> tuple[str, ...]:
    return ("--checkpoint", files.checkpoint(name), "--preset", files.config(name))


def maps(folder: str) -> Tensor:
    return torch.stack([read_label_map(path) for path in sorted(Path(folder).glob("*.png"))])


def labels_at(files: DVISFiles, name: str, frames: Tensor) -> Tensor:
    """What the model itself says of frames resized to its test size."""
    segmenter = load_checkpoint(files.checkpoint(name), preset=files.config(name)).segmenter
    assert isinstance(segmenter, DVIS)
    small = resize_frames(frames, size=SEEN)
    return torch.cat(list(segmenter.stream_labels(small, clip_length=2, output_size=SIZE)))


def set_stdin(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))


@pytest.mark.parametrize("name", ["online", "offline"])
def test_predict_gives_the_models_labels_at_the_test_size(
    name: str, dvis_files: DVISFiles, clips: Path, seen: list[tuple[int, int]]
) -> None:
    run("predict", clips / "a.mkv", *model(dvis_files, name), "--out", "o")
    assert seen == [SEEN] * FRAMES
    assert len(maps("o/a").unique()) > 1
    assert torch.equal(maps("o/a"), labels_at(dvis_files, name, open_video(clips / "a.mkv")[:]))
    assert read_classes("o") == [f"class {index}" for index in range(CLASSES)]


def test_a_published_file_needs_no_preset(dvis_files: DVISFiles, clips: Path, seen: list[tuple[int, int]]) -> None:
    file = ("--checkpoint", dvis_files.checkpoint("vspw_minvis_r50"))
    run("predict", clips / "a.mkv", *file, "--short-side", 48, "--out", "found")
    run("predict", clips / "a.mkv", *file, "--preset", "vspw_minvis_r50", "--short-side", 48, "--out", "named")
    assert set(seen) == {(48, 80)}
    assert tuple(read_classes("found")) == VSPW_CLASSES
    assert torch.equal(maps("found/a"), maps("named/a"))


def test_the_published_test_size_is_720_and_at_most_1333(
    dvis_files: DVISFiles, clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes: list[tuple[int, ...]] = []

    def stop(self: DVIS, frames: Tensor) -> None:
        sizes.append(tuple(frames.shape[-2:]))
        raise RuntimeError("far enough")

    monkeypatch.setattr(DVIS, "segment", stop)
    file = ("--checkpoint", dvis_files.checkpoint("vspw_minvis_r50"), "--preset", "vspw_minvis_r50")
    write_video("wide.mkv", torch.zeros(2, 3, 32, 96, dtype=torch.uint8), fps=5)
    run("predict", clips / "a.mkv", *file, "--out", "o", status=1)
    run("predict", "wide.mkv", *file, "--out", "o", status=1)
    run("predict", clips / "a.mkv", *file, "--short-side", "native", "--out", "n", status=1)
    assert sizes == [(720, 1200), (444, 1333), SIZE]


def test_views_vote_around_the_test_size(dvis_files: DVISFiles, clips: Path, seen: list[tuple[int, int]]) -> None:
    run("predict", clips / "a.mkv", *model(dvis_files, "offline"), "--tta", "--out", "o")
    # 1.2, 1.1, 1.0 and 0.9 times 60 x 100, each also mirrored
    assert seen == [size for size in ((72, 120), (66, 110), (60, 100), (54, 90)) for _ in range(2 * FRAMES)]
    segmenter = load_checkpoint(dvis_files.checkpoint("offline"), preset=dvis_files.config("offline")).segmenter
    views = scaled_views(SIZE, multiscale_flip(), short_side=64, long_side=100)
    assert views is not None
    expected = vote_labels(segmenter, open_video(clips / "a.mkv"), views=views, clip_length=8)
    assert torch.equal(maps("o/a").long(), expected)


def test_a_pipe_is_labelled_causally_by_an_online_model(
    dvis_files: DVISFiles, clips: Path, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, int]]
) -> None:
    set_stdin(monkeypatch, clips / "a.mkv")
    run("predict", "-", *model(dvis_files, "online"), "--out", "o")
    assert seen == [SEEN] * FRAMES
    segmenter = load_checkpoint(dvis_files.checkpoint("online"), preset=dvis_files.config("online")).segmenter
    assert isinstance(segmenter, DVIS)
    frames = resize_frames(open_video(clips / "a.mkv")[:], size=SEEN)
    assert torch.equal(maps("o/stdin"), torch.stack(list(segmenter.stream_causal(frames, output_size=SIZE))))
    set_stdin(monkeypatch, clips / "a.mkv")
    run("predict", "-", *model(dvis_files, "online"), "--out", "o", status=1)


def test_a_pipe_is_read_to_its_end_for_an_offline_model(
    dvis_files: DVISFiles, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_stdin(monkeypatch, clips / "a.mkv")
    run("predict", "-", *model(dvis_files, "offline"), "--out", "o")
    assert torch.equal(maps("o/stdin"), labels_at(dvis_files, "offline", open_video(clips / "a.mkv")[:]))


def make_set(folder: str, clips: Path) -> None:
    from PIL import Image

    for name in "ab":
        origin = Path(folder, "data", name, "origin")
        origin.mkdir(parents=True)
        for index, frame in enumerate(open_video(clips / f"{name}.mkv")[:]):
            Image.fromarray(frame.permute(1, 2, 0).numpy()).save(origin / f"{index:08d}.png")
    Path(folder, "val.txt").write_text("a\nb\n")
    ids = {"others": "0"} | {f"thing {index}": str(index + 1) for index in range(CLASSES)}
    Path(folder, "label_num_dic_final.json").write_text(json.dumps(ids))


def test_shards_share_the_videos_and_get_the_data_sets_names(
    dvis_files: DVISFiles, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_set("set", clips)
    options = ("--vspw", "set", "--split", "val", *model(dvis_files, "offline"), "--out", "o")
    run("predict", *options, "--shard", "2/2")
    assert [path.name for path in Path("o").iterdir() if path.is_dir()] == ["b"]
    run("predict", *options, "--shard", "1/2")
    capsys.readouterr()
    run("predict", *options)
    assert "2 videos, 8 label maps (8 were there)" in capsys.readouterr().out
    assert read_classes("o") == [f"thing {index}" for index in range(CLASSES)]
    assert torch.equal(maps("o/b"), labels_at(dvis_files, "offline", open_video(clips / "b.mkv")[:]))


def test_a_killed_run_keeps_finished_videos_and_ends_with_the_same_bytes(dvis_files: DVISFiles, clips: Path) -> None:
    make_set("set", clips)
    options = ["predict", "--vspw", "set", "--split", "val", *model(dvis_files, "offline")]
    # the second video waits for a signal that never comes
    script = (
        "import sys, time, mvcseg.models.dvis.model as m\n"
        "segment, calls = m.DVIS.segment, []\n"
        "def waiting(self, frames):\n"
        "    calls.append(1)\n"
        f"    time.sleep(600 * (len(calls) > {FRAMES + 2}))\n"
        "    return segment(self, frames)\n"
        "m.DVIS.segment = waiting\n"
        "from mvcseg.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, *options, "--out", "cut"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not Path("cut/b").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    left = {path.name: path.read_bytes() for path in Path("cut/a").glob("0*.png")}
    assert len(left) == FRAMES
    assert list(Path("cut/b").glob("*.png")) == []
    run(*options, "--out", "cut")
    run(*options, "--out", "whole")
    assert {path.name: path.read_bytes() for path in Path("cut/a").glob("0*.png")} == left
    for video in "ab":
        assert torch.equal(maps(f"cut/{video}"), maps(f"whole/{video}"))


@pytest.mark.parametrize("fault", ["missing", "full"])
def test_a_spill_folder_that_fails_is_one_message_and_finished_videos_stay(
    fault: str, dvis_files: DVISFiles, clips: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_set("set", clips)
    options = ("--vspw", "set", "--split", "val", *model(dvis_files, "offline"), "--out", "o")
    run("predict", *options, "--shard", "1/2")
    finished = maps("o/a")
    capsys.readouterr()
    Path("spill").mkdir()
    if fault == "full":
        full = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115 - the spill closes it
        monkeypatch.setattr("mvcseg.models.dvis.spill.tempfile.TemporaryFile", lambda **_: full)
        monkeypatch.setattr("mvcseg.models.dvis.spill.SpillFile._allocate", lambda self, size: 0)
    run("predict", *options, "--spill-dir", "none" if fault == "missing" else "spill", status=1)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    where = "spill folder none: cannot open" if fault == "missing" else "spill file in spill: no room left"
    assert told.startswith(f"mvcseg: {where}")
    assert "--spill-dir" in told
    assert torch.equal(maps("o/a"), finished)
    assert list(Path("o/b").glob("*.png")) == []


def test_the_spill_folder_is_the_one_asked_for_and_ends_empty(
    dvis_files: DVISFiles, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("spill").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(Path("nowhere").absolute()))
    run("predict", clips / "a.mkv", *model(dvis_files, "offline"), "--spill-dir", "spill", "--out", "o")
    assert len(maps("o/a")) == FRAMES
    assert list(Path("spill").iterdir()) == []


def test_run_chooses_between_two_models(
    dvis_files: DVISFiles, clips: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    second = tmp_path / "second.pth"
    state = torch.load(dvis_files.checkpoint("online"), weights_only=True)["model"]
    state["sem_seg_head.predictor.query_feat.weight"] = state["sem_seg_head.predictor.query_feat.weight"].flip(0)
    torch.save({"model": state}, second)
    run("run", clips / "a.mkv", *model(dvis_files, "online"), "--checkpoint", second, "--out", "o")
    choice = json.loads(Path("o/choice.json").read_text())
    assert set(choice["scores"]) == {dvis_files.checkpoint("online"), str(second)}
    assert choice["name"] == max(choice["scores"], key=choice["scores"].__getitem__)
    assert "<- chosen" in capsys.readouterr().out
    assert maps("o/a").shape == (FRAMES, *SIZE)


def test_run_refuses_models_of_other_classes_or_sizes(
    dvis_files: DVISFiles, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mvcseg.models.compact import CompactSegmenter
    from mvcseg.models.compact_checkpoint import save_compact

    both = ("--checkpoint", dvis_files.checkpoint("vspw_minvis_r50"), "--checkpoint")
    save_compact(CompactSegmenter(3, width=8), "three.safetensors")
    run("run", clips / "a.mkv", *both, "three.safetensors", "--out", "o", status=1)
    assert "three.safetensors has other classes than" in capsys.readouterr().err
    save_compact(CompactSegmenter(124, width=8), "vspw.safetensors", class_names=VSPW_CLASSES)
    run("run", clips / "a.mkv", *both, "vspw.safetensors", "--out", "o", status=1)
    assert "tested at different sizes; --short-side N|native sets one for all" in capsys.readouterr().err
    assert not Path("o").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--preset", "vspw_online_r5"), "did you mean 'vspw_online_r50'"),
        (("--preset", "vspw_online_r50"), "does not fit preset 'vspw_online_r50'"),
        (("--preset", "none.json"), "none.json cannot be read"),
        ((), "no preset fits"),
    ],
)
def test_a_preset_that_does_not_fit_ends_with_one_message(
    options: tuple[str, ...], told: str, dvis_files: DVISFiles, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("predict", clips / "a.mkv", "--checkpoint", dvis_files.checkpoint("online"), *options, "--out", "o", status=1)
    error = capsys.readouterr().err
    assert told in error
    assert error.startswith("mvcseg: ")
    assert error.count("\n") == 1
    assert not Path("o").exists()


@pytest.mark.parametrize("option", ["--preset", "--spill-dir"])
def test_options_of_checkpoints_do_not_go_with_a_function(
    option: str, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("predict", clips / "a.mkv", "--segmenter", "mine.py:build", option, "x", "--out", "o", status=2)
    assert "--preset and --spill-dir go with --checkpoint; see --help" in capsys.readouterr().err
    assert not Path("o").exists()


def test_help_fits_the_page_and_tells_of_presets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in ("predict", "run"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 80
        for word in ("--preset", "vspw_offline_r50", "hf://owner/repo/file", "mvcseg inspect", "--spill-dir", "1333"):
            assert word in text
