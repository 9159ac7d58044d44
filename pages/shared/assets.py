"""Scripts and style sheets of the app's components, which travel with each update of a component."""

from __future__ import annotations

from pathlib import Path


def read(*files: Path) -> str:
    """The files' text, one after the other, without indentation, blank lines and comments of a whole line."""
    lines = (line.strip() for file in files for line in file.read_text(encoding="utf-8").splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


DOM = Path(__file__).with_name("dom.js")
"""Goes before the script of each component that makes links and coloured elements."""
