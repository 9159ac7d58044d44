"""Rules of the house that no linter checks: how long functions and files are, and what stands at the top."""

import ast
import os

from tests.documents import CHECKOUT
from tests.mutations import MUTATIONS

LONGEST_FUNCTION = 60
LONGEST_FILE = 400
FILES = {
    str(file.relative_to(CHECKOUT)): file.read_text(encoding="utf-8")
    for top in ("cifar_core", "pages")
    for file in sorted((CHECKOUT / top).rglob("*.py"))
}


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


def test_no_file_is_long():
    assert [name for name, text in FILES.items() if text.count("\n") > LONGEST_FILE] == []


def test_every_mutation_is_of_code_that_is_there():
    """A mutation whose text has changed checks nothing."""
    for mutation in MUTATIONS:
        there = [text for name, text in FILES.items() if f"{name}/".startswith(f"{mutation.place}/")]
        assert sum(text.count(mutation.old) for text in there) == 1, mutation
