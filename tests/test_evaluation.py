from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mvcseg import evaluation
from mvcseg.data import VSPW
from mvcseg.errors import ConfigError, DataError
from mvcseg.evaluation import Evaluation, evaluate

Maps = NDArray[np.uint8]
CLASSES = {"others": "0", "wall": "1", "sea": "2", "lake": "3"}
SIZE = (5, 9)


def write_maps(folder: Path, maps: Maps) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(maps):
        Image.fromarray(frame).save(folder / f"{index:08d}.png")


def steady(rng: np.random.Generator, frames: int, values: list[int]) -> Maps:
    """Maps that change rarely, so that clips of 16 frames keep steady pixels."""
    changes = (rng.random((frames, *SIZE)) < 0.04).cumsum(axis=0)
    return np.asarray(values, dtype=np.uint8)[(changes + rng.integers(0, 9, SIZE)) % len(values)]


@pytest.fixture
def masks() -> dict[str, Maps]:
    rng = np.random.default_rng(0)
    return {"long": steady(rng, 20, [0, 1, 2, 3, 255]), "short": steady(rng, 11, [1, 2, 1])}


@pytest.fixture
def predictions() -> dict[str, Maps]:
    rng = np.random.default_rng(1)
    return {"long": steady(rng, 20, [0, 1, 2]), "short": steady(rng, 11, [0, 1, 2, 7])}


@pytest.fixture
def root(tmp_path: Path, masks: dict[str, Maps]) -> Path:
    root = tmp_path / "set"
    for name, maps in masks.items():
        write_maps(root / "data" / name / "mask", maps)
    (root / "val.txt").write_text("long\nshort")
    (root / "label_num_dic_final.json").write_text(json.dumps(CLASSES))
    return root


@pytest.fixture
def pred(tmp_path: Path, predictions: dict[str, Maps]) -> Path:
    for name, maps in predictions.items():
        write_maps(tmp_path / "pred" / name, maps)
    return tmp_path / "pred"


def reference_miou(predictions: Mapping[str, Maps], masks: Mapping[str, Maps], num_classes: int) -> list[float]:
    """IoU of each class over all pixels at once; every class of these sets occurs."""
    given = np.concatenate([predictions[name].ravel() for name in masks]).astype(int)
    raw = np.concatenate([masks[name].ravel() for name in masks]).astype(int)
    true = np.where(raw == 0, 255, raw - 1)
    valid = true < num_classes
    scores = []
    for k in range(num_classes):
        is_true, is_given = valid & (true == k), valid & (given == k)
        scores.append(float((is_true & is_given).sum() / (is_true | is_given).sum()))
    return scores


def reference_vc(predictions: Mapping[str, Maps], masks: Mapping[str, Maps], n: int) -> float:
    scores = []
    for name in masks:
        for start in range(len(masks[name]) - n):
            label, given = masks[name][start : start + n], predictions[name][start : start + n]
            same_label, same_given = (label == label[0]).all(axis=0), (given == given[0]).all(axis=0)
            scores.append((same_label & same_given).sum() / same_label.sum())
    return float(np.mean(scores))


def test_scores_equal_the_definitions(
    root: Path, pred: Path, masks: dict[str, Maps], predictions: dict[str, Maps]
) -> None:
    result = evaluate(pred, root=root, split="val")
    expected = reference_miou(predictions, masks, 3)
    assert result.per_class == pytest.approx(dict(zip(["wall", "sea", "lake"], expected, strict=True)), abs=1e-12)
    assert result["mIoU"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert result["VC8"] == pytest.approx(reference_vc(predictions, masks, 8), abs=1e-12)
    assert result["VC16"] == pytest.approx(
        reference_vc({"long": predictions["long"]}, {"long": masks["long"]}, 16), abs=1e-12
    )
    assert result["VC8"] != result["VC16"]
    sevens = ((predictions["short"] == 7) & (masks["short"] > 0)).sum()
    assert result["predicted_outside"] == sevens > 0


def test_result_is_the_flat_json_object(root: Path, pred: Path) -> None:
    result = evaluate(pred, root=root, split="val")
    flat = dict(result)
    assert list(flat) == ["mIoU", "VC8", "VC16", "videos", "frames", "num_classes", "predicted_outside"]
    assert json.loads(json.dumps(flat)) == flat == result
    assert (flat["videos"], flat["frames"], flat["num_classes"]) == (2, 31, 3)
    assert (flat["mIoU"], flat["VC8"], flat["VC16"]) == (result.miou, result.vc8, result.vc16)
    assert len(result) == 7
    with pytest.raises(KeyError):
        result["nothing"]
    with pytest.raises(AttributeError):
        result.miou = 1.0  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(result)) == result


