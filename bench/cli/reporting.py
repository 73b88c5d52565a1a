"""`kerneldyno report`: tables and pages of stored runs, derived anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import comparing

if TYPE_CHECKING:
    from rich.console import Console

Folder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Plain = Annotated[bool, typer.Option(help="Embed the chart library uncompressed, for browsers without DecompressionStream.")]


def report(run_folder: Folder, plain: Plain = False) -> None:
    """Write results.csv, results.parquet, samples.parquet and report.html of a run again; the files of a comparison likewise."""
    from .. import journal

    if journal.read(run_folder).manifest.comparison is not None:
        raise typer.Exit(comparing.again(console(), run_folder, plain=plain))
    say_path("report:", write(run_folder, plain=plain))


def write(folder: Path, *, plain: bool = False) -> Path:
    """Derive tables and page from the journal; return the page. Raises UsageError when the folder cannot take them."""
    from kerneldyno.reports import frame, page

    from ..plan import UsageError

    try:
        frame.write_tables(folder)
        return page.render(folder, plain=plain)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(
            f"tables and report of {folder} could not be written ({why}): what was measured is kept; make room or give "
            f"permission, then: kerneldyno report {folder}"
        ) from error


def say_path(what: str, path: Path) -> None:
    """Print a path in one piece, whatever it looks like."""
    from rich.markup import escape

    console().print(f"{what} {escape(str(path))}", soft_wrap=True, highlight=False)


def console() -> Console:
    """The terminal."""
    from rich.console import Console

    return Console()
