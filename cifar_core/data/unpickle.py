"""Reads the pickles that CIFAR-10 comes in, and has no means to run anything while doing so.

Python's own unpickler calls whatever a file names; even with a list of allowed names it can be
made to allocate without end (a memo index of four billion, a hash of nested tuples). This one is
a small machine for the part of the language that arrays, dicts, lists, tuples, strings and whole
numbers need, in protocols 0 to 5, as Python 2 and 3 with NumPy 1 and 2 write them. Everything
else is refused. What it uses is bounded by the size of the file and `MAX_OPERATIONS`.

Source: the comments of the standard library's `pickletools`; checked against files that
Python's own pickler wrote.
"""

from __future__ import annotations

import codecs
import enum
import struct
from collections.abc import Callable
from math import prod
from typing import Any, NoReturn

import numpy as np

from cifar_core.errors import DataError, UnsafePickleError

MAX_OPERATIONS = 250_000
"""An official batch takes 20,000 and the wordiest protocol 80,000; more is an attack."""
MAX_BYTES = 128 * 2**20
"""An official batch has 31 MB; written as text by Python 2, about 90 MB."""
MAX_KEYS = 1000
MAX_DIGITS = 20

_DAMAGED = (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error, Warning)


def safe_loads(data: bytes, name: str) -> Any:
    """The value in a pickle: dict, list, tuple, str, bytes, int, bool, None or uint8 array.

    Strings that Python 2 wrote come back as bytes; arrays are read-only views of bytes.

    Args:
        data: the whole file.
        name: the file, for messages.

    Raises:
        UnsafePickleError: the file asks for anything else, or for too much.
        DataError: the file is damaged or cut short.
    """
    if len(data) > MAX_BYTES:
        raise UnsafePickleError(
            f"{name} has {len(data):,} bytes; a batch of CIFAR-10 has about 31 million and at most "
            f"{MAX_BYTES:,} are read."
        )
    machine = _Machine(data, name)
    try:
        return machine.run()
    except _DAMAGED as error:
        raise DataError(
            f"{name} is damaged: it stops making sense near byte {machine.position:,} of {len(data):,} "
            f"({type(error).__name__}). Get it again."
        ) from error


class _Known(enum.Enum):
    """The few names that a batch may mention; each stands for code of ours, none for a callable."""

    RECONSTRUCT = enum.auto()
    FROM_BUFFER = enum.auto()
    ARRAY_TYPE = enum.auto()
    DTYPE = enum.auto()
    ENCODE = enum.auto()
    BYTES = enum.auto()


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _Known.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _Known.RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _Known.FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _Known.FROM_BUFFER,
    ("numpy", "ndarray"): _Known.ARRAY_TYPE,
    ("numpy", "dtype"): _Known.DTYPE,
    ("_codecs", "encode"): _Known.ENCODE,  # how Python 3 writes bytes in protocols 0 to 2
    ("__builtin__", "bytes"): _Known.BYTES,  # and empty ones
    ("builtins", "bytes"): _Known.BYTES,
}


class _UInt8:
    """What `numpy.dtype("u1", ...)` gives: the only element type there is."""


_DTYPE_NAMES = ("u1", "|u1", b"u1", b"|u1")
_DTYPE_STATES = [(3, bar, None, None, None, -1, -1, 0) for bar in ("|", b"|")]


