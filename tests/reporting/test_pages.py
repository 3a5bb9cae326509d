"""`mvcseg report`'s library side: a page from a video and folders of label maps."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mvcseg.data import LabelFolder, class_colours, write_classes, write_label_map, write_video
from mvcseg.data.frames import FrameFolder
from mvcseg.errors import ConfigError, DataError, ShapeError
from mvcseg.metrics import MeanIoU, VideoConsistency, clip_consistency
from mvcseg.report.flicker import flicker
from mvcseg.reporting import report, report_run
from mvcseg.reporting.steadiness import FrameByFrameConsistency

NAMES = ["sky", "sea", "lake"]
SIZE = (18, 12, 20)  # T, H, W


def random_labels(seed: int, highest: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, highest + 1, (SIZE[0] // 6, 1, 3, 5), generator=generator).repeat_interleave(6, 0)
    return torch.nn.functional.interpolate(coarse.float(), size=SIZE[1:])[:, 0].to(torch.uint8)


def raw_labels() -> torch.Tensor:
    """Raw ids 1 to 3 with void written as 0 and as 255, in turn."""
    raw = random_labels(0, highest=3)
    raw[::2][raw[::2] == 0] = 255
    return raw


def class_ids(raw: torch.Tensor) -> torch.Tensor:
    return torch.where((raw == 0) | (raw == 255), 255, raw.int() - 1)


def save_maps(folder: Path, labels: torch.Tensor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, label_map in enumerate(labels):
        write_label_map(folder / f"{index:08d}.png", label_map, colours=class_colours(3))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A VSPW video `pan` with masks, and predictions `one` and `two` of it."""
    rng = np.random.default_rng(0)
    origin = tmp_path / "set" / "data" / "pan" / "origin"
    origin.mkdir(parents=True)
    for index in range(SIZE[0]):
        Image.fromarray(rng.integers(0, 255, (*SIZE[1:], 3), dtype=np.uint8)).save(origin / f"{index:08d}.png")
    save_maps(origin.parent / "mask", raw_labels())
    for seed, name in ((1, "one"), (2, "two")):
        save_maps(tmp_path / name / "pan", random_labels(seed))
        write_classes(tmp_path / name, NAMES, class_colours(NAMES))
    return tmp_path


@pytest.fixture
def make(place: Path) -> Callable[..., str]:
    """The page of `pan` and `one`, as text."""

    def page(*predictions: str, **options: Any) -> str:
        folders = [place / name for name in predictions or ("one",)]
        out = report(place / "set" / "data" / "pan", folders, out=place / "page.html", **options)
        return out.read_text(encoding="utf-8")

    return page


def data_of(html: str) -> dict[str, Any]:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, flags=re.DOTALL)
    assert block is not None
    data: dict[str, Any] = json.loads(block[1])
    return data


def table_of(html: str) -> dict[str, list[float]]:
    """Row name and exact scores of the score table."""
    body = html[html.index('<table class="scores"') : html.index("</table>")]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', body, flags=re.DOTALL)
    return {name: [float(value) for value in re.findall(r'data-value="([^"]*)"', cells)] for name, cells in rows}


def test_scores_are_those_of_the_metrics(place: Path, make: Callable[..., str]) -> None:
    raw, pred = raw_labels(), random_labels(1)
    miou = MeanIoU(3)
    miou.update(pred, class_ids(raw))
    expected = [miou.compute()]
    for length in (8, 16):
        consistency = VideoConsistency(length)
        consistency.update(pred, raw)
        expected.append(consistency.compute())
    html = make(labels=place / "set" / "data" / "pan")
    assert table_of(html) == {"one": expected}
    for name, share in zip(NAMES, miou.per_class().tolist(), strict=True):
        assert math.isnan(share) or f'data-value="{share:.6f}"' in html, name


