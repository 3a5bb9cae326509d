from __future__ import annotations

import builtins
import collections
import os
import pickle
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcseg.errors import CheckpointError
from mvcseg.models.dvis.pickles import PickledArray, read_array_pickle

MODEL = {
    "flat": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "scalar": np.array(5),
    "empty": np.zeros((0, 3), dtype=np.float16),
    "big_endian": np.arange(4).astype(">f4"),
    "strided": np.arange(24, dtype=np.int16).reshape(4, 6).T,
    "bits": np.array([True, False]),
    "bytes": np.arange(256, dtype=np.uint8),
}


def stored(content: bytes, folder: Path) -> Path:
    path = folder / "model.pkl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_come_back_from_every_protocol(protocol: int, tmp_path: Path) -> None:
    plain = {
        "__author__": "someone",
        "numbers": (1, -2.5, None, True, 10**30),
        "nested": [{"a": [1, (2,)]}, [], {}, ()],
        "raw": b"\x00\xff",
        "none": b"",
        "set": {1, 2},
        "frozen": frozenset({"x"}),
        "ordered": collections.OrderedDict(a=1),
    }
    numpy_scalars = {"single": np.float32(0.5), "int": np.int64(3)}
    content = pickle.dumps({"model": MODEL, **plain, **numpy_scalars}, protocol=protocol)
    read = read_array_pickle(stored(content, tmp_path))
    assert isinstance(read, dict)
    assert {name: read[name] for name in plain} == plain
    assert (read["single"], read["int"]) == (0.5, 3)
    for name, array in MODEL.items():
        tensor = read["model"][name].tensor()
        assert tensor.shape == array.shape
        assert tensor.dtype == torch.from_numpy(array.astype(array.dtype.newbyteorder("="))).dtype
        assert np.array_equal(tensor.numpy(), array)


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    """There an array's bytes are a str, and a dict's names too."""
    array = np.array([1.0, -2.0], dtype="<f4")
    raw = array.tobytes()
    content = (
        b"\x80\x02}U\x05model}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tbss."
    )
    assert pickle.loads(content, encoding="latin-1")["model"]["w"].tolist() == array.tolist()  # what is written is real
    read: Any = read_array_pickle(stored(content, tmp_path))
    assert read["model"]["w"].tensor().tolist() == array.tolist()


def test_a_tensor_of_a_pickle_is_a_copy_that_can_be_written(tmp_path: Path) -> None:
    read: Any = read_array_pickle(stored(pickle.dumps({"w": np.ones(3, dtype=np.float32)}), tmp_path))
    tensor = read["w"].tensor()
    tensor.add_(1)
    assert read["w"].tensor().tolist() == [1, 1, 1]
    assert isinstance(read["w"], PickledArray)


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made


def reconstructed(state: Any) -> Any:
    return Call(np.empty(0).__reduce__()[0], np.ndarray, (0,), b"b", state=state)


