"""Notebooks of the documentation: scripts in Jupytext's percent format, as pages and as `.ipynb` files.

Cells begin with `# %%` (code) or `# %% [markdown]` (text, each line after `# `).
"""

import json
import re
from pathlib import Path

EXAMPLES = Path(__file__).with_name("examples")
CELL = re.compile(r"^# %%(?P<text> \[markdown\])?.*\n", re.MULTILINE)
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def notebooks() -> list[Path]:
    """The scripts that begin with a text cell."""
    return [file for file in sorted(EXAMPLES.glob("*.py")) if file.read_text().startswith("# %% [markdown]")]


def cells(source: str) -> list[tuple[str, str]]:
    """("markdown" or "code", content) of each cell."""
    marks = list(CELL.finditer(source))
    ends = [mark.start() for mark in marks[1:]] + [len(source)]
    found = [
        (bool(mark["text"]), source[mark.end() : end].strip("\n"))
        for mark, end in zip(marks, ends, strict=True)
    ]
    return [
        ("markdown", re.sub(r"^# ?", "", body, flags=re.M)) if text else ("code", body)
        for text, body in found
    ]


def page(file: Path) -> str:
    """The notebook as Markdown, with links to its files below the title."""
    title, *others = [
        body if kind == "markdown" else f"```python\n{body}\n```" for kind, body in cells(file.read_text())
    ]
    heading, _, rest = title.partition("\n")
    links = f"Download: [notebook]({file.stem}.ipynb) · [script]({file.name})"
    return "\n\n".join([heading, links, rest.strip(), *others])


def ipynb(file: Path) -> str:
    """The notebook as JSON of Jupyter's format 4.5, without output."""
    found = []
    for number, (kind, body) in enumerate(cells(file.read_text())):
        cell = {
            "cell_type": kind,
            "id": f"cell-{number}",
            "metadata": {},
            "source": body.splitlines(keepends=True),
        }
        found.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    return json.dumps({"cells": found, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}, indent=1)
