"""What the hostile tests share: how many examples, damage done to whole files, texts that try to be code,
and a limit on memory and time around whatever reads them."""

import collections
import contextlib
import os
import resource
import signal
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from cifar_core.errors import CifarLabError

EXAMPLES = int(os.environ.get("CIFAR_LAB_EXAMPLES", "40"))
"""Generated inputs per test; 450 make more than 10,000 in all."""
COUNTS: collections.Counter[str] = collections.Counter()
"""How many inputs each parser was fed."""

MEMORY = 2**30
SECONDS = 20
"""What reading one hostile input may take at most: more address space than before, and processor seconds."""

LONG = "x" * 10_000
TEXTS = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "[click](javascript:document.title='owned')",
    "![x](http://198.51.100.1/x.png)",
    "<http://198.51.100.1/>",
    "**bold** _it_ `code` ~~no~~ # head",
    ":material/delete: :red[red] :smile: :small[s]",
    "$\\frac{1}{0}$ $$x$$",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "</div></style><h1>out</h1>",
    "'; DROP TABLE runs; --",
    "%s {0} {name} %n ${jndi:ldap://x}",
    "=cmd|'/c calc'!A1",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\x00\x07\x1b[31mred\x1b[0m",
    "\u202eesrever \u2066iso\u2069 \u200b\ufeff",
    "\ud800 lone",
    "\U0001f9a0 \u0301\u0301\u0301 \u0627\u0644\u0639",
    "../../../../etc/passwd",
    "C:\\Windows\\system32\\..\\config",
    "&lt;b&gt; &amp; &#x3c;script&#x3e;",
)
"""Free text as nobody means well with it: HTML, markdown, LaTeX, SQL, formulas, control characters."""


def examples(share: float = 1.0):
    """Hypothesis settings for a fuzzing test."""
    return settings(
        max_examples=max(5, round(EXAMPLES * share)),
        deadline=None,
        derandomize="CIFAR_LAB_SEED" not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def fed(parser: str) -> None:
    COUNTS[parser] += 1


def in_words(error: Exception) -> None:
    """The documented error of this project, with a message that a person can read."""
    assert isinstance(error, CifarLabError)
    assert 0 < len(str(error)) < 4000


class TooSlowError(BaseException):
    """No `except Exception` of a parser may swallow it."""


@contextlib.contextmanager
def bounded(seconds: float = SECONDS, memory: int = MEMORY):
    """A parser that asks for more memory gets none, and one that does not end is ended."""

    def give_up(*_):
        raise TooSlowError(f"not done after {seconds} s of work")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, limits[1]))
    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def mutated(*wholes: bytes):
    """Strategy: one of these files with bits flipped, pieces cut, doubled, moved or overwritten, lengths that
    lie, or not a file at all."""
    return st.one_of(st.sampled_from(wholes).flatmap(_damaged), st.binary(max_size=400))


_LIES = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00" * 4, b"\xff" * 8, b"\x00\x00\x00\x80", b"9" * 12)


def _damaged(whole: bytes):
    place = st.integers(0, max(len(whole) - 1, 0))
    size = st.integers(1, 64)
    one = st.one_of(
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
        st.tuples(st.just("set"), place, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("set"), place, st.sampled_from(_LIES)),
        st.tuples(st.just("insert"), place, st.sampled_from(_LIES) | st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("drop"), place, size),
        st.tuples(st.just("double"), place, size),
        st.tuples(st.just("move"), place, place),
        st.tuples(st.just("cut"), place, st.just(0)),
    )
    return st.lists(one, min_size=1, max_size=4).map(lambda harms: _apply(whole, harms))


def _apply(whole: bytes, harms) -> bytes:
    data = bytearray(whole)
    for kind, at, what in harms:
        at = min(at, max(len(data) - 1, 0))
        if kind == "flip" and data:
            data[at] ^= 1 << what
        elif kind == "set":
            data[at : at + len(what)] = what
        elif kind == "insert":
            data[at:at] = what
        elif kind == "drop":
            del data[at : at + what]
        elif kind == "double":
            data[at:at] = data[at : at + what]
        elif kind == "move":
            piece = bytes(data[at : at + 32])
            del data[at : at + 32]
            data[min(what, len(data)) : min(what, len(data))] = piece
        elif kind == "cut":
            del data[at:]
    return bytes(data)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
"""Any value that a JSON file can hold, and some that it should not."""
