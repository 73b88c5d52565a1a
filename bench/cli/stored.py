"""`kerneldyno history` and `kerneldyno export`: stored runs, many of them or for other tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import places

Folders = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders that hold runs.")]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Form = Annotated[str, typer.Option("--format", metavar="FORMAT", help="csv or json: one row per case; or pytest-benchmark.")]
Page = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The page. (default: history.html in the folder given, or that holds the runs given)")
]
Csv = Annotated[Path | None, typer.Option(metavar="FILE", help="The frame, too: one row per run and case.")]


def history(folders: Folders, out: Page = None, csv: Csv = None) -> None:
    """Follow kernels over many runs: one frame, and a page that says which latencies changed their level. Never a gate.

    The page is written into the current folder where no folder holds all runs given, or where that may not be written.
    """
    from kerneldyno.reports import history, history_page, history_text
    from kerneldyno.reports.frame import replacing

    found = history.read(folders)
    for folder in found.left_out:
        print(f"kerneldyno: left out: {folder.sentence}", file=sys.stderr)
    page = out or places.beside(folders, "history.html")
    with places.written("--out", page):
        history_page.write(found, page)
    print(history_text.headline(found))
    if csv is not None:
        with places.written("--csv", csv):
            print(f"frame: {replacing(csv, lambda path: found.frame.to_csv(path, index=False))}")
    print(f"history: {page}")


def export(
    run_folder: Folder,
    form: Form = "pytest-benchmark",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="(default: RUN/results.csv, results.json, pytest-benchmark.json)")
    ] = None,
) -> None:
    """Write a stored run as a file that other tools read: its table as CSV or JSON, or the JSON of pytest-benchmark."""
    from kerneldyno.reports import downloads

    from .. import export as exporting
    from ..plan import UsageError

    if form in downloads.FORMATS:
        print(f"export: {_table(run_folder, out, form)}")
        return
    if form not in exporting.FORMATS:
        raise UsageError(f"--format {form!r} is unknown: choose from {', '.join((*downloads.FORMATS, *exporting.FORMATS))}")
    done = exporting.export(run_folder, out, form)
    if done.notice:
        print(f"kerneldyno: {done.notice}", file=sys.stderr)
    print(f"export: {done.path}")


def _table(folder: Path, out: Path | None, form: str) -> Path:
    """The results of a run as a file. Raises UsageError where they cannot be one."""
    from kerneldyno.reports import downloads, frame

    from ..plan import UsageError

    frames = frame.load(folder)
    if frames.run.manifest.comparison is not None:
        raise UsageError(f"{folder} is a comparison, whose result is verdict.json: kerneldyno report {folder} writes it again")
    path = out or folder / f"results.{form}"
    try:
        return downloads.write(frames.results, path, form)
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be written ({error.strerror or error}): give another file") from error
