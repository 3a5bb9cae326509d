from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mvcseg.cli import main
from mvcseg.data import class_colours, write_classes, write_label_map

NAMES = ["sky", "river", "lake"]
GROUPS = "- {noun: water, classes: [river, lake]}\n"


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clip ``clip`` with masks, predictions ``pred`` that call its river a lake, and groups."""
    generator = np.random.default_rng(2)
    colours = class_colours(NAMES)
    for folder in ("clip/origin", "clip/mask", "pred/clip"):
        (tmp_path / folder).mkdir(parents=True)
    for frame in range(3):
        picture = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"clip/origin/{frame:08d}.png")
        labels = torch.zeros(24, 32, dtype=torch.uint8)
        labels[8:, :12], labels[10:, 20:] = 1, 2
        write_label_map(tmp_path / f"clip/mask/{frame:08d}.png", labels + 1, colours=colours)
        labels[8:, :12] = 2
        write_label_map(tmp_path / f"pred/clip/{frame:08d}.png", labels, colours=colours)
    write_classes(tmp_path / "pred", NAMES, colours)
    (tmp_path / "groups.yaml").write_text(GROUPS)
    (tmp_path / "right.json").write_text('["A river.", "A lake."]')
    (tmp_path / "wrong.json").write_text('["A lake.", "I cannot tell."]')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


def run(*more: str, models: str) -> int:
    Path("models.yaml").write_text(models)
    return main(["vlm-compare", "clip", "pred", "--models", "models.yaml", "--groups", "groups.yaml", *more])


RECORDED = "- {name: right, answers: right.json}\n- {name: wrong, answers: wrong.json}\n"


def test_answers_are_tabulated_within_80_columns(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--labels", "clip", models=RECORDED) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    rows = [line.split() for line in text.splitlines()]
    assert ["right", "2", "0", "0", "2", "of", "2,", "100.0", "%"] in rows
    assert ["wrong", "1", "1", "0", "0", "of", "1,", "0.0", "%"] in rows
    assert ["(labels", "as", "they", "are)", "1", "of", "2,", "50.0", "%"] in rows


def test_json_holds_every_answer(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--labels", "clip/mask", "--json", models=RECORDED) == 0
    value = json.loads(capsys.readouterr().out)
    assert [(q["from"], q["truth"], q["answers"]) for q in value["questions"]] == [
        ("lake", "river", {"right": "river", "wrong": "lake"}),
        ("lake", "lake", {"right": "lake", "wrong": None}),
    ]
    assert [(m["name"], m["mended"], m["mended_pixels"]) for m in value["models"]] == [
        ("right", 1, 3 * 16 * 12),
        ("wrong", 0, 0),
    ]


def test_log_of_a_model_can_be_followed(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out", "compared", models=RECORDED) == 0
    assert json.loads(Path("compared/comparison.json").read_text())["has_truth"] is False
    capsys.readouterr()
    assert {row["video"] for row in json.loads(Path("compared/right/changes.json").read_text())} == {"clip"}
    follow = ["correct", "clip", "pred", "--groups", "groups.yaml", "--answers", "compared/right/changes.json"]
    assert main([*follow, "--views", "1", "--out", "corrected"]) == 0
    corrected = np.array(Image.open("corrected/clip/00000001.png"))
    assert (corrected[8:, :12] == 1).all()
    assert (corrected[10:, 20:] == 2).all()


def test_table_is_seen_where_no_log_can_be_written(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("compared").mkdir()
    Path("compared/right").write_text("in the way")
    assert run("--out", "compared", models=RECORDED) == 1
    captured = capsys.readouterr()
    assert "2 questions to each model" in captured.out
    assert "compared/right" in captured.err


def test_it_fails_only_where_nobody_could_be_asked(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = "- {name: gone, local: nowhere}\n- {name: off, vlm: 'https://api.openai.com/v1', model: m}\n"
    assert run(models=gone) == 1
    captured = capsys.readouterr()
    assert "nowhere: expected a folder of a model, got none" in captured.out.replace("\n", " ")
    assert "off: OPENAI_API_KEY: https://api.openai.com/v1 needs a key" in captured.out.replace("\n", " ")
    assert "models.yaml: none of the models could be asked" in captured.err
    assert run(models=gone + RECORDED) == 0


def test_mistakes_end_before_anything_is_asked(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for models, more, message in (
        ("- {name: a}\n", (), "models.yaml, line 1: expected one of vlm"),
        (RECORDED, ("--labels", "nowhere"), "nowhere: expected a folder of label maps"),
        (RECORDED, ("--groups", "models.yaml"), "models.yaml, line 1: expected the keys noun, classes"),
        (RECORDED, ("--classes", "nothing.txt"), "nothing.txt"),
    ):
        assert run(*more, models=models) == 1
        assert message in capsys.readouterr().err


def test_nothing_to_ask_is_no_failure(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--min-area", "1", models=RECORDED) == 0
    assert "0 questions to each model" in capsys.readouterr().out
