"""What a comparison leaves for people and machines: verdict.json, junit.xml, summary.md, comparison.html."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from . import comparison
from .frame import replacing
from .junit import junit
from .markdown import markdown

if TYPE_CHECKING:
    from kerneldyno.bench.verdict import Outcome

VERDICT, JUNIT, MARKDOWN, PAGE = "verdict.json", "junit.xml", "summary.md", "comparison.html"


def write(outcome: Outcome, folder: Path | str, *, plain: bool = False) -> Path:
    """Write all four into a folder; the page's path. Each replaces the one that was there as a whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    encoded = msgspec.json.format(msgspec.json.encode(outcome)) + b"\n"
    replacing(folder / VERDICT, lambda path: path.write_bytes(encoded))
    replacing(folder / JUNIT, lambda path: path.write_text(junit(outcome), encoding="utf-8"))
    replacing(folder / MARKDOWN, lambda path: path.write_text(markdown(outcome), encoding="utf-8"))
    comparison.render(outcome, folder / PAGE, plain=plain)
    return folder / PAGE
