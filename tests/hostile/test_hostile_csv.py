"""Tables as CSV: what somebody typed never becomes a formula where a spreadsheet opens it."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_core.base.csv_text import csv_of, csv_text
from cifar_core.cli import output
from tests.hostile.hostile import TEXTS, examples, fed

CHECKOUT = Path(__file__).parents[2]
STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
RUN = tuple(start for start in STARTS if start.strip())
CELLS = (
    st.text(max_size=20)
    | st.sampled_from(TEXTS)
    | st.tuples(st.sampled_from(STARTS), st.text(max_size=9)).map("".join)
    | st.integers()
    | st.floats()
    | st.none()
    | st.booleans()
)
ROWS = st.lists(st.tuples(CELLS, CELLS), max_size=4)
WRITERS = {
    "csv_text": lambda header, rows: csv_text(header, rows),
    "csv_of": lambda header, rows: csv_of(pd.DataFrame(rows, columns=header, dtype=object)),
    "command line": lambda header, rows: output.csv_text(
        [dict(zip(header, row, strict=True)) for row in rows], header
    ),
}


def unguarded(cell):
    return re.sub(r"(^|[;\t\n])'", r"\1", cell)


def check_other_separators(texts):
    """No formula for a spreadsheet that splits at semicolons or tabs, heeding quotation marks or not."""
    text = csv_text(["x", *texts], [])
    for separator in ";\t":
        for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            assert not any(cell.strip().startswith(RUN) for cell in line), text
        for line in text.split("\n")[:-1]:
            cells = [cell.removeprefix('"') for cell in line.split(separator)]
            assert not any(cell.startswith(RUN) for cell in cells), text


@pytest.mark.parametrize(
    "text", ["a;=1+1", "a\t=1+1", "a\n@x", ";-1", "a;b;+1", "a;＝1", "a\r=1", "a;\t=1", "\t\t=1"]
)
def test_what_follows_another_separator_is_no_formula_either(text):
    check_other_separators([text])
    assert csv_text(["x"], [[text]]).startswith('x\n"')


@pytest.mark.parametrize("name", WRITERS)
def test_no_cell_is_a_formula_and_every_cell_comes_back(name):
    @given(rows=ROWS, header=st.sampled_from([["a", "b"], ["=a()", "@b"]]))
    @examples()
    def feed(rows, header):
        fed("csv")
        text = WRITERS[name](header, rows)
        read = list(csv.reader(io.StringIO(text, newline="")))
        assert len(read) == len(rows) + 1
        for cells, given_cells in zip(read, [header, *rows], strict=True):
            assert len(cells) == 2
            for cell, value in zip(cells, given_cells, strict=True):
                assert not isinstance(value, str) or not cell.startswith(STARTS)
                if isinstance(value, str):
                    assert unguarded(cell) == unguarded(value.replace("\r\n", "\n").replace("\r", "\n"))
            check_other_separators([cell for cell in given_cells if isinstance(cell, str)])

    feed()


def test_numbers_stay_numbers():
    rows = [[-0.5, np.float32(-1.25)], [np.int64(-3), -7], [None, float("nan")]]
    assert csv_text(["a", "b"], rows) == "a,b\n-0.5,-1.25\n-3,-7\n,\n"
    assert csv_of(pd.DataFrame({"a": [-0.5, np.nan], "b": [-1, 2]})) == "a,b\n-0.5,-1\n,2\n"
    frame = pd.DataFrame(
        {"a": np.array([0.1], "f4"), "b": [True], "c": pd.array([None], "Int64"), "d": [pd.NaT]}
    )
    assert csv_of(frame) == "a,b,c,d\n0.1,True,,\n"
    assert csv_text(["a"], [[""]]) == 'a\n""\n'


def test_every_table_is_written_by_the_one_function():
    """No page and no command makes its own CSV."""
    own = re.compile(r"\.to_csv\(|csv\.writer\(|csv\.DictWriter\(")
    files = [*CHECKOUT.glob("pages/**/*.py"), *CHECKOUT.glob("cifar_core/**/*.py")]
    makers = [str(file.relative_to(CHECKOUT)) for file in files if own.search(file.read_text("utf-8"))]
    assert makers == []
    writers = [
        str(f.relative_to(CHECKOUT)) for f in files if re.search(r"from csv import", f.read_text("utf-8"))
    ]
    assert writers == []
