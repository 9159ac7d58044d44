"""Safe reading of the pickled batches in which CIFAR-10 is published.

`pickle.Unpickler` calls whatever a file names. Even with a list of allowed names it can be made to allocate
gigabytes or to spend hours on the hash of nested tuples. This is Python's own `pickle._Unpickler`, limited to

- the operations that dicts, lists, tuples, text, integers and arrays of integers need, in protocols 0 to 5,
  as Python 2 and 3 with NumPy 1 and 2 write them;
- the names in `_GLOBALS`, each of which stands for a function of this module;
- text and bytes as keys of dicts, since other keys can be slow to hash;
- `MAX_OPERATIONS` operations, each of which takes time and memory in proportion to the bytes that it reads.

A file is called unsafe only where it names something else to call; what is merely wrong is damaged.
"""

from __future__ import annotations

import difflib
import io
import pickle
import struct
import sys
from collections.abc import Callable
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from cifar_core.errors import DataError, UnsafePickleError

MAX_OPERATIONS = 250_000
"""Operations in one file. An official batch has 20,000, the most verbose protocol 80,000."""
MAX_BYTES = 128 * 2**20
"""Size of one file. An official batch has 31 MB; written as text by Python 2, about 90 MB."""
MAX_KEYS = 1000
MAX_DIGITS = 20

_GET_IT = "Get the file from https://www.cs.toronto.edu/~kriz/cifar.html."
_DAMAGED = (
    AttributeError, EOFError, LookupError, OverflowError, TypeError, ValueError, Warning, struct.error,
    pickle.UnpicklingError,
)  # fmt: skip


def safe_loads(
    data: bytes, name: str, *, most_bytes: int | None = None, most_operations: int | None = None
) -> Any:
    """The value in a pickle: dict, list, tuple, str, bytes, int, bool, None or read-only array of integers.

    Strings written by Python 2 are returned as bytes.

    Args:
        data: content of the whole file.
        name: the file, for messages.
        most_bytes, most_operations: other limits than a batch of CIFAR-10 has.

    Raises:
        UnsafePickleError: the file would run code if Python opened it.
        DataError: the file is damaged, cut short, too large, or holds something else.
    """
    if len(data) > (most_bytes or MAX_BYTES):
        raise DataError(
            f"{name} has {len(data):,} bytes; a batch of CIFAR-10 has about 31 million and at most "
            f"{most_bytes or MAX_BYTES:,} are read."
        )
    unpickler = _SafeUnpickler(io.BytesIO(data), name, most_operations or MAX_OPERATIONS)
    try:
        return unpickler.load()
    except _DAMAGED as error:
        raise DataError(
            f"{name} is damaged: its content is invalid near byte {unpickler.file.tell():,} of {len(data):,} "
            f"({type(error).__name__}). Download or copy it again."
        ) from error


class _Global:
    """Stand-in for a name that a batch may mention; only `_SafeUnpickler` calls its function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


class _DType:
    """Stand-in for the `numpy.dtype` of an array, which its state may still give another byte order."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype


