"""`kerneldyno history` and `kerneldyno export`: stored runs, many of them or for other tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

Folders = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders that hold runs.")]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Form = Annotated[str, typer.Option("--format", metavar="FORMAT", help="Only pytest-benchmark so far.")]
Page = Annotated[Path, typer.Option(metavar="FILE", help="The page.")]
Csv = Annotated[Path | None, typer.Option(metavar="FILE", help="The frame, too: one row per run and case.")]


def history(folders: Folders, out: Page = Path("runs/history.html"), csv: Csv = None) -> None:
    """Follow kernels over many runs: one frame, and a page that says which latencies changed their level. Never a gate."""
    from kerneldyno.reports import history, history_page, history_text
    from kerneldyno.reports.frame import replacing

    found = history.read(folders)
    for folder in found.left_out:
        print(f"kerneldyno: left out: {folder.sentence}", file=sys.stderr)
    page = history_page.write(found, out)
    print(history_text.headline(found))
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        print(f"frame: {replacing(csv, lambda path: found.frame.to_csv(path, index=False))}")
    print(f"history: {page}")


def export(
    run_folder: Folder,
    form: Form = "pytest-benchmark",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="(default: RUN/pytest-benchmark.json)")] = None,
) -> None:
    """Write a stored run as a file that other tools read: the JSON of pytest-benchmark."""
    from .. import export as exporting

    done = exporting.export(run_folder, out, form)
    if done.notice:
        print(f"kerneldyno: {done.notice}", file=sys.stderr)
    print(f"export: {done.path}")
