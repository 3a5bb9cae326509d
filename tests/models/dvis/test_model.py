from __future__ import annotations

import gc
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_dvis import CLASSES, KINDS, as_input, tiny_dvis, video
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.models.dvis import DVIS
from mvcseg.models.dvis.model import PIXEL_MEAN, PIXEL_STD
from mvcseg.ops.semantic_decoding import strip_labels

TESTS = Path(__file__).parents[2]
TRACKED = [kind for kind in KINDS if kind != "segmenter"]


@pytest.fixture(scope="module")
def online() -> DVIS:
    return tiny_dvis("online")


def test_names_are_those_of_the_parts_and_nothing_else() -> None:
    names = {name.partition(".")[0] for name in tiny_dvis("offline", class_order=range(CLASSES)).state_dict()}
    assert names == {"backbone", "sem_seg_head", "tracker", "refiner"}


def test_the_number_of_classes_is_that_of_the_head() -> None:
    assert tiny_dvis("segmenter").num_classes == CLASSES


def test_frames_are_normalised_in_bytes_and_padded_with_the_mean() -> None:
    frames = torch.full((2, 3, 33, 50), 0.5, dtype=torch.float64)
    images = DVIS.normalise(frames)
    assert images.shape == (2, 3, 64, 64)
    expected = (127.5 - torch.tensor(PIXEL_MEAN, dtype=torch.float64)) / torch.tensor(PIXEL_STD, dtype=torch.float64)
    torch.testing.assert_close(images[1, :, 32, 49], expected, rtol=1e-14, atol=0)
    assert (images[:, :, 33:] == 0).all()
    assert (images[:, :, :, 50:] == 0).all()
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_frames_of_whole_multiples_are_not_padded() -> None:
    assert DVIS.normalise(torch.rand(1, 3, 64, 96)).shape == (1, 3, 64, 96)


@torch.no_grad()
def test_a_score_of_zero_has_a_finite_logarithm(online: DVIS) -> None:
    model = tiny_dvis("online")
    model.tracker.class_embed.bias[:-1] = -1e4  # nothing but "no object"
    logits = model(as_input(video(2)))
    assert logits.isfinite().all()


@torch.no_grad()
def test_weights_in_half_precision_give_scores_in_single(online: DVIS) -> None:
    half = tiny_dvis("online", dtype=torch.bfloat16)
    frames = as_input(video(2))
    scores = half.scores(frames.bfloat16(), output_size=(40, 60))
    assert scores.dtype == torch.float32
    labels = torch.cat(list(half.stream_labels(video(2), clip_length=1)))
    assert (labels == online(frames)[0].argmax(dim=1)).float().mean() > 0.8


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 1, 2, 3, 4, 4), (1, 2, 3, 4, 5, 6)])
def test_an_order_that_is_no_permutation_is_refused(order: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"class_order: expected a permutation of 0\.\.5"):
        tiny_dvis("online", class_order=order)


def test_a_refiner_needs_a_tracker() -> None:
    model = tiny_dvis("offline")
    with pytest.raises(ConfigError, match="refiner: expected a tracker with it"):
        DVIS(model.backbone, model.sem_seg_head, refiner=model.refiner)


@pytest.mark.parametrize("shape", [(3,), (3, 40, 60), (2, 3, 40, 60), (1, 2, 4, 40, 60)])
def test_frames_of_other_axes_are_refused(online: DVIS, shape: tuple[int, ...]) -> None:
    for call in (online, lambda x: online.scores(x, output_size=(4, 4))):
        with pytest.raises(ShapeError, match="frames: expected"):
            call(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 0, 3, 40, 60), (0, 1, 3, 40, 60), (1, 1, 3, 0, 60)])
def test_frames_that_are_none_are_refused(online: DVIS, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="no empty axis"):
        online(torch.zeros(shape))


def test_bytes_are_refused_where_numbers_are_expected(online: DVIS) -> None:
    with pytest.raises(DTypeError, match="frames: expected a floating-point"):
        online(video(1)[None])
    with pytest.raises(DTypeError, match="frames: expected a floating-point"):
        online.scores(video(1)[None], output_size=(4, 4))


@pytest.mark.parametrize("size", [(0, 5), (5, -1)])
def test_an_output_without_pixels_is_refused(online: DVIS, size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="expected an integer of at least 1"):
        online.scores(as_input(video(1)), output_size=size)
    with pytest.raises(ConfigError, match="expected an integer of at least 1"):
        next(online.stream_labels(video(1), clip_length=1, output_size=size))


@pytest.mark.parametrize("name", ["stream", "stream_labels"])
def test_streams_refuse_what_is_no_video(online: DVIS, name: str) -> None:
    stream = getattr(online, name)
    with pytest.raises(ShapeError, match="at least one frame"):
        next(stream(video(1)[:0], clip_length=1))
    with pytest.raises(ShapeError, match="video"):
        next(stream(video(1)[0], clip_length=1))
    with pytest.raises(DTypeError, match="uint8"):
        next(stream(video(1).float(), clip_length=1))
    with pytest.raises(ConfigError, match="clip_length"):
        next(stream(video(1), clip_length=0))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_that_are_no_numbers_are_reported_with_their_frame(kind: str) -> None:
    model = tiny_dvis(kind)
    with torch.no_grad():
        model.sem_seg_head.pixel_decoder.mask_features.bias[0] = torch.nan
    with pytest.raises(DataError, match="NaN in the scores of frame 0; check its weights"):
        list(model.stream_labels(video(2), clip_length=1))