class _SafeUnpickler(pickle._Unpickler):
    stack: list[Any]
    append: Callable[[Any], None]
    if TYPE_CHECKING:  # inherited, and unknown to typeshed

        def pop_mark(self) -> list[Any]: ...

    def __init__(self, file: io.BytesIO, name: str, most_operations: int) -> None:
        super().__init__(file, encoding="bytes")
        self.file = file
        self.name, self.most_operations = name, most_operations
        self.encoded: dict[str, bytes] = {}

    def load(self) -> Any:
        self.metastack: list[list[Any]] = []
        self.stack = []
        self.append = self.stack.append
        for _ in range(self.most_operations):
            code = self.read(1)
            if code == pickle.STOP:
                return self.stack.pop()
            operation = _OPERATIONS.get(code[0])
            if operation is None:
                self.refuse(f"uses the operation {code!r}")
            operation(self)
        return self.refuse(f"takes more than {self.most_operations:,} operations")

    def refuse(self, what: str, *, unsafe: bool = False) -> NoReturn:
        if unsafe:
            raise UnsafePickleError(
                f"{self.name} {what}, which no batch of CIFAR-10 needs. Nothing of it was run. {_GET_IT}"
            )
        raise DataError(
            f"{self.name} is damaged, or another file: it {what}, which no batch of CIFAR-10 does. {_GET_IT}"
        )

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def readline(self) -> bytes:
        return self.file.readline()

    def find_class(self, module: str, name: str) -> _Global:
        if (module, name) not in _GLOBALS:
            self.refuse(f"asks for {module[:60]!r} {name[:60]!r}", unsafe=not _is_garbled(module, name))
        return _GLOBALS[module, name]

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        self.refuse(f"calls {module[:60]!r} {name[:60]!r}", unsafe=not _is_garbled(module, name))

    def load_proto(self) -> None:
        if self.read(1)[0] > 5:
            self.refuse("is written in a later protocol than 5")

    def load_frame(self) -> None:
        self.read(8)  # its length: the file is in memory and needs no buffer

    def load_int(self) -> None:
        text = self.readline()[:-1].removesuffix(b"L")
        if len(text) > MAX_DIGITS:
            raise ValueError("too many digits")
        self.append({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text))

    def load_long1(self) -> None:
        size = self.read(1)[0]
        if size > 8:
            raise ValueError("too many digits")
        self.append(int.from_bytes(self.read(size), "little", signed=True))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.set_items(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def load_setitems(self) -> None:
        self.set_items(self.pop_mark())

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise TypeError("not a dict")
        if any(type(key) not in (str, bytes) for key in items[::2]):
            self.refuse("has keys that are not text")
        target.update(zip(items[::2], items[1::2], strict=True))
        if len(target) > MAX_KEYS:
            self.refuse(f"has a dict of more than {MAX_KEYS:,} entries")

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Global or type(arguments) is not tuple:
            raise TypeError("not a call")
        self.append(function.function(self, *arguments))

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is _DType:
            for order in "|<>":
                if any(_same(state, (3, o, None, None, None, -1, -1, 0)) for o in (order, order.encode())):
                    target.dtype = target.dtype.newbyteorder(order)  # type: ignore[arg-type]
                    return
            self.refuse(_OTHER_DTYPE)
        elif type(target) is np.ndarray:
            _set_array_state(self, target, state)
        else:
            self.refuse("sets the state of an object")


_UNCHANGED = (
    "NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "BINUNICODE8 SHORT_BINUNICODE BINBYTES BINBYTES8 SHORT_BINBYTES MARK EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 "
    "TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET "
    "GLOBAL STACK_GLOBAL"
)
"""Operations that are safe as Python's unpickler has them."""
_PYTHON: dict[int, Callable[[Any], None]] = pickle._Unpickler.dispatch
_OPERATIONS: dict[int, Callable[[Any], None]] = {
    **{code: _PYTHON[code] for code in (getattr(pickle, name)[0] for name in _UNCHANGED.split())},
    # Written as bytes are; Python's own reader first allocates the size that the file claims.
    pickle.BYTEARRAY8[0]: _PYTHON[pickle.BINBYTES8[0]],
    pickle.PROTO[0]: _SafeUnpickler.load_proto,
    pickle.FRAME[0]: _SafeUnpickler.load_frame,
    pickle.INT[0]: _SafeUnpickler.load_int,
    pickle.LONG[0]: _SafeUnpickler.load_int,
    pickle.LONG1[0]: _SafeUnpickler.load_long1,
    pickle.DICT[0]: _SafeUnpickler.load_dict,
    pickle.SETITEM[0]: _SafeUnpickler.load_setitem,
    pickle.SETITEMS[0]: _SafeUnpickler.load_setitems,
    pickle.INST[0]: _SafeUnpickler.load_inst,
    pickle.REDUCE[0]: _SafeUnpickler.load_reduce,
    pickle.BUILD[0]: _SafeUnpickler.load_build,
}
_OTHER_DTYPE = "has an array of something else than integers"
_INTEGERS = frozenset(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))


def _is_garbled(module: str, name: str) -> bool:
    """Whether a name is a batch's own with some wrong bytes, or none that Python could import here."""
    parts = [*module.split("."), *name.split(".")]
    top = pickle._compat_pickle.IMPORT_MAPPING.get(parts[0], parts[0])  # type: ignore[attr-defined]
    if not all(map(str.isidentifier, parts)) or (top not in sys.modules and find_spec(top) is None):
        return True
    short = len(module) + len(name) < 60  # comparing long texts is slow
    return short and any(_alike(module, known) and _alike(name, named) for known, named in _GLOBALS)