class _Machine:
    """The stack, the marks and the memo of one pickle being read."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.position = 0
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def run(self) -> Any:
        """The value that is on the stack at the end."""
        data, operations = self.data, _OPERATIONS
        for _ in range(MAX_OPERATIONS):
            code = data[self.position]
            self.position += 1
            if code == _STOP:
                return self.stack.pop()
            operation = operations.get(code)
            if operation is None:
                self.refuse(f"uses the operation {bytes([code])!r}")
            operation(self)
        return self.refuse(f"takes more than {MAX_OPERATIONS:,} operations")

    def refuse(self, what: str) -> NoReturn:
        raise UnsafePickleError(
            f"{self.name} {what}, which no batch of CIFAR-10 needs. Nothing of it was run. "
            "Get the file from https://www.cs.toronto.edu/~kriz/cifar.html."
        )

    # -- bytes -----------------------------------------------------------------------------

    def take(self, size: int) -> bytes:
        start, end = self.position, self.position + size
        if end > len(self.data):
            raise IndexError("past the end")
        self.position = end
        return self.data[start:end]

    def number(self, layout: str) -> int:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> bytes:
        end = self.data.index(b"\n", self.position)
        text = self.data[self.position : end]
        self.position = end + 1
        return text

    def charge(self, size: int) -> None:
        """Count bytes that are copied out of others, since a memo can name the same ones again."""
        self.copied += size
        if self.copied > 2 * len(self.data):
            self.refuse("copies its contents again and again")

    # -- stack -----------------------------------------------------------------------------

    def push_mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def push_tuple(self, size: int) -> None:
        if len(self.stack) < size:
            raise IndexError("too few values")
        self.stack[-size:] = [tuple(self.stack[-size:])]

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError("not a list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise TypeError("not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys may take for ever to hash: nested tuples, or numbers chosen to collide.
            if type(key) not in (str, bytes):
                self.refuse("has keys that are not text")
            target[key] = value
        if len(target) > MAX_KEYS:
            self.refuse(f"has a dict of more than {MAX_KEYS:,} entries")

    # -- names and calls -------------------------------------------------------------------

    def push_name(self, module: Any, name: Any) -> None:
        known = _NAMES.get((module, name)) if type(module) is type(name) is str else None
        if known is None:
            self.refuse(f"asks for {str(module)[:60]!r} {str(name)[:60]!r}")
        self.stack.append(known)

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Known or type(arguments) is not tuple:
            self.refuse("makes a call")
        call = _CALLS.get(function)
        if call is None:
            self.refuse("calls numpy.ndarray")
        self.stack.append(call(self, *arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is _UInt8:
            if not any(_same(state, allowed) for allowed in _DTYPE_STATES):
                self.refuse("has an array of something else than uint8")
        elif type(target) is np.ndarray:
            _fill(self, target, state)
        else:
            self.refuse("sets the state of an object")


def _same(state: Any, allowed: tuple[Any, ...]) -> bool:
    """Equality that looks at flat values only: comparing nested ones can take for ever."""
    if type(state) is not tuple or len(state) != len(allowed):
        return False
    return all(type(a) is type(b) and a == b for a, b in zip(state, allowed, strict=True))


def _reconstruct(machine: _Machine, kind: Any, shape: Any, code: Any) -> np.ndarray:
    if kind is not _Known.ARRAY_TYPE or not _same(shape, (0,)) or type(code) not in (str, bytes):
        machine.refuse("makes an array in an unusual way")
    return np.empty(0, np.uint8)


def _fill(machine: _Machine, array: np.ndarray, state: Any) -> None:
    """Give an empty array its shape and bytes: state (1, shape, dtype, in Fortran order, bytes)."""
    if type(state) is not tuple or len(state) != 5:
        raise TypeError("not the state of an array")
    version, shape, dtype, fortran, content = state
    _check_array(machine, dtype, shape, content)
    if version != 1 or type(fortran) not in (bool, int):
        raise TypeError("not the state of an array")
    machine.charge(len(content))
    array.__setstate__((1, shape, np.dtype(np.uint8), bool(fortran), content))
    array.flags.writeable = False


def _from_buffer(machine: _Machine, content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    _check_array(machine, dtype, shape, content)
    if type(order) is not str or order not in ("C", "F"):
        raise TypeError("not an order")
    return np.frombuffer(content, np.uint8).reshape(shape, order=order)


def _check_array(machine: _Machine, dtype: Any, shape: Any, content: Any) -> None:
    if type(dtype) is not _UInt8 or type(content) is not bytes:
        machine.refuse("has an array of something else than uint8")
    if type(shape) is not tuple or len(shape) > 4 or any(type(n) is not int or n < 0 for n in shape):
        raise TypeError("not a shape")
    if prod(shape) != len(content):
        raise ValueError("shape and bytes of an array disagree")


def _dtype(machine: _Machine, name: Any, align: Any = 0, copy: Any = 1) -> _UInt8:
    if type(name) not in (str, bytes) or name not in _DTYPE_NAMES:
        machine.refuse("has an array of something else than uint8")
    if type(align) not in (bool, int) or type(copy) not in (bool, int):
        raise TypeError("not flags")
    return _UInt8()


def _encode(machine: _Machine, text: Any, encoding: Any) -> bytes:
    if type(text) is not str or type(encoding) is not str or encoding not in ("latin1", "latin-1"):
        machine.refuse("encodes text in an unusual way")
    machine.charge(len(text))
    return text.encode("latin-1")


def _empty_bytes(machine: _Machine, *arguments: Any) -> bytes:
    if arguments:
        machine.refuse("makes bytes in an unusual way")
    return b""


_CALLS: dict[_Known, Callable[..., Any]] = {
    _Known.RECONSTRUCT: _reconstruct,
    _Known.FROM_BUFFER: _from_buffer,
    _Known.DTYPE: _dtype,
    _Known.ENCODE: _encode,
    _Known.BYTES: _empty_bytes,
}


# -- the operations, by their byte -----------------------------------------------------------


def _protocol(m: _Machine) -> None:
    if m.number("<B") > 5:
        m.refuse("is written in a later protocol than 5")


def _frame(m: _Machine) -> None:
    if m.number("<Q") > len(m.data) - m.position:
        raise IndexError("past the end")


def _int_line(m: _Machine) -> None:
    text = m.line()
    flags = {b"00": False, b"01": True}
    m.stack.append(flags[text] if text in flags else _digits(text))


def _digits(text: bytes) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("a number of too many digits")
    return int(text)


def _long(m: _Machine) -> None:
    size = m.number("<B")
    if size > 8:
        raise ValueError("a number of too many digits")
    m.stack.append(int.from_bytes(m.take(size), "little", signed=True))


def _string_line(m: _Machine) -> None:
    text = m.line()
    if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
        raise ValueError("a string without quotes")
    m.stack.append(codecs.escape_decode(text[1:-1])[0])


def _global_line(m: _Machine) -> None:
    module = m.line()
    m.push_name(module.decode("utf-8"), m.line().decode("utf-8"))


def _stack_global(m: _Machine) -> None:
    name = m.stack.pop()
    module = m.stack.pop()
    if type(name) is not str or type(module) is not str:
        m.refuse("asks for something without a name")
    m.push_name(module, name)


def _pushes(make: Callable[[], Any]) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(make())


def _text(layout: str) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(str(m.take(m.number(layout)), "utf-8", "surrogatepass"))


def _counted(layout: str) -> Callable[[_Machine], None]:
    def operation(m: _Machine) -> None:
        size = m.number(layout)
        if size < 0:
            raise ValueError("a negative length")
        m.stack.append(m.take(size))

    return operation


def _number(layout: str) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.number(layout))


def _put(index: Callable[[_Machine], int]) -> Callable[[_Machine], None]:
    def operation(m: _Machine) -> None:
        m.memo[index(m)] = m.stack[-1]

    return operation


def _get(index: Callable[[_Machine], int]) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.memo[index(m)])


def _from_mark(make: Callable[[list[Any]], Any]) -> Callable[[_Machine], None]:
    def operation(m: _Machine) -> None:
        items = m.pop_mark()  # first: it changes which stack is the stack
        m.stack.append(make(items))

    return operation


def _dict_from_mark(m: _Machine) -> None:
    items = m.pop_mark()
    m.stack.append({})
    m.set_items(items)


_STOP = ord(".")
_OPERATIONS: dict[int, Callable[[_Machine], None]] = {
    code[0]: operation
    for code, operation in {
        b"\x80": _protocol,
        b"\x95": _frame,
        b"N": _pushes(lambda: None),
        b"\x88": _pushes(lambda: True),
        b"\x89": _pushes(lambda: False),
        b"I": _int_line,
        b"L": lambda m: m.stack.append(_digits(m.line().removesuffix(b"L"))),
        b"K": _number("<B"),
        b"M": _number("<H"),
        b"J": _number("<i"),
        b"\x8a": _long,
        b"S": _string_line,
        b"U": _counted("<B"),
        b"T": _counted("<i"),
        b"C": _counted("<B"),
        b"B": _counted("<I"),
        b"\x8e": _counted("<Q"),
        b"\x96": _counted("<Q"),
        b"V": lambda m: m.stack.append(str(m.line(), "raw-unicode-escape")),
        b"\x8c": _text("<B"),
        b"X": _text("<I"),
        b"\x8d": _text("<Q"),
        b"(": _Machine.push_mark,
        b"]": _pushes(list),
        b"}": _pushes(dict),
        b")": _pushes(tuple),
        b"l": _from_mark(list),
        b"d": _dict_from_mark,
        b"t": _from_mark(tuple),
        b"\x85": lambda m: m.push_tuple(1),
        b"\x86": lambda m: m.push_tuple(2),
        b"\x87": lambda m: m.push_tuple(3),
        b"a": lambda m: m.extend([m.stack.pop()]),
        b"e": lambda m: m.extend(m.pop_mark()),
        b"s": lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
        b"u": lambda m: m.set_items(m.pop_mark()),
        b"p": _put(lambda m: _digits(m.line())),
        b"q": _put(lambda m: m.number("<B")),
        b"r": _put(lambda m: m.number("<I")),
        b"\x94": _put(lambda m: len(m.memo)),
        b"g": _get(lambda m: _digits(m.line())),
        b"h": _get(lambda m: m.number("<B")),
        b"j": _get(lambda m: m.number("<I")),
        b"c": _global_line,
        b"\x93": _stack_global,
        b"R": _Machine.reduce,
        b"b": _Machine.build,
    }.items()
}
