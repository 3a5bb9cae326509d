"""docs/reproduce.md, its configurations and the run of its commands in miniature agree."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mvcseg.training import PUBLISHED, read_config

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reproduce.md").read_text()
CONFIGS = sorted((ROOT / "examples" / "reproduce").glob("*-*.json"))
RUN = json.loads((ROOT / "benchmarks" / "results" / "reproduce_miniature.json").read_text())


def lines_of_page() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if re.search(r"\bmvcseg\b", line)]


def test_the_commands_that_were_run_are_those_of_the_page() -> None:
    assert RUN["lines"] == lines_of_page()


def test_every_command_ended_well() -> None:
    assert len(RUN["commands"]) >= len(RUN["lines"])
    assert [row["command"] for row in RUN["commands"] if row["status"] != 0] == []


def test_every_kind_of_command_of_the_page_was_run() -> None:
    kinds = {re.search(r"mvcseg (\w+)", line).group(1) for line in lines_of_page()}  # type: ignore[union-attr]
    run = {re.search(r"mvcseg (\w+)", row["command"]).group(1) for row in RUN["commands"]}  # type: ignore[union-attr]
    assert run == kinds == {"train", "predict", "eval", "select", "correct"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_is_a_published_training_with_what_the_page_says(path: Path) -> None:
    run, stage, backbone = path.stem.split("-")
    config = read_config(path)
    assert config.model == f"vspw_{stage}_{backbone}"
    assert config.steps == PUBLISHED[config.model]["steps"]
    assert config.batch_size * 8 == PUBLISHED[config.model]["batch_size"]
    assert (config.mask is None) == (run == "plain")
    assert bool(config.extra_data) == (run == "trainval")
    before = {"ctvis": None, "online": "ctvis", "offline": "online"}[stage]
    assert config.start_from is not None
    assert before is None or config.start_from == f"runs/{run}-{before}-{backbone}/model.safetensors"
    assert "$run-$stage-$backbone.json --out runs/$run-$stage-$backbone" in PAGE
