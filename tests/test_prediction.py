"""Predictions on disk: what is written, and that a run may be stopped anywhere."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import mvcseg
from mvcseg.data import LabelFolder, class_colours, open_video, read_classes, read_label_map
from mvcseg.errors import ConfigError, DataError, ShapeError
from mvcseg.ops.resize import resize_frames, resize_scores
from mvcseg.prediction import NamedVideo, Predicted, predict_to_folder, shard
from mvcseg.segmenter import Video
from mvcseg.tta import View, multiscale_flip, vote_labels

K = 5
NAMES = ["road", "sky", "tree", "car", "person"]


class Memory:
    """A video in memory that has a name."""

    def __init__(self, name: str = "clip", frames: int = 7, seed: int = 0, size: tuple[int, int] = (34, 40)) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.frames = torch.randint(0, 256, (frames, 3, *size), dtype=torch.uint8, generator=generator)
        self.name = name
        self.frame_names: Sequence[str] = [f"{index + 3:04d}" for index in range(frames)]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: slice, /) -> Tensor:
        return self.frames[index]


class Toy(torch.nn.Module):
    """A segmenter whose answer depends on all frames of its clip, and which counts its calls."""

    num_classes = K

    def __init__(self, fail_at: int = 10**9) -> None:
        super().__init__()
        self.weight = torch.tensor([[3.0, -2, 1], [-1, 2, -3], [2, 2, -2], [-2, -1, 2], [0, -3, 3]])
        self.calls = 0
        self.fail_at = fail_at

    def forward(self, frames: Tensor, /) -> Tensor:
        self.calls += 1
        if self.calls >= self.fail_at:
            raise KeyboardInterrupt
        mixed = frames + 0.3 * frames.mean(dim=1, keepdim=True) - 0.65
        return torch.einsum("kc, btchw -> btkhw", self.weight, mixed)


class Streaming(Toy):
    """The same with a memory of the whole video."""

    def stream(self, video: Video, /, *, clip_length: int) -> Iterator[Tensor]:
        mean = video[0 : len(video)].float().mean() / 255
        for start in range(0, len(video), clip_length):
            yield self(video[start : start + clip_length][None].float() / 255 - mean)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_toy_uses_every_class_and_minds_its_clip() -> None:
    labels = [mvcseg.predict_labels(Toy(), Memory(), clip_length=length) for length in (1, 3)]
    assert len(labels[0].unique()) == K
    assert not torch.equal(*labels)


def run(out: Path, segmenter: Toy | None = None, *videos: NamedVideo, **options: object) -> Predicted:
    arguments = {"class_names": NAMES, "clip_length": 3, **options}
    return predict_to_folder(videos or (Memory(),), segmenter or Toy(), out=out, **arguments)  # type: ignore[arg-type]


def test_label_maps_are_those_of_predict_labels(tmp_path: Path) -> None:
    first, second = Memory("a"), Memory("b", frames=4, seed=1)
    assert run(tmp_path, None, first, second) == Predicted(videos=2, written=11, kept=0)
    for video in (first, second):
        labels = LabelFolder(tmp_path / video.name, frame_names=video.frame_names)
        assert torch.equal(labels[:].long(), mvcseg.predict_labels(Toy(), video, clip_length=3))
    assert read_classes(tmp_path) == NAMES
    assert not [name for name in contents(tmp_path) if ".part-" in name]


def test_views_vote(tmp_path: Path) -> None:
    views = multiscale_flip((1.0, 1.1))
    run(tmp_path, None, views=views, tie="among-tied")
    expected = vote_labels(Toy(), Memory(), views=views, clip_length=3, tie="among-tied")
    assert torch.equal(LabelFolder(tmp_path / "clip")[:].long(), expected)


def test_short_side_resizes_frames_in_and_probabilities_out(tmp_path: Path) -> None:
    run(tmp_path, None, short_side=51, clip_length=7)
    frames = resize_frames(Memory().frames, size=(51, 60))
    probabilities = Toy()(frames[None].float() / 255).softmax(dim=2)
    expected = resize_scores(probabilities, size=(34, 40)).argmax(dim=2)[0]
    assert torch.equal(LabelFolder(tmp_path / "clip")[:].long(), expected)


def test_the_long_side_caps_the_short_side(tmp_path: Path) -> None:
    run(tmp_path / "capped", None, short_side=51, long_side=50)
    run(tmp_path / "view", None, views=[View(1.25)])
    labels = [LabelFolder(tmp_path / name / "clip")[:] for name in ("capped", "view")]
    assert torch.equal(*labels)


def test_views_scale_from_the_short_side(tmp_path: Path) -> None:
    run(tmp_path, None, short_side=51, views=(View(scale=1.2), View(flip=True)))
    expected = vote_labels(Toy(), Memory(), views=(View(scale=1.8), View(scale=1.5, flip=True)), clip_length=3)
    assert torch.equal(LabelFolder(tmp_path / "clip")[:].long(), expected)


def test_raw_ids_are_one_higher_and_say_so(tmp_path: Path) -> None:
    run(tmp_path / "ids")
    run(tmp_path / "raw", raw_ids=True)
    assert torch.equal(LabelFolder(tmp_path / "raw" / "clip")[:], LabelFolder(tmp_path / "ids" / "clip")[:] + 1)
    with pytest.raises(DataError, match="hold raw ids"):
        read_classes(tmp_path / "raw")
    from PIL import Image

    shown = [Image.open(tmp_path / kind / "clip" / "0003.png").convert("RGB").tobytes() for kind in ("ids", "raw")]
    assert shown[0] == shown[1]


def test_255_classes_leave_no_raw_id_for_void(tmp_path: Path) -> None:
    segmenter = Toy()
    segmenter.num_classes = 255
    with pytest.raises(ConfigError, match="raw_ids: expected at most 254 classes"):
        run(tmp_path, segmenter, class_names=["x"] * 255, raw_ids=True)


def test_a_whole_run_is_not_done_twice(tmp_path: Path) -> None:
    run(tmp_path)
    before = contents(tmp_path)
    segmenter = Toy()
    assert run(tmp_path, segmenter) == Predicted(videos=1, written=0, kept=7)
    assert segmenter.calls == 0
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", [Toy, Streaming])
@pytest.mark.parametrize("views", [None, multiscale_flip((1.0, 1.1), flip=False)])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    tmp_path: Path, kind: type[Toy], views: Sequence[View] | None
) -> None:
    videos = (Memory("a"), Memory("b", seed=1))
    run(tmp_path / "whole", kind(), *videos, views=views)
    for fail_at in (2, 3, 3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", kind(fail_at=fail_at), *videos, views=views)
        assert contents(tmp_path / "cut").items() <= contents(tmp_path / "whole").items()
    run(tmp_path / "cut", kind(), *videos, views=views)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_only_clips_that_lack_a_label_map_are_predicted_again(tmp_path: Path) -> None:
    run(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "clip" / "0007.png").unlink()  # in the second of three clips
    segmenter = Toy()
    assert run(tmp_path, segmenter) == Predicted(videos=1, written=3, kept=4)
    assert segmenter.calls == 1
    assert contents(tmp_path) == before


def test_a_stream_is_whole_or_done_again(tmp_path: Path) -> None:
    run(tmp_path, Streaming())
    before = contents(tmp_path)
    segmenter = Streaming()
    assert run(tmp_path, segmenter) == Predicted(videos=1, written=0, kept=7)
    assert segmenter.calls == 0
    (tmp_path / "clip" / "0007.png").unlink()
    assert run(tmp_path, segmenter) == Predicted(videos=1, written=7, kept=0)
    assert segmenter.calls == 3
    assert contents(tmp_path) == before


def test_progress_counts_frames(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    run(tmp_path, progress=lambda *step: told.append(step))
    assert told == [("clip", 0, 7), ("clip", 3, 7), ("clip", 6, 7), ("clip", 7, 7)]
    (tmp_path / "clip" / "0009.png").unlink()
    told.clear()
    run(tmp_path, progress=lambda *step: told.append(step))
    assert told == [("clip", 6, 7), ("clip", 7, 7)]


KILLED = """
    import os, signal, sys, time
    from pathlib import Path
    import torch
    sys.path.insert(0, sys.argv[1])
    from test_prediction import NAMES, Memory, Toy, Streaming, contents
    from mvcseg.prediction import predict_to_folder

    class Slow:
        num_classes = 5
        def __init__(self): self.toy = Toy()
        def __call__(self, frames):
            time.sleep(0.005)
            return self.toy(frames)

    class SlowStream(Slow):
        def stream(self, video, *, clip_length):
            for logits in Streaming.stream(self.toy, video, clip_length=clip_length):
                time.sleep(0.005)
                yield logits

    torch.set_num_threads(1)
    out = Path(sys.argv[2])
    videos = [Memory("a", frames=20, size=(48, 64)), Memory("b", frames=20, seed=1, size=(48, 64))]

    def run(folder, segmenter):
        predict_to_folder(videos, segmenter, out=folder, class_names=NAMES, clip_length=2)

    for kind in (Slow, SlowStream):
        whole, cut = out / f"whole-{kind.__name__}", out / f"cut-{kind.__name__}"
        midway = 0
        for moment in (0, 1, 3, 6, 11, 17, 22, 27, 33, 39):  # label maps on disk when the kill comes
            child = os.fork()
            if child == 0:
                run(cut, kind())
                os._exit(0)
            while not (cut / "a").exists() or sum(1 for _ in cut.glob("*/[!.]*.png")) < moment:
                time.sleep(0.001)
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            left = {name: data for name, data in contents(cut).items() if ".part-" not in name}
            maps = sum(name.endswith(".png") for name in left)
            midway += 0 < maps < 40 and os.WIFSIGNALED(status)
            (out / f"state-{kind.__name__}-{moment}").mkdir()
            for name, data in left.items():
                target = out / f"state-{kind.__name__}-{moment}" / name
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(data)
        run(cut, kind())
        run(whole, kind())
        expected = contents(whole)
        assert contents(cut) == expected, "resumed and undisturbed runs differ"
        for state in out.glob(f"state-{kind.__name__}-*"):
            assert contents(state).items() <= expected.items(), "a killed run left a file of other bytes"
        print(midway)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    # One interpreter forks every run, so that a kill costs its moment and not an import of PyTorch.
    script = textwrap.dedent(KILLED)
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(int(midway) >= 6 for midway in done.stdout.split()), f"kills that hit a run midway: {done.stdout}"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"clip_length": 4}, "clip_length was 3, is 4"),
        ({"short_side": 40}, "short_side was None, is 40"),
        ({"short_side": 40, "long_side": 45}, "short_side was None, is 40; long_side was None, is 45"),
        ({"long_side": 45}, "long_side was None, is 45"),
        ({"views": [View()]}, "begun with another views and tie"),
        ({"model": "b"}, "model was '', is 'b'"),
    ],
)
def test_other_settings_are_never_mixed_in(tmp_path: Path, options: dict[str, object], told: str) -> None:
    run(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(DataError, match=rf"clip: .*{told}.*choose another output folder"):
        run(tmp_path, **options)
    assert contents(tmp_path) == before


def test_other_classes_or_raw_ids_are_never_mixed_in(tmp_path: Path) -> None:
    run(tmp_path)
    for options in ({"class_names": [*NAMES[:-1], "dog"]}, {"raw_ids": True}):
        with pytest.raises(DataError, match=r"classes\.json: lists other classes"):
            run(tmp_path, **options)


def test_another_video_of_the_name_is_never_mixed_in(tmp_path: Path) -> None:
    run(tmp_path)
    for other in (Memory(seed=1), Memory(frames=8), Memory(size=(40, 34))):
        with pytest.raises(DataError, match="clip: begun with another video; continue"):
            run(tmp_path, None, other)


def test_label_maps_of_unknown_origin_are_never_mixed_in(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "clip" / "extra.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds 1 label maps that are no frame of this video, first extra\.png"):
        run(tmp_path)
    (tmp_path / "clip" / ".mvcseg-run.json").unlink()
    with pytest.raises(DataError, match="clip: holds 8 label maps that no run recorded"):
        run(tmp_path)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    run(tmp_path)
    for text, match in (("{", "expected JSON"), ("[]", "begun with another")):
        (tmp_path / "clip" / ".mvcseg-run.json").write_text(text)
        with pytest.raises(DataError, match=match):
            run(tmp_path)


def test_wrong_arguments_are_named_before_anything_is_written(tmp_path: Path) -> None:
    for options, match in (
        ({"class_names": NAMES[:4]}, "class_names: expected 5 as the segmenter has, got 4"),
        ({"clip_length": 0}, "clip_length: expected an integer of at least 1"),
        ({"short_side": 0}, "short_side: expected an integer of at least 1"),
        ({"views": []}, "views: expected at least one"),
    ):
        with pytest.raises(ConfigError, match=match):
            run(tmp_path, **options)
    assert contents(tmp_path) == {}


def test_names_that_are_no_folders_are_errors(tmp_path: Path) -> None:
    for name in ("", "..", "a/b", "a\0b"):
        with pytest.raises(DataError, match="video name: expected a folder name"):
            run(tmp_path, None, Memory(name))
    with pytest.raises(DataError, match="clip: two videos have this name"):
        run(tmp_path, None, Memory(), Memory())
    video = Memory("twins")
    video.frame_names = ["a"] * 7
    with pytest.raises(DataError, match="twins: expected 7 different frame names, got 1"):
        run(tmp_path, None, video)


def test_an_empty_video_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="video: expected at least one frame"):
        run(tmp_path, None, Memory(frames=0))


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    video = Memory(os.fsdecode(b"caf\xe9"), frames=2)
    video.frame_names = [os.fsdecode(b"\xff1"), "2"]
    run(tmp_path, None, video)
    assert sorted(map(os.fsencode, (tmp_path / video.name).glob("*.png")))[1].endswith(b"/caf\xe9/\xff1.png")
    assert run(tmp_path, None, video).kept == 2


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/classes\.json: cannot be written: "):
        run(tmp_path / "file")
    with pytest.raises(DataError, match=r"/proc/mvcseg/classes\.json: cannot be written: "):
        run(Path("/proc/mvcseg"))


