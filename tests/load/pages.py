"""What the main pages cost over stores of 10 to 10,000 runs: opening each, and running it again.

    python -m tests.load.pages [--runs 10,100,1000,10000] [--rounds 3] [--out FOLDER | --no-files] [--json]

The server's work alone, by Streamlit's own AppTest: no browser, no network. Each store has a process of its
own, and these take turns as the variants of `cifar-lab bench` do; the table and the files are as its.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from cifar_core.cli.bench import Request, result_of, write_files
from cifar_core.cli.bench.result import Row, circumstances, columns, row, with_ratios
from cifar_core.cli.bench.turns import Measured, Task, in_processes
from cifar_core.cli.bench.variants_store import fill
from cifar_core.cli.output import print_pairs, print_rows
from cifar_core.store import RunStore

CHECKOUT = Path(__file__).parents[2]
PAGES = {
    "Home": None,
    "Leaderboard": "pages/leaderboard/leaderboard.py",
    "Runs": "pages/runs/runs.py",
    "Run": "pages/runs/run.py",
    "Train": "pages/train/train.py",
}
ACTIONS = ("open", "run again")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", default="10,100,1000,10000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--no-files", action="store_true")
    parser.add_argument("--json", action="store_true")
    request = parser.parse_args()
    result = measured(tuple(int(number) for number in request.runs.split(",")), request.rounds)
    if request.json:
        print(json.dumps(result, indent=2))
    else:
        print_pairs(dict(circumstances(result)))
        print_rows(result["rows"], columns(result["rows"]))
    for file in () if request.no_files else write_files(result, request.out):
        print(f"wrote {file}")


def measured(runs: tuple[int, ...], rounds: int) -> dict:
    """A result as `run_bench` gives it, whose rows are of the part "pages"."""
    request = Request(models=(), images=0, rounds=rounds, runs=runs, tell=print)
    return result_of("pages", lambda: _rows(request), request)


def _rows(request: Request) -> list[Row]:
    with ExitStack() as cleanup:
        tasks = {}
        for number in request.runs:
            home = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="cifar-lab-pages-"))
            with RunStore(home) as store:
                run_id = fill(store, number)
            tasks |= {
                (page, what, number): _visit(home, run_id, page, what) for page in PAGES for what in ACTIONS
            }
        found = in_processes({" ".join(map(str, key)): task for key, task in tasks.items()}, request.rounds)
    times = dict(zip(tasks, found.values(), strict=True))
    keys = [(page, what, number) for page in PAGES for what in ACTIONS for number in request.runs]
    return with_ratios([_row(*key, times[key]) for key in keys])


def _visit(home: str, run_id: str, page: str, what: str) -> Task:
    return Task(
        "tests.load.pages:visitor",
        {"run_id": run_id},
        {"CIFAR_LAB_HOME": home, "CIFAR_LAB_SUPERVISE": "0"},
        {"page": page, "again": what == "run again"},
    )


def _row(page: str, what: str, number: int, found: list[Measured]) -> Row:
    values = [1000 * one["seconds"] for one in found]
    return row("pages", f"{page}, {what}", f"{number:,} runs", "ms", values, runs=number)


# --- In a process of its own ------------------------------------------------------------------------


def visitor(run_id: str) -> Callable[..., dict[str, float]]:
    """Gives a function that opens a page in a new session, or runs it again in the one that is open."""
    from streamlit.testing.v1 import AppTest

    open_pages: dict[str, AppTest] = {}

    def visit(page: str, again: bool) -> dict[str, float]:
        if not again:
            open_pages[page] = AppTest.from_file(CHECKOUT / "app.py", default_timeout=120)
            if page == "Run":
                open_pages[page].query_params["id"] = run_id
            if PAGES[page]:
                open_pages[page].switch_page(str(CHECKOUT / PAGES[page]))
        began = time.perf_counter()
        open_pages[page].run()
        seconds = time.perf_counter() - began
        if open_pages[page].exception:
            raise RuntimeError(f"{page}: {open_pages[page].exception[0].message}")
        return {"seconds": seconds}

    return visit


if __name__ == "__main__":
    main()
