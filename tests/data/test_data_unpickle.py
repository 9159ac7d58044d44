"""The unpickler reads what Python and NumPy wrote, and nothing makes it run, hang or grow."""

import os
import pickle
import pickletools
import struct
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cifar_core.data.unpickle import MAX_KEYS, MAX_OPERATIONS, safe_loads
from cifar_core.errors import DataError, UnsafePickleError
from tests.data.cifar_files import python2_dumps

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=300)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.binary(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)
BATCH = {
    "batch_label": b"testing batch",
    "labels": list(range(10)) * 3,
    "data": np.arange(30 * 12, dtype=np.uint8).reshape(30, 12),
    "filenames": [f"image {i}.png" for i in range(30)],
    "again": "testing batch",
}


def same(ours, theirs):
    if isinstance(theirs, np.ndarray):
        return isinstance(ours, np.ndarray) and ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[k], theirs[k]) for k in theirs)
    return type(ours) is type(theirs) and ours == theirs


@pytest.mark.parametrize("protocol", range(6))
@given(value=PLAIN)
@settings(max_examples=60, deadline=None)
def test_plain_values_come_back_as_they_were(protocol, value):
    assert same(safe_loads(pickle.dumps(value, protocol), "f"), value)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F", "strided", "empty", "read-only"])
def test_arrays_come_back_as_they_were(protocol, order):
    array = np.arange(7 * 5, dtype=np.uint8).reshape(7, 5) * 7
    if order == "F":
        array = np.asfortranarray(array)
    elif order == "strided":
        array = array[::2, ::3]
    elif order == "empty":
        array = array[:0]
    elif order == "read-only":
        array.flags.writeable = False
    result = safe_loads(pickle.dumps({"data": array}, protocol), "f")["data"]
    assert same(result, array)
    assert not result.flags.writeable


@pytest.mark.parametrize("protocol", range(6))
def test_names_of_numpy_1_are_known(protocol):
    data = pickle.dumps(BATCH, protocol)
    if protocol < 4:
        data = data.replace(b"numpy._core.", b"numpy.core.")
    else:  # names carry their length there
        for name in (b"numpy._core.multiarray", b"numpy._core.numeric"):
            old = name.replace(b"_core", b"core")
            data = data.replace(bytes([len(name)]) + name, bytes([len(old)]) + old)
        data = data[:3] + struct.pack("<Q", len(data) - 11) + data[11:]
    assert same(safe_loads(data, "f"), BATCH)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_python_2_wrote_strings_as_bytes(protocol):
    batch = {
        key.encode(): [x.encode() if isinstance(x, str) else x for x in value]
        if isinstance(value, list)
        else value.encode()
        if isinstance(value, str)
        else value
        for key, value in BATCH.items()
    }
    data = python2_dumps(batch, protocol)
    assert b"numpy.core.multiarray" in data
    assert b"_codecs" not in data  # that is, not as Python 3 writes bytes
    assert same(pickle.loads(data, encoding="bytes"), batch)  # the writer itself is right
    assert same(safe_loads(data, "f"), batch)


