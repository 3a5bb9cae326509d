from __future__ import annotations

import contextlib
import io
import json
import socket
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import mvcseg.demo.run as module
from mvcseg import PerFrame, predict_labels
from mvcseg.data import LabelFolder, open_video
from mvcseg.data.toy_scene import CLASS_NAMES, KINDS
from mvcseg.data.vspw import VSPW
from mvcseg.demo import (
    DEFAULT_FOLDER,
    NUM_VIDEOS,
    STEPS,
    WATER,
    Decided,
    DemoResult,
    demo,
    folder_name,
    run_steps,
    summary,
)
from mvcseg.demo.show import LOOK_AT
from mvcseg.demo.steps import CLIP_LENGTH
from mvcseg.errors import DataError
from mvcseg.flow import FarnebackFlow
from mvcseg.metrics import MeanIoU, VideoConsistency
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.compact_checkpoint import save_compact
from mvcseg.pipeline import run_video
from mvcseg.tta import multiscale_flip
from mvcseg.vlm import ReplayVLM, question_text, read_changes
from mvcseg.vlm.group_file import read_groups

K = len(CLASS_NAMES)


def tiny(seed: int) -> PerFrame:
    torch.manual_seed(seed)
    return PerFrame(nn.Conv2d(3, K, kernel_size=3, padding=1), num_classes=K, logits_of=lambda out: out)


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoResult, str, str]:
    """A demo of one video by two untrained models, without a network: result, standard output, standard error."""
    folder = tmp_path_factory.mktemp("demo")
    for seed, name in enumerate(("plain", "mvc")):
        torch.manual_seed(seed)
        save_compact(CompactSegmenter(K, width=8, depth=1), folder / f"{name}.safetensors", class_names=CLASS_NAMES)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network in this test")

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "packaged_checkpoint", lambda name: folder / f"{name}.safetensors")
        patch.setattr(module, "NUM_VIDEOS", 1)
        patch.setattr(module, "multiscale_flip", lambda: multiscale_flip((1.0,)))
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            result = demo(out=folder / "out")
    return result, out.getvalue(), err.getvalue()


def test_settled_labels_come_back_whatever_the_clip_length() -> None:
    labels = torch.randint(0, 5, (7, 4, 6), generator=torch.Generator().manual_seed(0))
    video = torch.zeros(7, 3, 4, 6, dtype=torch.uint8)
    for clip_length in (1, 3, 7, 9):
        found = predict_labels(Decided(labels, num_classes=5), video, clip_length=clip_length)
        torch.testing.assert_close(found, labels, rtol=0, atol=0)
    logits = Decided(labels, num_classes=5)(torch.rand(1, 7, 3, 4, 6))
    assert logits.shape == (1, 7, 5, 4, 6)
    torch.testing.assert_close(logits.softmax(dim=2).argmax(dim=2)[0], labels, rtol=0, atol=0)


