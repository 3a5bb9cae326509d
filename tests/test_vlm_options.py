from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mvcseg.cli import build_parser
from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import ConfigError, DataError, UsageError
from mvcseg.vlm import VSPW_GROUPS, CachedVLM, Group, OpenAIVLM, ReplayVLM
from mvcseg.vlm_options import (
    backend_of,
    check_backend,
    groups_of,
    has_backend,
    kept_answers,
    prompt_of,
    recorded_answers,
)

CPU = torch.device("cpu")


def options(line: str, *, command: str = "correct v p") -> object:
    return build_parser().parse_args(f"{command} {line} --out o".split())


def test_a_server_and_its_model_go_together() -> None:
    for line in ("--vlm http://localhost/v1", "--model m"):
        with pytest.raises(UsageError, match="--vlm URL and --model NAME go together"):
            check_backend(options(line))
    check_backend(options("--vlm http://localhost/v1 --model m"))


@pytest.mark.parametrize(("option", "kind"), [("--local", "an image-text model"), ("--zero-shot", "a CLIP or SigLIP")])
def test_a_model_that_is_no_folder_is_refused_and_never_looked_for_elsewhere(option: str, kind: str) -> None:
    with pytest.raises(DataError, match=f"owner/name: expected a folder of {kind}"):
        check_backend(options(f"{option} owner/name"))


@pytest.mark.parametrize("line", ["--vlm u --model m", "--local d", "--zero-shot d", "--answers f"])
def test_any_backend_is_one(line: str) -> None:
    assert has_backend(options(line))
    assert not has_backend(options("--dry-run"))
    assert not has_backend(options("--checkpoint c", command="run v"))


def test_server_is_asked_under_its_name_and_answers_are_kept(tmp_path: Path) -> None:
    asked = backend_of(options("--vlm http://localhost:8000/v1 --model llava"), device=CPU)
    assert isinstance(asked, OpenAIVLM)
    assert (asked.model, asked.base_url) == ("llava", "http://localhost:8000/v1")
    assert isinstance(kept_answers(asked, tmp_path / "kept"), CachedVLM)
    assert (tmp_path / "kept").is_dir()


def test_recorded_answers_are_not_kept_again(tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text('["a lake"]')
    recorded = backend_of(options(f"--answers {tmp_path / 'answers.json'}"), device=CPU)
    assert isinstance(recorded, ReplayVLM)
    assert kept_answers(recorded, tmp_path / "kept") is recorded
    assert not (tmp_path / "kept").exists()


def test_a_log_of_several_videos_answers_with_the_views_of_this_one(tmp_path: Path) -> None:
    def row(video: str, views: int) -> dict[str, object]:
        answers = [{"image": f"{video}{view}", "answer": "a lake"} for view in range(views)]
        return {"video": video, "question": "?", "answer": None, "image": "", "answers": answers}

    log = tmp_path / "log.json"
    log.write_text(json.dumps([row("pan", 1), row("tilt", 3), row("", 2)]))
    views = {video: recorded_answers(log, video=video).most_views for video in ("pan", "tilt", "renamed")}
    assert views == {"pan": 2, "tilt": 3, "renamed": 3}
    log.write_text('["a lake"]')
    assert recorded_answers(log, video="pan").most_views == 1


def test_groups_are_vspws_or_those_of_a_file(tmp_path: Path) -> None:
    assert groups_of(options(""), VSPW_CLASSES) == VSPW_GROUPS
    with pytest.raises(ConfigError, match="name the look-alike ones with --groups F"):
        groups_of(options(""), ["sky", "river", "lake"])
    (tmp_path / "g.json").write_text(json.dumps([{"noun": "water", "classes": ["river", "lake"]}]))
    found = groups_of(options(f"--groups {tmp_path / 'g.json'}"), ["sky", "river", "lake"])
    assert found == (Group("water", (1, 2)),)


def test_every_view_has_a_question_that_fits_it() -> None:
    assert "magenta outline" in prompt_of(None, view="outline")
    assert "tinted" in prompt_of(None, view="mark")
    assert "in the image" in prompt_of(None, view="frame")
    assert prompt_of("report", view="mark") == prompt_of(None, view="frame")
    assert prompt_of("{classes}?", view="mark") == "{classes}?"