HOSTILE: dict[str, Any] = {
    "os.system": Call(os.system, "touch ran"),
    "builtins.eval": Call(builtins.eval, "open('ran', 'w')"),
    "builtins.exec": Call(builtins.exec, "open('ran', 'w')"),
    "builtins.getattr": Call(getattr, "text", "upper"),
    "nested in the model": {"model": {"w": np.ones(2), "x": Call(os.system, "touch ran")}},
    "as a key": {("a", 1): 2},
    "numpy.load": Call(np.load, "ran", None, True),
    "numpy.fromfile": Call(np.fromfile, "ran"),
    "a subclass of an array": Call(np.empty(0).__reduce__()[0], np.matrix, (0,), b"b"),
    "an array of objects": np.array([object, None], dtype=object),
    "an array of objects, pickled": np.array([Call(os.system, "touch ran")], dtype=object),
    "an array of records": np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]),
    "an array of text": np.array(["a"]),
    "an array of dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
    "the state of a dict": Call(collections.OrderedDict, state={"clear": 1}),
    "the attributes of a class": Call(type, "X", (), {}),
    "a partial": Call(__import__("functools").partial, os.system, "touch ran"),
    "bytes by number": Call(bytes, 1 << 40),
    "encoding in the shell": Call(__import__("codecs").encode, "x", "rot13"),
    "a tensor": torch.ones(2),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_and_runs_nothing(
    name: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = stored(pickle.dumps(HOSTILE[name], protocol=protocol), tmp_path)
    with pytest.raises(CheckpointError, match=r"refused: .* nothing in the file was run"):
        read_array_pickle(path)
    assert not Path("ran").exists()


BROKEN: dict[str, bytes] = {
    "empty shape for bytes": pickle.dumps(reconstructed((1, (), np.dtype("f4"), False, b"12345678"))),
    "a size beyond the bytes": pickle.dumps(reconstructed((1, (1 << 60,), np.dtype("f4"), False, b"1234"))),
    "a negative size": pickle.dumps(reconstructed((1, (-1,), np.dtype("f4"), False, b""))),
    "a size that is no integer": pickle.dumps(reconstructed((1, (1.0,), np.dtype("f4"), False, b"1234"))),
    "a hundred axes": pickle.dumps(reconstructed((1, (1,) * 100, np.dtype("f4"), False, b"1234"))),
    "bytes that are a list": pickle.dumps(reconstructed((1, (2,), np.dtype("f4"), False, [1, 2]))),
    "a state that is no tuple": pickle.dumps(reconstructed([1])),
    "nothing on the stack": b"\x80\x02.",
    "a memo that is not there": b"\x80\x02h\x05.",
    "no mark": b"\x80\x02t.",
    "items for nothing": b"\x80\x02K\x01K\x02K\x03s.",
    "no end": b"\x80\x02}",
    "bytes longer than the file": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"x.",
    "text longer than the file": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "an operation nobody knows": b"\x80\x02\xff.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent name": b"\x80\x02U\x01aQ.",
    "an instance": b"(ios\nsystem\n.",
    "a call of text": b"\x80\x02U\x01a)R.",
    "a name that is no text": b"\x80\x04K\x01K\x02\x93.",
    "state of a function": b"\x80\x02cnumpy\nndarray\nN}U\x01aK\x01s\x86b.",
    "an array of the class of types": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\n)U\x01b\x87R.",
    "no text at all": b"just some words",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pickle_is_refused_with_the_files_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.pkl: "):
        read_array_pickle(stored(BROKEN[name], tmp_path))


def test_a_short_pickle_cannot_make_much_data(tmp_path: Path) -> None:
    """One long text, encoded again and again from the memo."""
    text = b"a" * 100_000
    encode = b"c_codecs\nencode\nh\x00U\x06latin1\x86R"
    content = b"\x80\x02X" + struct.pack("<I", len(text)) + text + b"q\x00](" + encode * 1000 + b"e\x86."
    with pytest.raises(CheckpointError, match="more data than the file holds"):
        read_array_pickle(stored(content, tmp_path))


def test_a_deep_pickle_ends_with_an_error_or_a_value(tmp_path: Path) -> None:
    deep = b"\x80\x02)" + b"\x85" * 200_000
    assert isinstance(read_array_pickle(stored(deep + b".", tmp_path)), tuple)
    # Hashing it would overflow the stack.
    with pytest.raises(CheckpointError, match="a key of type tuple"):
        read_array_pickle(stored(b"\x80\x02}" + deep[2:] + b"K\x01s.", tmp_path))


def test_a_huge_integer_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a key of type int"):
        read_array_pickle(stored(pickle.dumps({1 << 70: 1}), tmp_path))


def test_names_in_a_message_are_one_printable_line(tmp_path: Path) -> None:
    content = b"\x80\x04\x8c\x09\x1b[31m\r\n\xe2\x80\xae\x8c\x01b\x93."
    with pytest.raises(CheckpointError) as caught:
        read_array_pickle(stored(content, tmp_path))
    assert str(caught.value).isprintable()


WHOLE = pickle.dumps({"model": {"w": np.arange(6.0), "b": np.float32(1)}, "n": [1, "x"]}, protocol=2)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.integers(0, len(WHOLE) - 1).map(lambda end: WHOLE[:end]))
def test_any_bytes_end_in_a_value_or_one_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(content or b"x")
    with suppress(CheckpointError):
        read_array_pickle(path)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_one_changed_byte_ends_in_a_value_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.pkl"
    path.write_bytes(WHOLE[:position] + bytes([byte]) + WHOLE[position + 1 :])
    with suppress(CheckpointError):
        read_array_pickle(path)


def test_reading_takes_time_in_proportion_to_the_file(tmp_path: Path) -> None:
    content = pickle.dumps({f"layer{index}.weight": np.ones(3, dtype=np.float32) for index in range(2000)})
    start = time.perf_counter()
    read_array_pickle(stored(content, tmp_path))
    assert time.perf_counter() - start < 5
