"""Pickled dicts of NumPy arrays, read without unpickling: the layout of detectron2's ``.pkl`` model files.

A pickle is a program. This one is not run by Python's machine but by a small one that knows numbers, text, plain
containers and arrays, so nothing in a file can name, import or call anything else: what is not on the short list
below ends the reading. Nor does memory grow beyond a few times the file's size, whatever it claims to hold.
"""

from __future__ import annotations

import math
import mmap
import pickletools
import struct
import sys
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.errors import CheckpointError

_NUMBERS = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})
_MAX_AXES = 32
_MARK: Final = object()


class _Refused(Exception):
    """The pickle does something that a dict of arrays needs not do."""


class PickledArray:
    """An array of a pickle: empty until the file has told its shape, type and bytes.

    Attributes:
        array: read-only view of the bytes in the file.
    """

    def __init__(self) -> None:
        self.array: np.ndarray[Any, np.dtype[Any]] = np.empty(0, dtype=np.float32)

    def tensor(self) -> Tensor:
        """A copy as a tensor, in the machine's byte order."""
        native = self.array.dtype.newbyteorder("=")
        return torch.from_numpy(np.array(self.array, dtype=native, order="C"))


def read_array_pickle(path: Path) -> object:
    """What a pickle of plain containers and numeric arrays holds; arrays come as ``PickledArray``.

    Args:
        path: of the file, written by Python 2 or 3 in any pickle protocol.

    Returns:
        Built from None, bool, int, float, str, bytes, list, tuple, dict, set and ``PickledArray``.

    Raises:
        CheckpointError: the file is cut short, no pickle, or names anything but the above (another class or
            function, arrays of Python objects); nothing in it has been run.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Machine(len(content)).run(content)
    except _Refused as refused:
        raise CheckpointError(
            f"{shown(path)}: refused: {shown(str(refused))}; only arrays of numbers, text and plain containers are "
            "read, and nothing in the file was run"
        ) from None
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        MemoryError,
        struct.error,
        OSError,
    ) as error:
        reason = shown(" ".join(str(error).split()))[:200]
        raise CheckpointError(f"{shown(path)}: cut short or no pickle of arrays ({reason})") from error


class _Type:
    """A NumPy dtype under construction: made from its code, then given its byte order."""

    def __init__(self, code: object) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if text not in _NUMBERS:
            raise _Refused(f"an array of type {str(text)[:20]!r}")
        self.dtype = np.dtype(str(text))

    def set_state(self, state: object) -> None:
        _version, order, subtype, names, fields = _tuple(state)[:5]
        if (subtype, names, fields) != (None, None, None):
            raise _Refused("an array of records")
        big = order in (">", b">") or (order in ("=", b"=") and sys.byteorder == "big")
        self.dtype = self.dtype.newbyteorder(">" if big else "<")


class _Machine:
    """Stack, memo and the operations of a pickle that build plain data."""

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        # Bytes that calls may still make, so that a short pickle cannot grow without end. Honest ones make each
        # byte twice: text into bytes, bytes into an array.
        self.budget = 4 * size

    def run(self, content: mmap.mmap) -> object:
        for opcode, argument, _ in pickletools.genops(content):  # type: ignore[arg-type]  # needs read, readline, tell
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _LITERALS:
                self.stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name]())
            elif opcode.name in _OPERATIONS:
                _OPERATIONS[opcode.name](self, argument)
            else:
                raise _Refused(f"it holds the operation {opcode.name}")
        raise ValueError("no end")  # pragma: no cover - genops raises first

    def pop_to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise ValueError("no mark")

    def spend(self, count: int) -> None:
        self.budget -= count
        if self.budget < 0:
            raise _Refused("it makes more data than the file holds")

    def name(self, module: object, name: object) -> None:
        made = _NAMES.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if made is None:
            raise _Refused(f"it names {str(module)[:60]}.{str(name)[:60]}")
        self.stack.append(made)

    def call(self) -> None:
        arguments, function = _tuple(self.stack.pop()), self.stack.pop()
        if not isinstance(function, _Name):
            raise _Refused("it calls something that is no function")
        self.stack.append(function.make(self, *arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Type):
            target.set_state(state)
        elif isinstance(target, PickledArray):
            *_, shape, kind, is_fortran, raw = _tuple(state)
            target.array = self.array(raw, kind, shape, order="F" if is_fortran else "C")
        else:
            raise _Refused("it sets the state of something that is no array")

    def array(self, raw: object, kind: object, shape: object, *, order: str) -> np.ndarray[Any, np.dtype[Any]]:
        sizes = _tuple(shape)
        if isinstance(raw, str):  # Python 2 wrote bytes as text
            raw = raw.encode("latin-1")
        if not isinstance(raw, (bytes, bytearray)) or not isinstance(kind, _Type):
            raise _Refused("an array of Python objects")
        if len(sizes) > _MAX_AXES or not all(type(size) is int and size >= 0 for size in sizes):
            raise ValueError("an array has no such shape")
        if math.prod(sizes) * kind.dtype.itemsize != len(raw):
            raise ValueError(f"an array of shape {sizes} has {len(raw)} bytes")
        self.spend(len(raw))
        flat = np.frombuffer(raw, dtype=kind.dtype) if raw else np.empty(0, dtype=kind.dtype)
        return flat.reshape(sizes, order="F" if order == "F" else "C")


class _Name:
    """A class or function that a pickle may name, and what calling it makes here."""

    def __init__(self, make: Callable[..., object]) -> None:
        self.make = make


def _tuple(value: object) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise ValueError("a tuple was expected")
    return value


def _key(value: object) -> Hashable:
    # Hashing a deep tuple overflows the C stack, and a huge integer takes long: names and numbers suffice.
    if isinstance(value, (str, bytes, float, bool, type(None))) or (type(value) is int and value.bit_length() <= 64):
        return value
    raise _Refused(f"a key of type {type(value).__name__}")


def _reconstruct(machine: _Machine, kind: object, *_: object) -> PickledArray:
    if kind is not _ARRAY:
        raise _Refused("it makes an array of a class that is not NumPy's")
    return PickledArray()


def _from_buffer(machine: _Machine, raw: object, kind: object, shape: object, order: object = "C") -> PickledArray:
    made = PickledArray()
    made.array = machine.array(raw, kind, shape, order=str(order))
    return made


def _scalar(machine: _Machine, kind: object, raw: object) -> object:
    return machine.array(raw, kind, (1,), order="C").item()


def _encode(machine: _Machine, text: object, encoding: object = "latin-1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1"):
        raise _Refused("it encodes something that is no text")
    machine.spend(len(text))
    return text.encode("latin-1")


def _bytes(machine: _Machine, *arguments: object) -> bytes:
    if arguments:
        raise _Refused("it makes bytes")
    return b""


def _set(machine: _Machine, items: object = ()) -> set[Hashable]:
    if not isinstance(items, (list, tuple)):
        raise _Refused("it makes a set of something that is no list")
    machine.spend(len(items))
    return {_key(item) for item in items}


def _frozen_set(machine: _Machine, items: object = ()) -> frozenset[Hashable]:
    return frozenset(_set(machine, items))


def _dict(machine: _Machine, *arguments: object) -> dict[Hashable, object]:
    if arguments:
        raise _Refused("it makes a dict by a call")
    return {}


def _set_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError("items for no dict")
    target.update({_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)})


def _append(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, list):
        raise ValueError("items for no list")
    target.extend(items)


def _add(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, set):
        raise ValueError("items for no set")
    target.update(_key(item) for item in items)


def _collect(machine: _Machine, count: int) -> None:
    items = machine.stack[-count:]
    if len(items) < count or any(item is _MARK for item in items):
        raise ValueError("too few items")
    machine.stack[-count:] = [tuple(items)]


def _new_dict(machine: _Machine) -> None:
    items = machine.pop_to_mark()
    machine.stack.append({})
    _set_items(machine, items)


_ARRAY = _Name(_dict)
_NAMES: dict[tuple[str, str], _Name] = {
    ("numpy", "ndarray"): _ARRAY,
    ("numpy", "dtype"): _Name(lambda machine, code, *_: _Type(code)),
    ("collections", "OrderedDict"): _Name(_dict),
    ("_codecs", "encode"): _Name(_encode),
    **{(module, "bytes"): _Name(_bytes) for module in ("builtins", "__builtin__")},
    **{(module, "set"): _Name(_set) for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): _Name(_frozen_set) for module in ("builtins", "__builtin__")},
    **{(module, "bytearray"): _Name(_bytes) for module in ("builtins", "__builtin__")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Name(_reconstruct) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Name(_scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Name(_from_buffer) for core in ("core", "_core")},
}
"""What a pickle may name, and what stands for it here."""

_LITERALS = frozenset(
    {
        *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
_OPERATIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: _collect(machine, 1),
    "TUPLE2": lambda machine, _: _collect(machine, 2),
    "TUPLE3": lambda machine, _: _collect(machine, 3),
    "DICT": lambda machine, _: _new_dict(machine),
    "FROZENSET": lambda machine, _: machine.stack.append(frozenset(map(_key, machine.pop_to_mark()))),
    "APPEND": lambda machine, _: _append(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.pop_to_mark()),
    "SETITEM": lambda machine, _: _set_items(machine, [machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: _add(machine, machine.pop_to_mark()),
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    **{
        name: lambda machine, index: machine.memo.__setitem__(index, machine.stack[-1])
        for name in ("PUT", "BINPUT", "LONG_BINPUT")
    },
    **{
        name: lambda machine, index: machine.stack.append(machine.memo[index])
        for name in ("GET", "BINGET", "LONG_BINGET")
    },
    "GLOBAL": lambda machine, names: machine.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(machine.stack.pop(-2), machine.stack.pop()),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