def test_without_labels_the_table_says_how_much_changes(make: Callable[..., str]) -> None:
    html = make("one", "two")
    pred = random_labels(1)
    changed = float((pred[1:] != pred[:-1]).double().mean())
    assert table_of(html)["one"][0] == pytest.approx(changed, abs=1e-12)
    assert "lower is better" in html
    assert [each["name"] for each in data_of(html)["videos"][0]["maps"]] == ["one", "two"]
    assert "Without ground truth" in html


def test_a_perfect_prediction_scores_one(place: Path, make: Callable[..., str]) -> None:
    truth = class_ids(raw_labels())
    save_maps(place / "perfect", torch.where(truth == 255, 0, truth))
    write_classes(place / "perfect", NAMES, class_colours(NAMES))
    assert table_of(make("perfect", labels=place / "set" / "data" / "pan" / "mask"))["perfect"][0] == 1.0


def test_a_folder_may_hold_the_maps_directly_or_be_called_like_the_video(make: Callable[..., str]) -> None:
    assert [each["name"] for each in data_of(make("one/pan", "two"))["videos"][0]["maps"]] == ["one", "two"]


def test_equal_names_are_told_apart(place: Path, make: Callable[..., str]) -> None:
    (place / "later").mkdir()
    (place / "two").rename(place / "later" / "one")
    html = make("one", "later/one")
    assert [each["name"] for each in data_of(html)["videos"][0]["maps"]] == ["one", "one (2)"]


def test_a_video_file_is_shown_too(place: Path) -> None:
    frames = torch.randint(0, 255, (18, 3, 12, 20), dtype=torch.uint8)
    write_video(place / "pan.mp4", [frames], fps=10)
    out = report(place / "pan.mp4", [place / "one"], out=place / "page.html")
    item = data_of(out.read_text())["videos"][0]
    assert (item["fps"], item["total"], item["frameNames"][1]) == (10, 18, "00000001")


def test_classes_without_a_list_are_numbered_up_to_the_highest(place: Path, make: Callable[..., str]) -> None:
    (place / "one" / "classes.json").unlink()
    classes = data_of(make(labels=place / "set" / "data" / "pan"))["classes"]
    assert [each["name"] for each in classes] == ["class 0", "class 1", "class 2"]


def test_names_given_win_over_those_on_disk(make: Callable[..., str]) -> None:
    classes = data_of(make(class_names=["a", "b", "c", "d"]))["classes"]
    assert [each["name"] for each in classes] == ["a", "b", "c", "d"]


def test_predictions_outside_the_classes_are_misses_and_said_to_be(place: Path, make: Callable[..., str]) -> None:
    save_maps(place / "one" / "pan", torch.full(SIZE, 7, dtype=torch.uint8))
    html = make(labels=place / "set" / "data" / "pan")
    labelled = int((class_ids(raw_labels()) != 255).sum())
    assert table_of(html)["one"][0] == 0.0
    assert f"one: {labelled:,} labelled pixels hold no class" in html


def change_row(**other: object) -> dict[str, object]:
    row: dict[str, object] = {
        "status": "changed", "reason": "", "frames": [0, 3], "region": [1, 2, 9, 8], "pixels": 40, "key_frame": 1,
        "group": "water", "from": "sea", "to": "lake", "from_class": 1, "to_class": 2, "shares": [[1, 40]],
        "question": "Is the water in the image a sea, lake?", "answer": "A lake.", "image": "",
    }  # fmt: skip
    return row | other


def test_changes_of_a_correction_are_shown(place: Path, make: Callable[..., str]) -> None:
    (place / "changes.json").write_text(
        json.dumps([change_row(), change_row(status="unclear", to=None, to_class=None)])
    )
    html = make(changes=place / "changes.json")
    assert html.count("Is the water in the image a sea, lake?") == 2
    assert "1 region changed: 40 pixels; 1 unclear, kept." in html


