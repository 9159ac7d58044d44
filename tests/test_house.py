"""Rules of the house that no linter checks: how long functions and files are, and what stands at the top."""

import ast
import os

from tests.documents import CHECKOUT

LONGEST_FUNCTION = 60
LONGEST_FILE = 400
FILES = {
    str(file.relative_to(CHECKOUT)): file.read_text(encoding="utf-8")
    for top in ("cifar_core", "pages")
    for file in sorted((CHECKOUT / top).rglob("*.py"))
}
LONG_FILES = {
    "cifar_core/analysis/comparison.py": "tuned against baseline: pairs, budgets, seeds, verdicts",
    "cifar_core/store/archive/pack.py": "what a pack holds and every check of one, side by side",
    "cifar_core/store/lifecycle.py": "each change of a job's state and the rules that the next relies on",
    "cifar_core/store/transfer.py": "rows that leave a store and arrive in one, table by table",
}
"""Files over the limit, with the reason."""


def test_the_package_shows_its_rooms_and_little_else():
    there = [name for name in os.listdir(CHECKOUT / "cifar_core") if name != "__pycache__"]
    assert len(there) <= 16, sorted(there)


def test_functions_are_short():
    long = [
        f"{name}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for name, text in FILES.items()
        if "/migrations/" not in name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]
    assert not long


def test_long_files_have_a_reason():
    assert {name for name, text in FILES.items() if text.count("\n") > LONGEST_FILE} == set(LONG_FILES)
