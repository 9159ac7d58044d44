"""What README and the pages under docs/ hold: fenced blocks, commands, names, links."""

import re
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block, without its indentation."""

    file: str
    language: str
    body: str

    def __str__(self) -> str:
        return f"{self.file}: {self.body.splitlines()[0][:40]}"

    @property
    def commands(self) -> list[str]:
        """Its lines as a shell sees them: continued ones joined, comments left out."""
        joined = self.body.replace("\\\n", " ")
        lines = (re.sub(r"(^|\s+)# .*", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def documents() -> list[Path]:
    """README, the changelog, and all pages."""
    return [CHECKOUT / "README.md", CHECKOUT / "CHANGELOG.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]


def blocks(file: Path) -> list[Block]:
    name = str(file.relative_to(CHECKOUT))
    return [Block(name, found["language"], _dedented(found)) for found in FENCE.finditer(file.read_text())]


def prose(file: Path) -> str:
    """The text without its fenced blocks."""
    return FENCE.sub("", file.read_text())


def inline(file: Path) -> list[str]:
    """What stands between single backticks."""
    return [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", prose(file))]


def _dedented(found: re.Match[str]) -> str:
    width = len(found["indent"])
    return "".join(line[width:] if line.strip() else line for line in found["body"].splitlines(keepends=True))
