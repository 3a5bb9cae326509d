"""The page as a file: self-contained, escaped, bounded, the same bytes for the same inputs."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.report import PageVideo, write_page

NAMES = ("sky", "sea", "lake")
COLOURS = torch.tensor([[200, 0, 100], [10, 10, 30], [250, 250, 200]], dtype=torch.uint8)
EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>&\"'"


def video(t: int = 3, *, name: str = "clip", **other: Any) -> PageVideo:
    generator = torch.Generator().manual_seed(t)
    frames = torch.randint(0, 256, (t, 3, 12, 20), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (t, 12, 20), generator=generator)
    values = {"predictions": {"plain": labels, "MVC": labels.roll(1, 2)}, "labels": labels} | other
    return PageVideo(name=name, frames=frames, **values)


def page(tmp_path: Path, *videos: PageVideo, **other: Any) -> str:
    values = {"title": "A title", "videos": videos or (video(),), "class_names": NAMES, "colours": COLOURS} | other
    return write_page(tmp_path / "page.html", **values).read_text(encoding="utf-8")


def data_of(html: str) -> dict[str, Any]:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, flags=re.DOTALL)
    assert block is not None
    data: dict[str, Any] = json.loads(block[1])
    return data


class Elements(HTMLParser):
    """Tags, attributes and text outside script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    assert page(tmp_path / "a", video()) == page(tmp_path / "b", video())


def test_nothing_in_the_page_points_outside(tmp_path: Path) -> None:
    html = page(tmp_path, curves={"loss": [(1, 2.0), (2, 1.0)]}, notes=["a note"])
    links = [
        value
        for _, attributes in Elements(html).tags
        for name, value in attributes.items()
        if name in ("src", "href", "action", "data", "srcset")
    ]
    assert set(links) <= {"data:,", "#viewer"}
    addresses = set(re.findall(r"https?://[^\s\"'<>;]+", html))
    # the name of a language and where the chart library comes from, no addresses that are asked
    assert addresses <= {"http://www.w3.org/2000/svg", "https://github.com/leeoniya/uPlot"}
    assert "@import" not in html
    assert "url(" not in html


