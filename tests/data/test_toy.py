from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvcseg.data.toy import DEFAULT_VIDEOS, Camera, render, write_toy_set
from mvcseg.data.toy_parts import OUTLINES, cut_out, ground, photograph, tile, tint
from mvcseg.data.toy_scene import CLASS_NAMES, KINDS, Canvas, Layer, Thing, build_scene
from mvcseg.errors import ConfigError, DataError

SIZE = (48, 72)


@pytest.fixture(scope="module")
def val_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_set(tmp_path_factory.mktemp("toy") / "set", videos={"val": 8}, frames=4)


def files(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def masks(root: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(root.glob("data/*/mask/*.png"))])


def still_camera(frames: int = 1, *, centre: tuple[float, float] = (0, 0)) -> Camera:
    return Camera(
        centre=np.tile(np.array([centre], dtype=np.float32), (frames, 1)),
        zoom=np.ones(frames, dtype=np.float32),
        gain=np.ones((frames, 3), dtype=np.float32),
        blur=np.zeros(frames, dtype=np.float32),
        noise=0.0,
    )


def box(*, foot: tuple[float, float], raw_id: int = 8, sway: float = 0.0) -> Thing:
    """A red box 8 x 4 frame pixels large (w x h)."""
    texture = np.zeros((8, 16, 3), dtype=np.uint8)
    texture[..., 0] = 200
    return Thing(texture, np.full((8, 16), 255, np.uint8), raw_id, 1.0, foot, (3.0, 0.0), (sway, 4.0))


def backdrop(canvas: Canvas, *, raw_id: int = 1, below: int | None = None, parallax: float = 1.0) -> Layer:
    opacity = np.full(canvas.shape, 255, dtype=np.uint8)
    if below is not None:
        opacity[: int(canvas.row(0)) + 2 * below] = 0
    texture = np.full((*canvas.shape, 3), 40 * raw_id, dtype=np.uint8)
    return Layer(texture, opacity, raw_id, parallax)


def test_the_layout_is_vspw(val_set: Path) -> None:
    names = (val_set / "val.txt").read_text().split()
    assert names == sorted(path.name for path in (val_set / "data").iterdir())
    assert [name.rsplit("_", 1)[1] for name in names] == [*KINDS, *KINDS]
    assert json.loads((val_set / "label_num_dic_final.json").read_text()) == {
        "others": "0",
        **{name: str(k + 1) for k, name in enumerate(CLASS_NAMES)},
    }
    for name in names:
        origins = sorted((val_set / "data" / name / "origin").iterdir())
        assert [path.name for path in origins] == [f"{i:08d}.jpg" for i in range(4)]
        assert [path.stem for path in sorted((val_set / "data" / name / "mask").iterdir())] == [
            path.stem for path in origins
        ]
        with Image.open(origins[0]) as image:
            assert (image.mode, image.size) == ("RGB", (160, 96))


def test_masks_hold_every_class_and_void_and_nothing_else(val_set: Path) -> None:
    stored = masks(val_set)
    assert stored.shape == (32, 96, 160)
    assert set(np.unique(stored)) == set(range(len(CLASS_NAMES) + 1))
    assert (stored == 0).mean() < 0.03