def test_perfect_prediction_scores_one(root: Path, tmp_path: Path, masks: dict[str, Maps]) -> None:
    for name, maps in masks.items():
        write_maps(tmp_path / "perfect" / name, np.where(maps == 0, 200, maps - 1).astype(np.uint8))
    result = evaluate(tmp_path / "perfect", root=root, split="val")
    assert (result.miou, result.vc8, result.vc16, result.predicted_outside) == (1.0, 1.0, 1.0, 0)


def test_vc_is_none_where_no_video_is_long_enough(root: Path, pred: Path) -> None:
    (root / "val.txt").write_text("short")
    result = evaluate(pred, root=root, split="val")
    assert result.vc8 is not None
    assert result["VC16"] is None
    assert "VC16 -" in result.table()


def test_nothing_labelled_gives_none(root: Path, pred: Path) -> None:
    write_maps(root / "data/short/mask", np.zeros((11, *SIZE), np.uint8))
    (root / "val.txt").write_text("short")
    result = evaluate(pred, root=root, split="val")
    assert result["mIoU"] is None
    assert set(result.pixel_share.values()) == {0.0}
    assert result.vc8 is not None  # void is steady


def test_missing_extra_broken_and_resized_frames_are_one_error(root: Path, pred: Path) -> None:
    (pred / "long/00000003.png").unlink()
    (pred / "short/00000010.png").rename(pred / "short/00000011.png")
    Image.new("L", (9, 6)).save(pred / "short/00000000.png")
    (pred / "short/00000001.png").write_bytes(b"no image at all")
    write_maps(pred / "no such video", np.zeros((1, *SIZE), np.uint8))
    with pytest.raises(DataError, match=r"the 31 masks of val\.txt: 2 missing, 2 extra, 1 size, 1 broken") as caught:
        evaluate(pred, root=root, split="val")
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert lines[:5] == [
        "missing long/00000003.png",
        "missing short/00000010.png",
        "extra short/00000011.png",
        "extra no such video/00000000.png",
        "size short/00000000.png: expected 5 x 9, got 6 x 9",
    ]
    assert "short/00000001.png: expected a PNG" in lines[5]


def test_a_long_list_of_faults_ends_with_its_total(root: Path, pred: Path) -> None:
    for path in (pred / "long").iterdir():
        path.unlink()
    (pred / "long").rmdir()
    (pred / "short/00000000.png").unlink()
    with pytest.raises(DataError, match="21 missing") as caught:
        evaluate(pred, root=root, split="val")
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1].strip() == "... 21 in all"


def test_other_splits_hidden_files_and_other_files_are_left_alone(root: Path, pred: Path) -> None:
    before = evaluate(pred, root=root, split="val")
    (root / "data/other").mkdir()
    write_maps(pred / "other", np.zeros((1, *SIZE), np.uint8))
    write_maps(pred / ".cache", np.zeros((1, *SIZE), np.uint8))
    (pred / "long/._00000000.png").write_bytes(b"")
    (pred / "long/notes.txt").write_text("mine")
    (pred / "report.html").write_text("page")
    assert evaluate(pred, root=root, split="val") == before


def test_masks_of_two_sizes_in_a_video_are_an_error(root: Path, pred: Path) -> None:
    for path in (root / "data/short/mask/00000002.png", pred / "short/00000002.png"):
        Image.new("L", (4, 4)).save(path)
    with pytest.raises(DataError, match=r"mask/00000002\.png: 4 x 4 in a video of 5 x 9"):
        evaluate(pred, root=root, split="val")


def test_mask_value_outside_the_convention_names_file_and_value(root: Path, pred: Path) -> None:
    Image.fromarray(np.full(SIZE, 4, np.uint8)).save(root / "data/short/mask/00000007.png")
    with pytest.raises(DataError, match=r"short/mask/00000007\.png: expected raw mask values .*1\.\.3 or 255, got 4"):
        evaluate(pred, root=root, split="val")