def test_only_this_videos_changes_are_shown(place: Path, make: Callable[..., str]) -> None:
    other = change_row(video="tilt", question="Is the water a pond?", frames=[0, 900])
    log = place / "changes.json"
    log.write_text(json.dumps([other, change_row(video="pan"), change_row()]))
    html = make(changes=log)
    assert html.count("Is the water in the image a sea, lake?") == 2
    assert "pond" not in html
    assert "holds other videos" not in html
    log.write_text(json.dumps([other, other]))
    assert "The log of the correction holds other videos than this: tilt." in make(changes=log)


@pytest.mark.parametrize("name", ["pan", ""])
@pytest.mark.parametrize("frames", [[0, SIZE[0]], [-1, 3], [3, 2]])
def test_changes_beyond_the_video_are_refused(
    name: str, frames: list[int], place: Path, make: Callable[..., str]
) -> None:
    (place / "changes.json").write_text(json.dumps([change_row(video=name, frames=frames)]))
    with pytest.raises(DataError, match=rf"changes\.json: expected frames 0 to 17 of pan, got {frames[0]} to"):
        make(changes=place / "changes.json")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"region": [0, 0, 21, 8]}, "expected regions within frames of 12 x 20 pixels"),
        ({"to_class": 3}, "expected classes 0 to 2, those of the predictions, got 3"),
        ({"to": "pond"}, "expected classes called lake as in the predictions, got pond"),
    ],
)
def test_changes_that_do_not_fit_the_predictions_are_refused(
    other: dict[str, object], message: str, place: Path, make: Callable[..., str]
) -> None:
    (place / "changes.json").write_text(json.dumps([change_row(**other)]))
    with pytest.raises(DataError, match=rf"changes\.json: {message}"):
        make(changes=place / "changes.json")


def test_the_page_says_whose_the_changes_are_and_whether_they_helped(place: Path, make: Callable[..., str]) -> None:
    truth = class_ids(raw_labels())
    wrong = torch.where(truth == 255, 0, truth).to(torch.uint8)
    wrong[0:4, 2:8, 1:9] = 1
    corrected = wrong.clone()
    corrected[0:4, 2:8, 1:9] = 2
    for name, labels in {"wrong": wrong, "corrected": corrected}.items():
        save_maps(place / name / "pan", labels)
        write_classes(place / name, NAMES, class_colours(NAMES))
    row = change_row(shares=[[1, 192]], pixels=192, region=[1, 2, 9, 8])
    (place / "changes.json").write_text(json.dumps([row]))
    html = make("wrong", "corrected", labels=place / "set" / "data" / "pan", changes=place / "changes.json")
    own = truth[0:4, 2:8, 1:9]
    counts = f"{int((own == 2).sum())} pixels went from wrong to right, {int((own == 1).sum())} from right to wrong"
    section = text_of(html, "What the vision-language model changed")
    assert "1 region changed: 192 pixels." in section
    assert f"The changes lead from wrong to corrected: {counts}." in section
    assert "192 of 192 pixels changed" in section
    assert f"Effect {int((own == 2).sum())} pixels from wrong to right" in section
    said = text_of(html, "In short")
    assert "corrected is wrong as the vision-language model corrected it, and " in said
    assert counts in said
    scores = {name: f"{100 * values[0]:.1f}%" for name, values in table_of(html).items()}
    assert f"accurate: mIoU {scores['corrected']}, against {scores['wrong']} before" in said
    alone = text_of(make("wrong", changes=place / "changes.json"), "What the vision-language model changed")
    assert "The changes are of wrong. The pictures show the predictions as given;" in alone


def test_a_runs_log_gives_curves(place: Path, make: Callable[..., str]) -> None:
    lines = [{"step": i, "loss": 2.0 / i, "loss_masked": None, "seconds": 0.1} for i in range(1, 6)]
    (place / "run").mkdir()
    text = "".join(json.dumps(line) + "\n" for line in [*lines, {"step": 5, "mIoU": 0.5}])
    (place / "run" / "log.jsonl").write_text(text + '{"step": 6, "lo')  # killed in the middle of a line
    html = make(run=place / "run")
    assert "loss: 2 at step 1, 0.4 at step 5" in html
    assert "mIoU: 0.5 at step 5" in html
    assert "seconds:" not in html
    assert "loss_masked:" not in html