def test_a_water_scene_holds_one_water(val_set: Path) -> None:
    waters = {"sea", "river", "lake"}
    for name in (val_set / "val.txt").read_text().split():
        stored = np.stack([np.asarray(Image.open(path)) for path in (val_set / "data" / name / "mask").iterdir()])
        seen = {CLASS_NAMES[value - 1] for value in np.unique(stored) if value} & waters
        assert seen == ({name.rsplit("_", 1)[1]} & waters)


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    first, again, other = (
        files(write_toy_set(tmp_path / name, seed=seed, videos={"val": 2}, frames=2, size=SIZE))
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert first == again
    assert all(first[name] != other[name] for name in first if name.startswith("data/"))


def test_a_video_depends_on_no_other_video_or_split(tmp_path: Path) -> None:
    alone = files(write_toy_set(tmp_path / "a", videos={"val": 1}, frames=2, size=SIZE))
    among = files(write_toy_set(tmp_path / "b", videos={"train": 1, "val": 2}, frames=2, size=SIZE))
    data = [name for name in alone if name.startswith("data/")]
    assert data
    assert all(alone[name] == among[name] for name in data)


def test_train_and_val_draw_different_scenes(tmp_path: Path) -> None:
    root = write_toy_set(tmp_path / "a", videos={"train": 1, "val": 1}, frames=1, size=SIZE)
    first, second = masks(root)
    assert (first != second).any()


def test_train_and_val_share_no_texture_pixel() -> None:
    picture = photograph("gravel")
    near, far = (
        tile("gravel", far_half=far_half, shape=(512, 256), zoom=1.0, offset=(0, 0)) for far_half in (False, True)
    )
    np.testing.assert_allclose(near * 255, picture[:, :256], atol=1e-4)
    np.testing.assert_allclose(far * 255, picture[:, 256:], atol=1e-4)


def test_the_three_waters_differ_in_shores_only() -> None:
    scenes = {
        kind: build_scene(kind, Canvas(*SIZE), far_half=False, rng=np.random.default_rng(5))
        for kind in ("sea", "river", "lake")
    }
    sky, water = zip(*(scene[:2] for scene in scenes.values()), strict=True)
    for layers in (sky, water):
        for layer in layers[1:]:
            assert isinstance(layer, Layer)
            np.testing.assert_array_equal(layer.texture, layers[0].texture)
            np.testing.assert_array_equal(layer.opacity, layers[0].opacity)
            assert getattr(layer, "drift", None) == layers[0].drift
    assert [layer.raw_id for layer in water] == [CLASS_NAMES.index(kind) + 1 for kind in scenes]


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    photograph.cache_clear()
    for name in ("astronaut", "coffee", "chelsea", "rocket", "brick", "grass", "gravel"):
        assert photograph(name).dtype == np.uint8


def test_a_box_is_labelled_where_it_is_drawn() -> None:
    height, width = SIZE
    items = [backdrop(Canvas(*SIZE)), box(foot=(0, 0))]
    frame, mask = render(items, still_camera(), index=0, size=SIZE, rng=np.random.default_rng(0))
    expected = np.ones(SIZE, dtype=np.uint8)
    expected[height // 2 - 4 : height // 2, width // 2 - 4 : width // 2 + 4] = 8
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(frame[mask == 8], np.broadcast_to([200, 0, 0], (32, 3)))
    np.testing.assert_array_equal(frame[mask == 1], np.broadcast_to([40, 40, 40], (height * width - 32, 3)))


def test_a_partly_covered_pixel_of_a_thing_is_void() -> None:
    height, width = SIZE
    items = [backdrop(Canvas(*SIZE)), box(foot=(0.5, 0))]
    _, mask = render(items, still_camera(), index=0, size=SIZE, rng=np.random.default_rng(0))
    row = mask[height // 2 - 2]
    np.testing.assert_array_equal(row[width // 2 - 5 : width // 2 + 6], [1, 0, *[8] * 7, 0, 1])


def test_things_move_and_the_camera_moves_against_them() -> None:
    canvas = Canvas(*SIZE)
    items = [backdrop(canvas), backdrop(canvas, raw_id=2, below=6, parallax=0.5), box(foot=(0, 0))]
    camera = still_camera(3, centre=(10, 4))
    _, mask = render(items, camera, index=2, size=SIZE, rng=np.random.default_rng(0))
    rows, columns = np.nonzero(mask == 8)
    assert (columns.min(), rows.max()) == (SIZE[1] // 2 - 4 + 6 - 10, SIZE[0] // 2 - 1 - 4)
    assert np.nonzero(mask == 2)[0].min() == SIZE[0] // 2 + 6 - 4


def test_the_frontmost_of_two_layers_takes_the_pixel() -> None:
    canvas = Canvas(*SIZE)
    items = [backdrop(canvas, raw_id=3), box(foot=(0, 0)), backdrop(canvas, raw_id=5, below=-2)]
    _, mask = render(items, still_camera(), index=0, size=SIZE, rng=np.random.default_rng(0))
    assert (mask[SIZE[0] // 2 - 2 :] == 5).all()
    assert (mask == 8).sum() == 16


@pytest.mark.parametrize("name", OUTLINES)
def test_a_cut_out_is_cropped_to_its_outline(name: str) -> None:
    picture, opacity = cut_out(name)
    assert picture.shape == (*opacity.shape, 3)
    inside = opacity > 127
    assert 0.5 < inside.mean() < 1
    assert inside.any(axis=0)[2:-2].all()
    assert inside.any(axis=1)[2:-2].all()


def test_ground_is_finer_towards_the_horizon() -> None:
    surface = ground("gravel", far_half=False, shape=(200, 300), horizon=20.0, zoom=2.0, stretch=1.0)
    crossings = (np.diff(np.sign(surface - surface.mean(axis=1, keepdims=True)), axis=1) != 0).sum(axis=1)
    assert crossings[50:80].mean() > 1.3 * crossings[-30:].mean()


def test_tint_runs_from_dark_to_light() -> None:
    surface = np.linspace(0.2, 0.6, 64, dtype=np.float32).reshape(8, 8)
    coloured = tint(surface, dark=np.float32([20, 50, 80]) / 255, light=np.float32([230, 200, 180]) / 255)
    np.testing.assert_array_equal(coloured[0, 0], [20, 50, 80])
    np.testing.assert_array_equal(coloured[-1, -1], [230, 200, 180])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"videos": {"valid": 1}}, r"videos: expected splits out of train, val, test, got 'valid'"),
        ({"videos": {"val": -1}}, r"videos: expected numbers of at least 0, got -1 for val"),
        ({"frames": 0}, r"frames: expected an integer of at least 1, got 0"),
        ({"seed": -1}, r"seed: expected an integer of at least 0, got -1"),
        ({"size": (96, 31)}, r"size: expected \(height, width\) of at least 32 pixels each, got \(96, 31\)"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_toy_set(tmp_path / "toy", **arguments)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_a_folder_in_use_is_refused_and_an_empty_one_taken(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(DataError, match=r"mine: expected a new or empty folder"):
        write_toy_set(tmp_path / "mine", videos={"val": 1}, frames=1, size=SIZE)
    (tmp_path / "empty").mkdir()
    write_toy_set(tmp_path / "empty", videos={"val": 1}, frames=1, size=SIZE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine"]


def test_a_folder_that_cannot_be_made_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/toy: cannot be written"):
        write_toy_set(tmp_path / "file" / "toy", videos={"val": 1}, frames=1, size=SIZE)


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_toy_set(tmp_path / "toy", videos={"val": 1}, frames=1, size=SIZE)
    assert not any(tmp_path.iterdir())


def test_the_shipped_set_has_eight_validation_videos() -> None:
    assert dict(DEFAULT_VIDEOS) == {"train": 48, "val": 8}


def test_a_far_layer_moves_less_than_the_camera() -> None:
    canvas = Canvas(*SIZE)
    opacity = np.zeros(canvas.shape, dtype=np.uint8)
    opacity[:, int(canvas.origin[0]) :] = 255
    right_half = Layer(np.zeros((*canvas.shape, 3), dtype=np.uint8), opacity, 2, 0.5)
    camera = still_camera(centre=(10, 0))
    _, mask = render([backdrop(canvas), right_half], camera, index=0, size=SIZE, rng=np.random.default_rng(0))
    assert np.nonzero(mask[0] == 2)[0].min() == SIZE[1] // 2 - 5
