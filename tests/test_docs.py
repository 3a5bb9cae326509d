"""The blocks of the README and of every page run, top to bottom, and links between pages lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from chat_server import ChatServer

from mvcseg.cli import build_parser

ROOT = Path(__file__).parent.parent
HOWTO = sorted((ROOT / "docs" / "howto").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *HOWTO]
BLOCK = re.compile(r"^```(?P<language>[\w-]+)\n(?P<code>.*?)^```", flags=re.MULTILINE | re.DOTALL)
SERVER = "http://localhost:8000/v1"
"""Where the pages say that a vision-language model listens."""


def blocks_of(page: Path, *languages: str) -> list[tuple[int, str, str]]:
    """Line number, language and code of every block in one of these languages."""
    text = page.read_text()
    return [
        (text[: match.start("code")].count("\n"), match["language"], match["code"])
        for match in BLOCK.finditer(text)
        if match["language"] in languages
    ]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in HOWTO and blocks_of(page, "python")], ids=lambda page: page.name
)
def test_the_python_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, object] = {"__name__": "__page__"}
    for line, _, code in blocks_of(page, "python"):
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", HOWTO, ids=lambda page: page.name)
def test_a_how_to_page_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat_server: ChatServer
) -> None:
    chat_server.script = [chat_server.answers("The water in the image is a lake.")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    namespace: dict[str, object] = {"__name__": "__page__"}
    for line, language, code in blocks_of(page, "python", "bash"):
        if language == "python":
            exec(compile("\n" * line + code, str(page), "exec"), namespace)
            continue
        # the port is the one thing that is not as printed: 8000 may be taken
        script = f"set -euo pipefail\n{code.replace(SERVER, chat_server.url)}"
        ended = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, f"{page.name}:{line}\n{ended.stdout}\n{ended.stderr}"


@pytest.mark.parametrize("page", HOWTO, ids=lambda page: page.name)
def test_scripts_for_a_scheduler_are_bash(page: Path) -> None:
    for line, _, code in blocks_of(page, "sh"):
        read = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True)
        assert read.returncode == 0, f"{page.name}:{line}\n{read.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_command_lines_of_a_page_are_understood(page: Path) -> None:
    for line, arguments in command_lines(page):
        try:
            build_parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{page.name}:{line}: mvcseg {shlex.join(arguments)}")


def command_lines(page: Path) -> list[tuple[int, list[str]]]:
    """Line number and arguments of every ``mvcseg`` command in the page's shell blocks."""
    found = []
    for first, language, code in blocks_of(page, "bash", "console", "sh"):
        lines = re.sub(r"\\\n", "  ", code).splitlines()
        if language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        for number, line in enumerate(lines):
            if re.search(r"(^|[^\w'])mvcseg [a-z]", line):
                found += [(first + number, arguments) for arguments in calls_in(filled(line))]
    return found


def filled(line: str) -> str:
    """A line with something in the place of variables and of words in angle brackets."""
    return re.sub(r"\$\w+|<\w+>", "1", line)


def calls_in(line: str) -> list[list[str]]:
    """The arguments of each call of ``mvcseg`` or ``python -m mvcseg`` in a line of a shell."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    calls: list[list[str]] = [[]]
    for word in words:
        calls += [[]] if set(word) <= set("&|;") else []
        calls[-1] += [] if set(word) <= set("&|;") else [word]
    until = [call[: call.index(">")] if ">" in call else call for call in calls]
    return [
        call[at + 1 :]
        for call in until
        for at, word in enumerate(call)
        if word == "mvcseg" and (at == 0 or call[at - 1] in ("-m", "do"))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)|(?:src|href)=\"([^\"#]+)\"", page.read_text())
    missing = [
        target
        for target in (first or second for first, second in targets)
        if not target.startswith(("http://", "https://", "mailto:")) and not (page.parent / target).exists()
    ]
    assert missing == []
