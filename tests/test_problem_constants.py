"""Classes, image side and datasets are data: outside `cifar_core/data` none of them stands as a constant."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT / "cifar_core" / "data"
MEANING = re.compile(r"class(es)?$|^classes|num_class|side$|^side|image_s|resolution|n_cls", re.IGNORECASE)
"""Names that hold a number of classes or a side."""
NUMBERS = (10, 32)
DATASETS = ("cifar10", "synthetic", "cifar100", "svhn", "fashion", "kaggle")
NAMES = ("CLASS_NAMES", "NUM_CLASSES", "IMAGE_SHAPE")
SHAPES = ((32, 32, 3), (32, 32), (10, 10))
ALLOWED = {
    ("cifar_core/__init__.py", "CLASS_NAMES"): "a name of the public face, which scripts use",
    ("cifar_core/models/mobilenet.py", "32"): "filters",
    ("cifar_core/analysis/neighbours.py", "32"): "megabytes",
    ("cifar_core/training/augmentation/randaugment.py", "32"): "the paper's shifts are in pixels of CIFAR-10",
}


def files():
    found = [*(ROOT / "cifar_core").rglob("*.py"), *(ROOT / "pages").rglob("*.py"), ROOT / "app.py"]
    return [file for file in found if DATA not in file.parents]


def bound(node):
    """(name, value) pairs of assignments, default arguments, keywords and comparisons."""
    if isinstance(node, ast.Assign):
        yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        yield node.target.id, node.value
    elif isinstance(node, ast.FunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args]
        for argument, value in zip(arguments[::-1], node.args.defaults[::-1], strict=False):
            yield argument.arg, value
        for argument, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            if value is not None:
                yield argument.arg, value
    elif isinstance(node, ast.Call):
        yield from ((keyword.arg or "", keyword.value) for keyword in node.keywords)
    elif isinstance(node, ast.Compare):
        for one in (node.left, *node.comparators):
            name = getattr(one, "id", None) or getattr(one, "attr", None)
            if name:
                yield from ((name, other) for other in (node.left, *node.comparators) if other is not one)


def findings(tree):
    """(line, what) of each constant that means classes, a side or a dataset."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
        and isinstance(node.body[0], ast.Expr)
    }  # fmt: skip
    for node in ast.walk(tree):
        for name, value in bound(node):
            if MEANING.search(name) and isinstance(value, ast.Constant) and value.value in NUMBERS:
                yield node.lineno, f"{name} = {value.value}"
        if isinstance(node, ast.Tuple) and all(isinstance(one, ast.Constant) for one in node.elts):
            if tuple(one.value for one in node.elts) in SHAPES:
                yield node.lineno, "a shape"
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "range":
            if [getattr(one, "value", None) for one in node.args] in ([10], [32]):
                yield node.lineno, "a range"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.FloorDiv | ast.Div):
            if getattr(node.right, "value", None) == 32 or getattr(node.left, "value", None) == 32:
                yield node.lineno, "32"
        elif isinstance(node, ast.Name | ast.alias):
            name = node.id if isinstance(node, ast.Name) else node.name
            if name in NAMES:
                yield getattr(node, "lineno", 0), name
        elif isinstance(node, ast.Constant) and node.value in DATASETS and id(node) not in docstrings:
            yield node.lineno, str(node.value)


def test_classes_side_and_datasets_are_no_constants():
    found, used = [], set()
    for file in files():
        place = file.relative_to(ROOT).as_posix()
        for line, what in findings(ast.parse(file.read_text(encoding="utf-8"))):
            if (place, what) in ALLOWED:
                used.add((place, what))
            else:
                found.append(f"{place}:{line}: {what}")
    assert not found, "\n".join(found)
    assert used == set(ALLOWED), "an exception that nothing needs any more"


def test_pages_scripts_have_none_either():
    """The browser's parts take the number of classes from their data."""
    for file in (ROOT / "pages").rglob("*.js"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"\* 10\b|< 10\b|\+ 10\b|\b32, 32\b|width: 32|airplane", text), file.name


def test_the_search_finds_what_it_looks_for():
    source = (
        "from x import NUM_CLASSES\nclasses = 10\nshape = (32, 32, 3)\nfor one in range(10): pass\n"
        "def f(side=32): return run('cifar10', num_classes=10) if count.classes == 10 else 6 * 32\n"
        "epochs = 10\nwidth = 32\n"
    )
    assert len(list(findings(ast.parse(source)))) == 9