@pytest.mark.parametrize("clip_length", [1, 2, 3])
def test_no_labels_of_a_clip_with_such_scores_are_given(clip_length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(masks: Tensor, table: Tensor, **sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
        labels, _ = strip_labels(masks, table, **sizes)
        decoded.append(len(decoded))
        return labels, torch.tensor(decoded[-1] not in (3, 4))

    decoded: list[int] = []
    monkeypatch.setattr("mvcseg.models.dvis.model.semantic_labels", decode)
    labels = tiny_dvis("segmenter").stream_labels(video(6), clip_length=clip_length)
    for _ in range(3 // clip_length):
        assert len(next(labels)) == clip_length
    with pytest.raises(DataError, match="NaN in the scores of frame 3"):
        next(labels)


@pytest.mark.parametrize(("clip_length", "clips"), [(1, 6), (2, 3), (4, 2)])
def test_whether_scores_are_numbers_is_asked_once_a_clip(
    clip_length: int, clips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvcseg.models.dvis.model.semantic_labels", strip_labels)  # an accelerator's way
    asked = Asked()
    with asked:
        list(tiny_dvis("segmenter").stream_labels(video(6), clip_length=clip_length))
    assert asked.times == clips


class Asked(TorchFunctionMode):
    """How often Python asked a tensor for its value, which waits for an accelerator."""

    times = 0

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.times += func in (Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.item)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", TRACKED)
@pytest.mark.parametrize("name", ["stream", "stream_labels"])
def test_a_missing_spill_folder_is_reported(kind: str, name: str, tmp_path: Path) -> None:
    model = tiny_dvis(kind, spill_folder=tmp_path / "none")
    with pytest.raises(DataError, match=r"spill folder .*none: cannot open a temporary file there"):
        next(getattr(model, name)(video(2), clip_length=1))
    with torch.no_grad(), pytest.raises(DataError, match="spill folder"):
        model(as_input(video(2)))
    assert model(as_input(video(2))).requires_grad  # everything in memory while gradients are recorded


def test_without_a_tracker_nothing_is_spilled(tmp_path: Path) -> None:
    model = tiny_dvis("segmenter", spill_folder=tmp_path / "none")
    assert len(list(model.stream(video(2), clip_length=1))) == 2


def open_files(folder: Path) -> list[int]:
    """Sizes of this process's nameless files in a folder."""
    sizes = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if str(entry.readlink()).startswith(f"{folder}/"):
                sizes.append(entry.stat().st_size)
        except FileNotFoundError:
            continue
    return sizes


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("kind", TRACKED)
def test_the_spill_folder_holds_the_video_while_it_streams_and_nothing_after(kind: str, tmp_path: Path) -> None:
    model = tiny_dvis(kind, spill_folder=tmp_path)
    stream = model.stream(video(4), clip_length=2)
    next(stream)
    (size,) = open_files(tmp_path)
    assert size >= 4 * 16 * 16 * 9 * 4  # frames, mask pixels, queries, bytes
    assert list(tmp_path.iterdir()) == []
    assert len(list(stream)) == 1
    assert open_files(tmp_path) == []
    abandoned = model.stream_labels(video(4), clip_length=1)
    next(abandoned)
    assert len(open_files(tmp_path)) == 1
    del abandoned
    gc.collect()
    assert open_files(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import resource, sys, torch
sys.path.insert(0, sys.argv[1])
from tiny_dvis import tiny_dvis, video
model = tiny_dvis(sys.argv[2], spill_folder=sys.argv[3])
"""


def run_script(body: str, kind: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT + body, str(TESTS), kind, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["online", "offline"])
def test_a_full_disk_is_reported_and_nothing_is_left(kind: str, tmp_path: Path) -> None:
    body = (
        "import signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from mvcseg.errors import DataError\n"
        "try:\n    list(model.stream(video(6), clip_length=2))\n"
        "except DataError as error:\n    print(error)\n"
    )
    output, _ = run_script(body, kind, tmp_path).communicate(timeout=200)
    assert "no room left" in output
    assert "spill_folder=... or the environment variable TMPDIR" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["online", "offline"])
def test_a_kill_leaves_nothing(kind: str, tmp_path: Path) -> None:
    body = (
        "for clip in model.stream(video(6), clip_length=2):\n    print('clip', flush=True)\n    sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT + body, str(TESTS), kind, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "clip\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_the_largest_number_of_classes_is_what_bytes_hold() -> None:
    model = tiny_dvis("segmenter")
    model.sem_seg_head.predictor.class_embed = torch.nn.Linear(32, 257)
    with pytest.raises(ConfigError, match="num_classes: expected an integer from 1 to 255"):
        DVIS(model.backbone, model.sem_seg_head)


def test_frames_in_memory_are_left_as_they_are(online: DVIS) -> None:
    frames: Tensor = as_input(video(2))
    before = frames.clone()
    online(frames)
    assert torch.equal(frames, before)