@pytest.mark.parametrize("name", ["pred/long/00000004.png", "set/data/long/mask/00000004.png"])
def test_truncated_label_map_is_named(root: Path, pred: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(DataError, match=r"00000004\.png"):
        evaluate(pred, root=root, split="val")


def test_videos_without_masks_are_named(root: Path, pred: Path) -> None:
    (root / "data/plain/origin").mkdir(parents=True)
    (root / "val.txt").write_text("long\nplain")
    with pytest.raises(DataError, match=r"1 of 2 videos of val\.txt have no masks\n  plain"):
        evaluate(pred, root=root, split="val")


def test_classes_come_from_the_file_given(root: Path, pred: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {index}" for index in range(8)))
    result = evaluate(pred, root=root, split="val", classes=names)
    assert result.num_classes == 8
    assert result["predicted_outside"] == 0
    assert np.isnan(result.per_class["class 7"])
    (root / "label_num_dic_final.json").unlink()
    assert evaluate(pred, root=root, split="val").num_classes == 124


def test_class_list_beside_the_predictions_is_only_noted(root: Path, pred: Path) -> None:
    before = dict(evaluate(pred, root=root, split="val"))
    for text, notes in (
        ({"classes": [{"id": k, "name": str(k)} for k in range(3)]}, 0),
        ({"classes": [{"id": k, "name": str(k)} for k in range(5)]}, 1),
        (["other"], 1),
    ):
        (pred / "classes.json").write_text(json.dumps(text))
        result = evaluate(pred, root=root, split="val")
        assert dict(result) == before
        assert len(result.notes) == notes
        assert ("note:" in result.table()) == bool(notes)


def test_predictions_of_raw_ids_are_refused(root: Path, pred: Path) -> None:
    (pred / "classes.json").write_text(json.dumps({"classes": [{"id": k, "name": str(k)} for k in (1, 2, 3)]}))
    with pytest.raises(DataError, match=r"raw ids \(1 to 3\)"):
        evaluate(pred, root=root, split="val")


def test_missing_prediction_folder_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing: expected a folder of predictions"):
        evaluate(tmp_path / "nothing", root=root, split="val")
    with pytest.raises(ConfigError, match="split"):
        evaluate(tmp_path, root=root, split="../val")


def test_table_fits_80_columns_and_shows_every_class() -> None:
    names = [f"class_{index}_" + "x" * (index % 90) for index in range(254)]
    result = Evaluation(
        miou=0.5,
        vc8=1.0,
        vc16=None,
        frames=25_000,
        videos=343,
        predicted_outside=10**11,
        per_class={name: 0.123456 if index else float("nan") for index, name in enumerate(names)},
        pixel_share=dict.fromkeys(names, 1.0),
        confusion=torch.zeros(254, 255, dtype=torch.int64),
        notes=("words " * 40,),
    )
    lines = result.table().splitlines()
    assert max(map(len, lines)) <= 80
    assert "mIoU 50.00   VC8 100.00   VC16 -" in result.table()
    assert lines[1].split()[2] == "-"
    assert "12.35" in lines[2]
    assert len(lines) > 254


def test_progress_stays_off_standard_output(root: Path, pred: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(pred, root=root, split="val")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")  # under two seconds: no bar either


def test_at_most_one_video_is_decoded_ahead(root: Path, pred: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    original = evaluation.read_label_map
    monkeypatch.setattr(
        evaluation, "read_label_map", lambda path: (decoded.append(path.parent.name), original(path))[1]
    )
    (root / "val.txt").write_text("long\nshort\nthird")
    for folder in (root / "data/third/mask", pred / "third"):
        write_maps(folder, np.ones((1, *SIZE), np.uint8))
    data = VSPW(root, split="val")
    videos = evaluation._decoded(evaluation._matched_frames(pred, data), data.num_classes)
    next(videos)
    assert "third" not in decoded
    videos.close()


def test_camvid_ground_truth_as_its_own_prediction_scores_one(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "camvid"
    for video in VSPW(root, split="val"):
        assert video.labels is not None
        (tmp_path / video.name).mkdir()
        for name, frame in zip(video.frame_names, video.labels.numpy(), strict=True):
            Image.fromarray(frame).save(tmp_path / video.name / f"{name}.png", compress_level=0)
    result = evaluate(tmp_path, root=root, split="val")
    assert (result.miou, result.vc8, result.vc16, result.predicted_outside) == (1.0, 1.0, 1.0, 0)
    assert set(result.per_class.values()) == {1.0}
    assert (result["frames"], result["num_classes"]) == (75, 11)