def _alike(one: str, other: str) -> bool:
    return difflib.SequenceMatcher(None, one, other).ratio() > 0.75


def _same(state: Any, allowed: tuple[Any, ...]) -> bool:
    """Equality of flat tuples; comparing nested ones can take exponential time."""
    if type(state) is not tuple or len(state) != len(allowed):
        return False
    return all(type(a) is type(b) and a == b for a, b in zip(state, allowed, strict=True))


def _reconstruct(unpickler: _SafeUnpickler, kind: Any, shape: Any, code: Any) -> np.ndarray:
    if kind is not _ARRAY_TYPE or not _same(shape, (0,)) or type(code) not in (str, bytes):
        unpickler.refuse("makes an array in an unusual way")
    return np.empty(0, np.uint8)


def _set_array_state(unpickler: _SafeUnpickler, array: np.ndarray, state: Any) -> None:
    """Give an empty array its content: state (1, shape, dtype, is in Fortran order, bytes).

    NumPy refers to the bytes and does not copy them, except up to 1,000 bytes.
    """
    version, shape, dtype, fortran, content = state if type(state) is tuple else ()
    _check_array(unpickler, dtype, shape, content)
    if version != 1 or type(fortran) not in (bool, int):
        raise TypeError("not the state of an array")
    checked: Any = (1, shape, dtype.dtype, bool(fortran), content)
    array.__setstate__(checked)
    array.flags.writeable = False


def _from_buffer(unpickler: _SafeUnpickler, content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    _check_array(unpickler, dtype, shape, content)
    if type(order) is not str or order not in ("C", "F"):
        raise TypeError("not an order")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _check_array(unpickler: _SafeUnpickler, dtype: Any, shape: Any, content: Any) -> None:
    if type(dtype) is not _DType or type(content) is not bytes:
        unpickler.refuse(_OTHER_DTYPE)
    if type(shape) is not tuple or len(shape) > 4 or any(type(n) is not int or n < 0 for n in shape):
        raise TypeError("not a shape")
    if prod(shape) * dtype.dtype.itemsize != len(content):
        raise ValueError("shape and bytes of an array disagree")


def _dtype(unpickler: _SafeUnpickler, name: Any, align: Any = 0, copy: Any = 1) -> _DType:
    text = name.decode("latin-1") if type(name) is bytes else name
    if type(text) is not str or text.lstrip("|<>") not in _INTEGERS or len(text) > 3:
        unpickler.refuse(_OTHER_DTYPE)
    if type(align) not in (bool, int) or type(copy) not in (bool, int):
        raise TypeError("not flags")
    return _DType(np.dtype(text))


def _scalar(unpickler: _SafeUnpickler, dtype: Any, content: Any) -> int:
    """A single NumPy integer, of which lists of labels may consist."""
    _check_array(unpickler, dtype, (), content)
    return int(np.frombuffer(content, dtype.dtype)[0])


def _encode(unpickler: _SafeUnpickler, text: Any, encoding: Any) -> bytes:
    """Bytes as Python 3 writes them in protocols 0 to 2. A text is encoded once, however often it is used."""
    if type(text) is not str or type(encoding) is not str or encoding not in ("latin1", "latin-1"):
        unpickler.refuse("encodes text in an unusual way")
    if text not in unpickler.encoded:
        unpickler.encoded[text] = text.encode("latin-1")
    return unpickler.encoded[text]


def _empty_bytes(unpickler: _SafeUnpickler, *arguments: Any) -> bytes:
    if arguments:
        unpickler.refuse("makes bytes in an unusual way")
    return b""


_ARRAY_TYPE = _Global(lambda unpickler, *_: unpickler.refuse("calls numpy.ndarray"))
_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _Global(_reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): _Global(_reconstruct),
    ("numpy.core.numeric", "_frombuffer"): _Global(_from_buffer),
    ("numpy._core.numeric", "_frombuffer"): _Global(_from_buffer),
    ("numpy.core.multiarray", "scalar"): _Global(_scalar),
    ("numpy._core.multiarray", "scalar"): _Global(_scalar),
    ("numpy", "ndarray"): _ARRAY_TYPE,
    ("numpy", "dtype"): _Global(_dtype),
    ("_codecs", "encode"): _Global(_encode),
    ("__builtin__", "bytes"): _Global(_empty_bytes),  # empty bytes in protocols 0 to 2
    ("builtins", "bytes"): _Global(_empty_bytes),
}