class Attack:
    """Leaves a trace if anybody calls it."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("nested", [False, True])
def test_calls_are_refused_and_not_made(protocol, nested, tmp_path):
    trace = tmp_path / "trace"
    attack = Attack(os.mkdir, str(trace))
    data = pickle.dumps({"labels": [1, attack]} if nested else attack, protocol)
    with pytest.raises(UnsafePickleError, match=r"data_batch_1.*mkdir.*Nothing of it was run"):
        safe_loads(data, "data_batch_1")
    assert not trace.exists()
    pickle.loads(data)  # the attack is a real one
    assert trace.exists()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
DTYPE = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
TUPLE_BOMB = b"(t" + b"q\x00h\x00\x86" * 100  # t = (t, t), a hundred times: for ever to hash


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "'os' 'system'"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "'builtins' 'eval'"),
        (b"\x80\x04K\x01K\x02\x93.", "is damaged"),
        (b"\x80\x04\x8c\x05numpy\x8c\rndarray.dtype\x93.", "ndarray.dtype"),
        (b"(S'true'\nios\nsystem\n.", "'os' 'system'"),
        (b"(cos\nsystem\no.", "'os' 'system'"),
        (b"cnumpy\nndarray\n(I1000000000\ntR.", "calls numpy.ndarray"),
        (b"cnumpy\nndarray\n)\x81.", r"operation b'\\x81'"),
        (b"S'os.system'\n)R.", "is damaged"),
        (b"cnumpy\ndtype\nN0R.", "operation b'0'"),
        (b"P12\n.", "operation b'P'"),
        (b"K\x01Q.", "operation b'Q'"),
        (b"\x82\x01.", "operation b'\\\\x82'"),
        (b"\x97.", "operation b'\\\\x97'"),
        (b"\x8f.", "operation b'\\\\x8f'"),
        (b"F1.5\n.", "operation b'F'"),
        (b"\x80\x06.", "later protocol"),
        (b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.", "something else than integers"),
        (b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR.", "something else than integers"),
        (
            b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI63\ntb.",
            "something else than integers",
        ),
        (b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR}b.", "something else than integers"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.", "unusual way"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I9000000000\ntS'b'\ntR.", "unusual way"),
        (ARRAY + b"(I1\n(I2\nt" + DTYPE + b"I00\n]tb.", "something else than integers"),
        (b"]}b.", "state of an object"),
        (b"c_codecs\nencode\n(Vaaaa\nVhex\ntR.", "unusual way"),
        (b"c__builtin__\nbytes\n(I1000000000\ntR.", "unusual way"),
        (b"}(I1\nI2\nu.", "keys that are not text"),
        (b"}" + TUPLE_BOMB + b"Ns.", "keys that are not text"),
        (b"}(" + TUPLE_BOMB + b"Nu.", "keys that are not text"),
        (b"(" + TUPLE_BOMB + b"Nd.", "keys that are not text"),
        (b"}(Vlabels\nN" + TUPLE_BOMB + b"Nu.", "keys that are not text"),
        (b"(" + TUPLE_BOMB + b"\x91.", r"operation b'\\x91'"),
        (b"\x8f(" + TUPLE_BOMB + b"\x90.", r"operation b'\\x8f'"),
        (TUPLE_BOMB + b"Vname\n\x93.", "is damaged"),
        (b"c_codecs\nencode\n(" + TUPLE_BOMB + b"Vlatin1\ntR.", "unusual way"),
        (b"cnumpy\ndtype\n(" + TUPLE_BOMB + b"I0\nI1\ntR.", "something else than integers"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + TUPLE_BOMB + b"S'b'\ntR.",
            "unusual way",
        ),
        (ARRAY + b"(I1\n" + TUPLE_BOMB + DTYPE + b"I00\nS'abc'\ntb.", "is damaged"),
        (b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR" + TUPLE_BOMB + b"b.", "something else than integers"),
        (b"}(" + b"".join(b"S'k%d'\nN" % i for i in range(MAX_KEYS + 1)) + b"u.", "more than 1,000 entries"),
        (b"}" * (MAX_OPERATIONS + 1), "operations"),
        (b"(" * (MAX_OPERATIONS + 1), "operations"),
        (b"N" + b"\x85" * (MAX_OPERATIONS + 1), "operations"),
    ],
)
def test_hostile_pickles_are_refused(data, message):
    start = time.process_time()
    with pytest.raises(DataError, match=message):
        safe_loads(data, "f")
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"K",
        b"N",
        b"t.",
        b"R.",
        b"b.",
        b"K\x01\x86.",
        b"h\x05.",
        b"I1_000_000_000_000_000_000_000\n.",
        b"I" + b"9" * 5000 + b"\n.",
        b"\x8a\xff" + b"\xff" * 255 + b".",
        b"\x8b\x00\x00\x00\x7f.",
        b"X\xff\xff\xff\xff",
        b"B\xff\xff\xff\xff",
        b"T\xff\xff\xff\xff",
        b"\x8e" + b"\xff" * 8,
        b"\x96" + b"\xff" * 8,
        b"\x80\x04\x95" + b"\xff" * 8,
        b"S'unfinished\n.",
        b"S'\\'\n.",
        b"Nr\xff\xff\xff\xffj\xfe\xff\xff\xff.",
        ARRAY + b"(I1\n(I9000000000\nt" + DTYPE + b"I00\nS'abc'\ntb.",
        ARRAY + b"(I1\n(I-3\nt" + DTYPE + b"I00\nS'abc'\ntb.",
        ARRAY + b"(I1\n(I3\nI0\nI9223372036854775807\nI2\nI2\nt" + DTYPE + b"I00\nS'abc'\ntb.",
        ARRAY + b"I1\nb.",
    ],
)
def test_damaged_pickles_say_so(data):
    with pytest.raises(DataError, match="f "):
        safe_loads(data, "f")


@pytest.mark.parametrize(
    "data",
    [
        b"Nr\xff\xff\xff\xff.",  # a memo of four billion entries
        b"\x8e" + struct.pack("<Q", 2**40) + b".",
        b"\x96" + struct.pack("<Q", 2**33) + b".",
        b"\x8d" + struct.pack("<Q", 2**62) + b".",
        # one megabyte of text, encoded a thousand times over
        b"\x80\x02(X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"q\x00"
        + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 1000 + b"t.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L8000000000L\ntS'b'\ntR.",
        ARRAY + b"(I1\n(L8000000000L\nt" + DTYPE + b"I00\nS'abc'\ntb.",
        ARRAY + b"(I1\n(I0\nL8000000000L\nt" + DTYPE + b"I00\nS''\ntb.",
        b"cnumpy.core.numeric\n_frombuffer\n(S'abc'\n" + DTYPE + b"(L8000000000L\ntS'C'\ntR.",
        b"cnumpy\nndarray\n(L8000000000L\ntR.",
        b"c__builtin__\nbytes\n(L8000000000L\ntR.",
        b"cbuiltins\nbytes\n(L8000000000L\ntR.",
        b"\x8b" + struct.pack("<i", 2**31 - 1) + b".",
        b"T" + struct.pack("<i", 2**31 - 1) + b".",
        b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b".",
        # many arrays of the same bytes: NumPy copies small ones
        b"\x80\x02(U\xff" + b"a" * 255 + b"q\x00" + b"".join(
            ARRAY + b"(I1\n(I255\nt" + DTYPE + b"I00\nh\x00tb" for _ in range(4000)) + b"t.",
    ],
    ids=[
        "memo", "bytes", "bytearray", "text", "encode", "array", "array state", "array of none", "buffer",
        "ndarray", "python 2 bytes", "python 3 bytes", "long", "string", "frame", "many arrays",
    ],
)  # fmt: skip
def test_small_files_cannot_ask_for_much_memory(data):
    tracemalloc.start()
    try:
        safe_loads(data, "f")
    except DataError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 * 2**20


def test_a_file_too_large_is_refused_unread():
    with pytest.raises(DataError, match=r"has 134,217,729 bytes"):
        safe_loads(bytes(128 * 2**20 + 1), "f")


SEEDS = [pickle.dumps(BATCH, protocol) for protocol in range(6)] + [
    python2_dumps({b"data": BATCH["data"], b"labels": [1, 2]}, protocol) for protocol in (0, 1, 2)
]
OPCODES = sorted(ord(op.code) for op in pickletools.opcodes)


def contained(value, depth=0):
    """Every type in a result, to a depth."""
    yield type(value)
    if depth < 6:
        items = value.values() if type(value) is dict else value if type(value) in (list, tuple) else ()
        for item in items:
            yield from contained(item, depth + 1)


def check_hostile(data):
    try:
        value = safe_loads(data, "f")
    except DataError:
        return
    names = {kind.__name__ for kind in contained(value)}
    assert names <= {
        "dict", "list", "tuple", "str", "bytes", "int", "bool", "NoneType", "ndarray", "_Global", "_DType",
    }  # fmt: skip


@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=6), st.integers(0, 6)), max_size=6),
)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
def test_mutated_batches_only_ever_fail_as_data_errors(seed, edits):
    data = bytearray(seed)
    for position, replacement, removed in edits:
        at = position % len(data)
        data[at : at + removed] = replacement
        data = data or bytearray(b".")
    check_hostile(bytes(data))


@given(
    parts=st.lists(
        st.sampled_from([bytes([code]) for code in OPCODES])
        | st.sampled_from(
            [ARRAY, DTYPE, b"cos\nsystem\n", b"c_codecs\nencode\n", b"\x85", b"q\x00", b"h\x00"]
        )
        | st.binary(max_size=8),
        max_size=60,
    )
)
@example(parts=[ARRAY, DTYPE, b"b."])
@settings(max_examples=500, deadline=None)
def test_random_programs_only_ever_fail_as_data_errors(parts):
    check_hostile(b"".join(parts) + b".")