def test_the_last_step_is_one_call_with_every_step() -> None:
    video = torch.randint(0, 256, (4, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain, mvc, views = tiny(1), tiny(2), multiscale_flip((1.0, 1.25))
    answer = {question_text("water", ["river", "lake", "sea"]): "A lake."}
    results = list(run_steps(video, plain=plain, mvc=mvc, views=views, vlm=ReplayVLM(answer)))
    assert len(results) == len(STEPS)
    whole = run_video(
        video,
        {"mvc": mvc, "plain": plain},
        num_classes=K,
        clip_length=CLIP_LENGTH,
        views=views,
        flow=FarnebackFlow(),
        vlm=ReplayVLM(answer),
        groups=(WATER,),
        class_names=CLASS_NAMES,
    )
    torch.testing.assert_close(results[-1].labels, whole.labels, rtol=0, atol=0)
    assert results[3].choice == whole.choice
    assert results[4].changes == whole.changes
    assert (whole.labels != results[3].labels).any()
    for result, segmenter in zip(results, (plain, mvc), strict=False):
        expected = predict_labels(segmenter, video, clip_length=CLIP_LENGTH)
        torch.testing.assert_close(result.labels, expected, rtol=0, atol=0)


def test_every_video_of_the_set_has_a_recorded_answer_to_the_question_asked() -> None:
    recorded = json.loads(files("mvcseg").joinpath("recorded/demo_answers.json").read_text())
    question = question_text(WATER.noun, list(WATER.answers(CLASS_NAMES).values()))
    names = [f"val_{index:03d}_{KINDS[index % len(KINDS)]}" for index in range(NUM_VIDEOS)]
    assert sorted(recorded["answers"]) == names
    assert all(list(by_question) == [question] for by_question in recorded["answers"].values())
    assert "by hand" in recorded["note"]


def test_the_folder_holds_what_the_summary_points_at(small_demo: tuple[DemoResult, str, str]) -> None:
    result, out, err = small_demo
    assert sorted(path.name for path in result.folder.iterdir()) == sorted([*module._WRITTEN, "demo.json"])
    for name, _ in LOOK_AT:
        assert f"  {result.folder / name}" in out
    assert "it/s" not in out
    assert "Percent" not in err


def test_masks_of_every_step_are_class_ids_of_every_frame(small_demo: tuple[DemoResult, str, str]) -> None:
    masks = small_demo[0].folder / "masks"
    assert sorted(path.name for path in masks.iterdir()) == ["1-plain", "2-mvc", "3-tta", "4-selection", "5-vlm"]
    for step in STEPS:
        paths = sorted((masks / folder_name(step) / "val_000_river").iterdir())
        assert [path.name for path in paths] == [f"{index:08d}.png" for index in range(24)]
        assert (masks / folder_name(step) / "classes.json").is_file()
        with Image.open(paths[0]) as image:
            assert (image.mode, image.size) == ("P", (160, 96))
            assert max(value for _, value in image.getcolors()) < K


def test_scores_are_those_of_the_masks_on_disk(small_demo: tuple[DemoResult, str, str]) -> None:
    result, out, _ = small_demo
    stored = json.loads((result.folder / "scores.json").read_text())
    (video,) = VSPW(result.folder / "toy", split="val")
    for step in STEPS:
        labels = LabelFolder(result.folder / "masks" / folder_name(step) / video.name)[:]
        miou, vc8, vc16 = MeanIoU(num_classes=K), VideoConsistency(clip_length=8), VideoConsistency(clip_length=16)
        miou.update(labels, video.labels)
        for metric in (vc8, vc16):
            metric.update(labels, video.raw_labels)
        expected = {"mIoU": miou.compute(), "VC8": vc8.compute(), "VC16": vc16.compute()}
        assert result.scores[step] == stored["scores"][step] == expected
        line = next(line for line in out.splitlines() if line.startswith(f"{step} "))
        assert [float(part) for part in line[14:38].split()] == [
            pytest.approx(100 * value, abs=0.005) for value in result.scores[step].values()
        ]


def test_page_and_log_say_that_answers_are_recorded(small_demo: tuple[DemoResult, str, str]) -> None:
    result, out, _ = small_demo
    assert "written by hand: no model was asked" in out
    page = (result.folder / "report.html").read_text()
    assert "+ VLM (recorded answers)" in page
    assert "No vision-language model was asked" in page
    assert read_changes(result.folder / "changes" / "val_000_river.json") == tuple(result.changes["val_000_river"])


def test_groups_and_answers_are_written_as_the_correct_command_takes_them(
    small_demo: tuple[DemoResult, str, str],
) -> None:
    folder = small_demo[0].folder
    assert read_groups(folder / "groups.json", class_names=CLASS_NAMES) == (WATER,)
    vlm = ReplayVLM(folder / "answers" / "val_002_lake.json")
    question = question_text(WATER.noun, list(WATER.answers(CLASS_NAMES).values()))
    assert vlm([], question) == "The water in the image is a lake."


def test_work_in_threads_keeps_the_order_and_the_callers_number_of_threads() -> None:
    before = torch.get_num_threads()
    videos = [module.DemoVideo(str(number), [], *[torch.empty(0)] * 3) for number in range(5)]
    seen: list[int] = []

    def work(video: module.DemoVideo) -> module.DemoVideo:
        seen.append(torch.get_num_threads())
        return video

    assert list(module._in_threads(work, videos)) == videos
    assert seen == [1] * 5
    assert torch.get_num_threads() == before


def test_the_overlay_video_shows_every_frame(small_demo: tuple[DemoResult, str, str]) -> None:
    video = open_video(small_demo[0].folder / "overlay.mp4")
    assert len(video) == 24
    with Image.open(small_demo[0].folder / "overview.png") as image:
        assert image.size[0] > 4 * 2 * 160


def test_the_summary_fits_80_columns(small_demo: tuple[DemoResult, str, str]) -> None:
    result = small_demo[0]
    at_home = DemoResult(Path(DEFAULT_FOLDER), result.scores, result.class_iou, result.chosen, result.changes)
    assert max(map(len, summary(at_home).splitlines())) <= 80


def test_an_earlier_demo_is_replaced_and_other_files_stay(tmp_path: Path) -> None:
    folder = module._claim(tmp_path / "out")
    (folder / "masks").mkdir()
    (folder / "masks" / "old.png").write_text("old")
    (folder / "report.html").write_text("old")
    (folder / "my notes.txt").write_text("mine")
    module._claim(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["demo.json", "my notes.txt"]


def test_links_in_an_earlier_demo_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("keep me")
    folder = module._claim(tmp_path / "out")
    (folder / "masks").symlink_to(tmp_path / "elsewhere")
    module._claim(folder)
    assert not (folder / "masks").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "keep me"


def test_a_folder_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match=r"expected a new or empty folder or that of an earlier demo.*--out"):
        demo(out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_as_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file: expected a folder for the demo, got a file"):
        demo(out=tmp_path / "file")
    with pytest.raises(DataError, match=r"cannot be written"):
        demo(out=tmp_path / "file" / "out")