def write_run(folder: Path, *, pictures: int) -> Path:
    (folder / "pictures").mkdir(parents=True)
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 30, "loss": 1.0}\n')
    for step in range(1, pictures + 1):
        Image.new("RGB", (8, 6), (step, 0, 0)).save(folder / "pictures" / f"step_{step}000.png")
    return folder


def captions(html: str) -> list[str]:
    return re.findall(r"<figcaption>(After step [\d,]+)</figcaption>", html)


def test_a_run_alone_has_a_page_of_its_own(tmp_path: Path) -> None:
    html = report_run(write_run(tmp_path / "mvc", pictures=9), out=tmp_path / "page.html").read_text()
    assert "<title>Training: mvc</title>" in html
    assert "30 training steps" in html
    assert "loss: 2 at step 1, 1 at step 30" in html
    # the newest, and folded up four of those before, the latest first
    assert captions(html) == [f"After step {step},000" for step in (9, 7, 5, 3, 1)]
    assert html.index("After step 9,000") < html.index("<details>") < html.index("After step 7,000")
    assert 'id="viewer"' not in html


def test_a_run_without_pictures_has_its_curves(tmp_path: Path) -> None:
    html = report_run(write_run(tmp_path / "a<b", pictures=0), out=tmp_path / "page.html", title="A run").read_text()
    assert "<title>A run</title>" in html
    assert (captions(html), "<details>" in html) == ([], False)


def test_a_runs_pictures_are_shown_with_a_video_too(place: Path, make: Callable[..., str]) -> None:
    assert captions(make(run=write_run(place / "run", pictures=1))) == ["After step 1,000"]


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", pictures=1)
    (run / "pictures" / "step_1000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"step_1000\.png: no readable"):
        report_run(run, out=tmp_path / "page.html")


def test_progress_tells_what_is_done(make: Callable[..., str]) -> None:
    told: list[tuple[str, int, int]] = []
    make(progress=lambda *each: told.append(each))
    assert told[0] == ("compare frames of one", 17, 18)
    assert told[-1] == ("write the page", 18, 18)


def test_no_prediction_is_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match="at least one folder"):
        report(place / "set" / "data" / "pan", [], out=place / "page.html")


def test_a_missing_folder_is_named(make: Callable[..., str]) -> None:
    with pytest.raises(DataError, match="three: expected a folder of label maps"):
        make("three")


def test_a_missing_label_map_is_named(place: Path, make: Callable[..., str]) -> None:
    (place / "one" / "pan" / "00000004.png").unlink()
    with pytest.raises(DataError, match=r"1 of 18 label maps are missing, first 00000004\.png"):
        make()