def test_a_disk_that_fills_up_stops_the_run_and_leaves_whole_files(tmp_path: Path) -> None:
    run(tmp_path / "whole", None, Memory(size=(200, 200)))
    run(tmp_path / "full", None, Memory("small", frames=1))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, old[1]))
    try:
        with pytest.raises(DataError, match=r"clip/0\d+\.png: cannot be written: File too large"):
            run(tmp_path / "full", None, Memory(size=(200, 200)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert [name for name in contents(tmp_path / "full" / "clip") if name != ".mvcseg-run.json"] == []
    run(tmp_path / "full", None, Memory(size=(200, 200)))
    assert contents(tmp_path / "full" / "clip") == contents(tmp_path / "whole" / "clip")


def test_a_broken_frame_is_named_and_what_came_before_is_kept(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "clip").mkdir()
    for index, frame in enumerate(Memory().frames):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(tmp_path / "clip" / f"{index}.png")
    (tmp_path / "clip" / "4.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"4\.png"):
        predict_to_folder(
            [open_video(tmp_path / "clip")], Toy(), out=tmp_path / "out", class_names=NAMES, clip_length=3
        )
    assert sorted(path.stem for path in (tmp_path / "out" / "clip").glob("*.png")) == ["0", "1", "2"]


def test_label_maps_are_in_the_classes_colours(tmp_path: Path) -> None:
    from PIL import Image

    run(tmp_path)
    path = tmp_path / "clip" / "0003.png"
    expected = class_colours(NAMES)[read_label_map(path).numpy()]
    assert np.array_equal(np.array(Image.open(path).convert("RGB")), expected)
    colours = [entry["colour"] for entry in json.loads((tmp_path / "classes.json").read_text())["classes"]]
    assert colours == class_colours(NAMES).tolist()


def test_shards_hold_every_item_once() -> None:
    items = list(range(11))
    for count in (1, 3, 4, 20):
        parts = [shard(items, f"{index}/{count}") for index in range(1, count + 1)]
        assert sorted(item for part in parts for item in part) == items
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert shard(items, "1/1") == items


@pytest.mark.parametrize(
    "part", ["0/4", "5/4", "1/0", "1", "/", "a/b", "-1/4", "1/4/2", "1.0/2", " 1/4", "\u00b2/4", ""]
)
def test_another_form_of_shard_is_an_error(part: str) -> None:
    with pytest.raises(ConfigError, match="shard: expected I/N"):
        shard([1, 2], part)