def test_the_policy_allows_the_pages_own_script_and_nothing_from_outside(tmp_path: Path) -> None:
    html = page(tmp_path)
    policy = next(a["content"] for tag, a in Elements(html).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    allowed = re.findall(r"'(sha256-[A-Za-z0-9+/]{43}=)'", policy)
    scripts = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert allowed == [f"sha256-{digest}" for digest in digests]
    assert len(scripts) == 2


def test_text_from_outside_is_text(tmp_path: Path) -> None:
    change = {"frames": [0, 1], "region": [0, 0, 4, 4], "from": EVIL, "to": EVIL + "2", "question": EVIL}
    evil = video(
        name=EVIL,
        predictions={EVIL: torch.zeros(3, 12, 20, dtype=torch.int64)},
        frame_names=[EVIL] * 3,
        changes=[{**change, "answer": EVIL, "reason": EVIL}],
    )
    html = page(
        tmp_path,
        evil,
        evil,
        title=EVIL,
        class_names=(EVIL, "b", "c"),
        scores=[{EVIL: EVIL, EVIL + "mIoU": 0.5}],
        class_iou={EVIL: [0.1, 0.2, 0.3]},
        curves={EVIL: [(0, 1.0), (1, 2.0)]},
        notes=[EVIL],
    )
    elements = Elements(html)
    assert sum(tag == "script" for tag, _ in elements.tags) == 3
    assert not any(tag == "img" for tag, _ in elements.tags)
    assert not any(name.startswith("on") for _, attributes in elements.tags for name in attributes)
    assert data_of(html)["classes"][0]["name"] == EVIL
    assert sum(EVIL in text for text in elements.text) >= 9


def test_names_that_are_no_utf8_can_be_written(tmp_path: Path) -> None:
    html = page(tmp_path, video(name="clip\udcff", frame_names=["a\x00", "b\udc80", "c"]))
    assert "clip\\udcff" in html
    assert data_of(html)["videos"][0]["frameNames"][0] == "a\\x00"


def test_the_script_finds_what_it_needs_of_each_video(tmp_path: Path) -> None:
    item = data_of(page(tmp_path, video(fps=7.5, frame_names=["a", "b", "c"])))["videos"][0]
    assert [each["name"] for each in item["maps"]] == ["ground truth", "plain", "MVC"]
    assert [each["truth"] for each in item["maps"]] == [True, False, False]
    assert (item["width"], item["height"], item["total"], item["fps"]) == (20, 12, 3, 7.5)
    assert item["present"] == [0, 1, 2]


def test_a_video_without_ground_truth_has_none(tmp_path: Path) -> None:
    assert not any(each["truth"] for each in data_of(page(tmp_path, video(labels=None)))["videos"][0]["maps"])


def test_frames_alone_make_a_page(tmp_path: Path) -> None:
    item = data_of(page(tmp_path, video(labels=None, predictions={})))["videos"][0]
    assert (item["maps"], item["present"]) == ([], [])


def test_tables_alone_make_a_page(tmp_path: Path) -> None:
    path = write_page(
        tmp_path / "p.html", title="t", videos=(), class_names=NAMES, colours=COLOURS, scores=[{"a": "b", "mIoU": 0.5}]
    )
    tags = Elements(path.read_text()).tags
    assert any(tag == "table" for tag, _ in tags)
    assert not any(attributes.get("id") == "viewer" for _, attributes in tags)


def test_a_long_video_is_sampled_and_the_page_knows(tmp_path: Path) -> None:
    item = data_of(page(tmp_path, video(40), max_frames=5))["videos"][0]
    assert (len(item["images"]), item["total"], item["positions"][-1]) == (5, 40, 39)


def test_changes_are_listed_with_question_answer_and_outcome(tmp_path: Path) -> None:
    asked = {"frames": [1, 2], "region": [2, 3, 8, 9], "from": "sea", "to": "lake", "question": "Q?", "answer": "A."}
    failed = {"frames": (0, 0), "region": None, "from": 1, "to": None, "question": "Q2?", "answer": None}
    rows = [
        asked | {"status": "changed"},
        failed | {"status": "failed", "reason": "timed out"},
        {"frames": [0, 2], "from": "sea", "to": "sea", "status": "confirmed"},
    ]
    html = page(tmp_path, video(changes=rows))
    jumps = [attributes for tag, attributes in Elements(html).tags if attributes.get("class") == "jump"]
    assert [each["data-box"] for each in jumps] == ["2,3,8,9", "", ""]
    assert [each["data-at"] for each in jumps] == ["1", "0", "0"]
    for text in ("Frames 2–3", "Frame 1<", "timed out", "no answer, kept", "confirmed", "Q2?"):
        assert text in html
    assert "1 region changed" in html


def test_rows_without_a_status_say_by_their_classes_whether_they_changed(tmp_path: Path) -> None:
    rows = [{"frames": (0, 0), "from": 0, "to": 1}, {"frames": (0, 0), "from": 2, "to": 2}]
    assert "1 region changed" in page(tmp_path, video(changes=rows))


def still(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(source), 2, *source.shape[2:])


def test_with_a_flow_every_map_has_its_flicker_and_the_page_a_place_for_it(tmp_path: Path) -> None:
    html = page(tmp_path, video(flow=still), video())
    first, second = data_of(html)["videos"]
    assert all(each["flicker"] for each in first["maps"])
    assert [each["flicker"] for each in second["maps"]] == [None, None, None]
    assert 'id="heat"' in html
    assert 'id="heat"' not in page(tmp_path, video())


def test_what_it_says_in_short_stands_on_top(tmp_path: Path) -> None:
    html = page(tmp_path, headline=["MVC is steadier.", EVIL], scores=[{"a": "x", "mIoU": 0.5}])
    text = [each.strip() for each in Elements(html).text if each.strip()]
    assert text.index("In short") < text.index("MVC is steadier.") < text.index("Scores")
    assert EVIL in text
    assert "In short" not in page(tmp_path)


def test_worst_clips_lead_to_their_frames(tmp_path: Path) -> None:
    row = {"video": "b", "prediction": "MVC", "frames": (1, 2), "measure": "VC8", "score": 0.5}
    html = page(tmp_path, video(name="a"), video(name="b"), worst=[row] * 11)
    jumps = [attributes for tag, attributes in Elements(html).tags if attributes.get("class") == "jump"]
    assert len(jumps) == 11
    expected = {"data-video": "1", "data-first": "1", "data-last": "2", "data-prediction": "MVC"}
    assert expected.items() <= jumps[0].items()
    assert "Show all 11" in html
    assert "Show all" not in page(tmp_path, worst=[row | {"video": "clip"}] * 10)


def test_scores_classes_curves_and_notes_are_printed(tmp_path: Path) -> None:
    html = page(
        tmp_path,
        scores=[{"step": "plain", "mIoU": 0.5}, {"step": "MVC", "mIoU": 0.625}],
        class_iou={"plain": [0.5, math.nan, 0.25]},
        curves={"loss": [(1, 2.0), (2, 1.0)], "empty": []},
        notes=["Seen on one video."],
    )
    for text in ("62.50", "+12.50", "25.0", "Seen on one video.", "loss: 2 at step 1, 1 at step 2"):
        assert text in html
    assert "empty" not in Elements(html).text


def test_the_steadiness_of_classes_has_a_table_of_its_own(tmp_path: Path) -> None:
    html = page(tmp_path, class_steadiness={"plain": [0.875, math.nan, 0.125]})
    assert "Steadiness of each class" in Elements(html).text
    assert "IoU of each class" not in Elements(html).text
    assert "87.5" in html


def test_frames_of_the_worst_clips_are_in_the_page_of_a_long_video(tmp_path: Path) -> None:
    def positions(*frames: tuple[int, int]) -> list[int]:
        rows = [{"video": "clip", "prediction": "plain", "frames": each, "measure": "VC8"} for each in frames]
        shown: list[int] = data_of(page(tmp_path, video(100), worst=rows, max_frames=20))["videos"][0]["positions"]
        return shown

    assert positions((50, 57), (9, 16)) == [0, 9, 10, *[11, 22, 33], 44, *range(50, 58), 66, 77, 88, 99]
    assert positions() == data_of(page(tmp_path, video(100), max_frames=20))["videos"][0]["positions"]


def picture(folder: Path, number: int) -> Path:
    file = folder / f"{number}.png"
    Image.new("RGB", (12, 8), (number, 0, 0)).save(file)
    return file


def test_pictures_of_a_run_lie_in_the_page_the_last_one_first(tmp_path: Path) -> None:
    html = page(tmp_path, pictures={f"step {number} {EVIL}": picture(tmp_path, number) for number in (1, 2, 3)})
    elements = Elements(html)
    images = [attributes for tag, attributes in elements.tags if tag == "img"]
    assert [(image["width"], image["height"]) for image in images] == [("12", "8")] * 3
    assert all(str(image["src"]).startswith("data:image/webp;base64,") for image in images)
    assert [text[:6] for text in elements.text if text.startswith("step ")] == ["step 3", "step 2", "step 1"]
    order = [tag for tag, attributes in elements.tags if tag == "img" or (tag == "details" and not attributes)]
    assert order == ["img", "details", "img", "img"]


def test_a_page_without_a_video_shows_a_run_and_no_viewer(tmp_path: Path) -> None:
    html = write_page(
        tmp_path / "page.html",
        title="A run",
        videos=[],
        class_names=[],
        colours=torch.empty(0, 3, dtype=torch.uint8),
        curves={"loss": [(1, 2.0), (1500, 1.0)]},
    ).read_text()
    assert "1,500 training steps" in html
    assert "viewer" not in {attributes.get("id") for _, attributes in Elements(html).tags}
    assert "#viewer" not in {attributes.get("href") for _, attributes in Elements(html).tags}


@pytest.mark.parametrize("steps", [(1, math.nan), (1, math.inf)])
def test_steps_that_are_not_finite_are_no_training_steps(tmp_path: Path, steps: tuple[float, ...]) -> None:
    curves = {"loss": [(step, 1.0) for step in steps], "lr": [(7, 1.0)]}
    assert "7 training steps" in page(tmp_path, videos=(), curves=curves)


def test_progress_counts_the_frames_of_all_videos(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    page(tmp_path, video(2), video(4), progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 6) for i in range(1, 7)]


def test_a_failure_leaves_the_older_page(tmp_path: Path) -> None:
    before = page(tmp_path)
    with pytest.raises(ShapeError):
        page(tmp_path, video(labels=torch.zeros(2, 12, 20, dtype=torch.int64)))
    assert (tmp_path / "page.html").read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"class_names": ()}, ConfigError, "at least one class"),
        ({"colours": COLOURS.float()}, DTypeError, "colours: expected uint8"),
        ({"colours": COLOURS[:2]}, ConfigError, r"colours: expected \(3, 3\)"),
        ({"class_iou": {"a": [0.5]}}, ConfigError, "class_iou.'a'.: expected 3 values"),
        ({"class_steadiness": {"a": [0.5]}}, ConfigError, "class_steadiness.'a'.: expected 3 values"),
        ({"scores": [{"a": "x", "b": 0.5}, {"a": "y"}]}, ConfigError, "scores"),
        ({"worst": [{"video": "x", "prediction": "MVC", "frames": (0, 1)}]}, ConfigError, "worst: expected a video"),
        ({"max_frames": 0}, ConfigError, "max_frames: expected an integer of at least 1, got 0"),
        ({"max_bytes": -1}, ConfigError, "max_bytes: expected an integer of at least 1, got -1"),
        ({"max_side": 0}, ConfigError, "max_side: expected an integer of at least 1, got 0"),
        ({"max_side": 16384}, ConfigError, "max_side: expected at most 16383, as WebP has it, got 16384"),
        ({"videos": (), "max_frames": 2.5}, ConfigError, "max_frames"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        page(tmp_path, **change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"frame_names": ["a"]}, ShapeError, "frame_names: expected 3, one a frame, got 1"),
        ({"labels": torch.full((3, 12, 20), 3)}, ConfigError, r"ground truth: expected class ids 0\.\.2 or 255, got 3"),
        ({"predictions": {"ground truth": torch.zeros(3, 12, 20)}}, ConfigError, "is taken"),
        ({"changes": [{"from": 1}]}, ConfigError, "changes: expected frames"),
        *[
            ({"fps": fps}, ConfigError, "fps: expected a finite number above 0, or None, got")
            for fps in (0, -5.0, math.nan, math.inf, "x")
        ],
    ],
)
def test_a_video_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        page(tmp_path, video(**change))


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(DataError, match=r"page\.html"):
        page(tmp_path)