def test_maps_of_another_size_are_refused(place: Path, make: Callable[..., str]) -> None:
    save_maps(place / "one" / "pan", torch.zeros(SIZE[0], 12, 21, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="pan: expected label maps of 12 x 20 pixels like the frames, got 12 x 21"):
        make()


def test_predictions_of_different_classes_are_refused(place: Path, make: Callable[..., str]) -> None:
    write_classes(place / "two", ["x", "y"], class_colours(2))
    with pytest.raises(ConfigError, match="expected one list of classes"):
        make("one", "two")


def test_ground_truth_outside_the_convention_is_refused(place: Path, make: Callable[..., str]) -> None:
    save_maps(place / "set" / "data" / "pan" / "mask", torch.full(SIZE, 9, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"mask: expected raw mask values 0 \(void\), 1\.\.3 or 255, got 9"):
        make(labels=place / "set" / "data" / "pan")


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"loss": 1}', '{"step": "x"}'])
def test_a_log_that_is_none_is_refused(place: Path, make: Callable[..., str], line: str) -> None:
    (place / "run").mkdir()
    (place / "run" / "log.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"log\.jsonl: line 1: expected"):
        make(run=place / "run")


def test_a_run_without_a_log_is_named(place: Path, make: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=r"log\.jsonl"):
        make(run=place)


def still(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(source), 2, *source.shape[2:])


def text_of(html: str, heading: str) -> str:
    """Text of the section below a heading."""
    section = html[html.index(f">{heading}</h2>") :]
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", section[: section.index("</section>")])))


def test_the_page_says_in_short_who_is_steadier_and_lists_the_worst_clips(
    place: Path, make: Callable[..., str]
) -> None:
    truth = class_ids(raw_labels())
    save_maps(place / "perfect", torch.where(truth == 255, 0, truth))
    write_classes(place / "perfect", NAMES, class_colours(NAMES))
    html = make("one", "perfect", labels=place / "set" / "data" / "pan")
    said = text_of(html, "In short")
    assert "perfect is steadier than one: where the true class stays the same for 8 frames" in said
    assert "perfect is right on every labelled pixel." in said
    assert "one fails most on" in said
    clips = clip_consistency(random_labels(1), raw_labels(), clip_lengths=(8,))[0]
    worst = int(clips.argmin())
    assert f"Steadiness is worst in frames {worst + 1}–{worst + 8} of one (VC8 {100 * clips[worst]:.1f}%)" in said
    listed = text_of(html, "Worst clips")
    assert f"Frames {worst + 1}–{worst + 8}" in listed
    assert "perfect" not in listed


def test_the_steadiness_of_every_class_is_shown_where_there_is_ground_truth(
    place: Path, make: Callable[..., str]
) -> None:
    stream = FrameByFrameConsistency((8,), num_classes=3, class_clip=8)
    for frame in zip(random_labels(1), raw_labels(), class_ids(raw_labels()).to(torch.uint8), strict=True):
        stream.update(*frame)
    shown = text_of(make(labels=place / "set" / "data" / "pan"), "Steadiness of each class")
    for name, share in zip(NAMES, stream.by_class().tolist(), strict=True):
        assert (f"{name} {100 * share:.1f}" in shown) == math.isfinite(share)
    assert "Steadiness of each class" not in make()


def test_without_labels_flow_tells_what_flickers(make: Callable[..., str]) -> None:
    html = make("one", "two", flow=still)
    share = float(
        flicker(torch.zeros(SIZE[0], 3, *SIZE[1:], dtype=torch.uint8), random_labels(1), flow=still)[1:].double().mean()
    )
    assert table_of(html)["one"][1] == pytest.approx(share, abs=1e-12)
    assert "though nothing moved there" in text_of(html, "In short")
    assert "flicker-free pixels" in text_of(html, "Worst clips")
    assert data_of(html)["videos"][0]["maps"][0]["flicker"]
    plain = make("one", "two")
    assert list(table_of(plain)["one"]) == table_of(html)["one"][:1]
    assert "be it for motion or not" in text_of(plain, "In short")
    assert "Worst clips</h2>" not in plain
    assert not data_of(plain)["videos"][0]["maps"][0]["flicker"]


@pytest.mark.parametrize("flow", [None, still])
def test_names_of_folders_and_classes_are_text(place: Path, flow: Any) -> None:
    evil = "<img src=x onerror=alert(1)>&\"'"
    for name in ("one", "two"):
        (place / name).rename(place / f"{evil}{name}")
        write_classes(place / f"{evil}{name}", [f"<b>{each}" for each in NAMES], class_colours(NAMES))
    video = (place / "set" / "data" / "pan").rename(place / "set" / "data" / f"pan{evil}")
    for name in ("one", "two"):
        (place / f"{evil}{name}" / "pan").rename(place / f"{evil}{name}" / f"pan{evil}")
    predictions = [place / f"{evil}{name}" for name in ("one", "two")]
    for labels in (None, video / "mask"):
        html = report(video, predictions, labels=labels, flow=flow, out=place / "page.html").read_text(encoding="utf-8")
        shown = html[: html.index('<script type="application/json"')]
        assert "<img src=x" not in shown
        assert "<b>" not in shown
        assert f"{evil}one" in text_of(html, "Scores")
        if labels is not None or flow is not None:
            assert f"{evil}one" in text_of(html, "In short")
        assert "<img" not in data_block(html)


def data_block(html: str) -> str:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, flags=re.DOTALL)
    assert match is not None
    return match[1]


def test_ground_truth_that_lacks_frames_is_refused_and_says_how_many(place: Path, make: Callable[..., str]) -> None:
    for index in (3, 4):
        (place / "set" / "data" / "pan" / "mask" / f"{index:08d}.png").unlink()
    with pytest.raises(DataError, match=r"mask: 2 of 18 label maps are missing, first 00000003\.png"):
        make(labels=place / "set" / "data" / "pan")


@pytest.mark.slow
@pytest.mark.parametrize(("length", "has_truth"), [(10_000, False), (1_500, True)])
def test_a_report_over_many_frames_samples_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, has_truth: bool
) -> None:
    origin, mask, pred = tmp_path / "long" / "origin", tmp_path / "long" / "mask", tmp_path / "pred" / "long"
    origin.mkdir(parents=True)
    for folder, labels in ((mask, random_labels(0) + 1), (pred, random_labels(1))):
        save_maps(folder, labels)
    for index in range(SIZE[0]):
        Image.new("RGB", (SIZE[2], SIZE[1]), (index, 0, 0)).save(origin / f"{index:08d}.png")
    for folder in (origin, mask, pred):
        for index in range(SIZE[0], length):
            (folder / f"{index:08d}.png").hardlink_to(folder / f"{index % SIZE[0]:08d}.png")
    read: dict[type, list[int]] = {LabelFolder: [], FrameFolder: []}
    for kind in read:
        original = kind.__getitem__

        def counted(self: Any, index: slice, /, *, kind: Any = kind, original: Any = original) -> torch.Tensor:
            clip: torch.Tensor = original(self, index)
            read[kind].append(len(clip))
            return clip

        monkeypatch.setattr(kind, "__getitem__", counted)
    out = report(
        tmp_path / "long",
        [tmp_path / "pred"],
        labels=mask if has_truth else None,
        flow=still,
        out=tmp_path / "page.html",
    )
    assert max(read[LabelFolder]) <= 17
    assert max(read[FrameFolder]) <= 17
    assert sum(read[FrameFolder]) < 1_000
    html = out.read_text()
    assert out.stat().st_size < 5_000_000
    item = data_of(html)["videos"][0]
    assert (item["total"], item["kept"]) == (length, True)
    assert 120 < len(item["positions"]) <= 150
    assert f"{length:,} frames" in html
    if has_truth:
        assert "counted on every frame" in text_of(html, "Notes")
    else:
        assert "measured in 42 clips of 8 frames, evenly spaced" in text_of(html, "Notes")


@pytest.mark.slow
def test_camvid_frames_and_masks_make_a_page(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "camvid" / "data" / "0016E5_07959"
    names = [entry["name"] for entry in json.loads((shared_data / "camvid" / "categories.json").read_text())[1:]]
    pred = tmp_path / "pred"
    pred.mkdir()
    for path in sorted((source / "mask").glob("*.png")):
        raw = torch.from_numpy(np.array(Image.open(path)))
        write_label_map(pred / path.name, torch.where(raw == 0, 0, raw - 1), colours=class_colours(names))
    out = report(source, [pred], labels=source, out=tmp_path / "page.html", class_names=names)
    assert table_of(out.read_text())["pred"][0] == 1.0
    assert out.stat().st_size < 5_000_000
