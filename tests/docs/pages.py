"""The Markdown pages of the repository, and the code blocks in them."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
PAGES = sorted({ROOT / name for name in TRACKED.split()} | {ROOT / "README.md", *(ROOT / "docs").rglob("*.md")})
GUIDES = [path for path in PAGES if path.parent == ROOT / "docs" or path == ROOT / "README.md"]


@dataclass(frozen=True)
class Block:
    """A fenced code block: its language, its text, and the line of its first line of code, from 1."""

    language: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    """The fenced code blocks of a page, in order."""
    text = path.read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [Block(m[1], m[2], text[: m.start(2)].count("\n") + 1) for m in found]


def name_of(path: Path) -> str:
    """The path of a page inside the repository."""
    return str(path.relative_to(ROOT))
