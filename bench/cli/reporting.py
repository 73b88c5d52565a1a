"""`kerneldyno report`: tables and pages of stored runs, derived anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import comparing

if TYPE_CHECKING:
    from rich.console import Console

Folder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Png = Annotated[Path | None, typer.Option("--png", metavar="DIR", help="Write every chart as a PNG picture, too (needs a browser).")]
Svg = Annotated[Path | None, typer.Option("--svg", metavar="DIR", help="Write every chart as an SVG picture, too.")]
Plain = Annotated[bool, typer.Option(help="Embed the chart library uncompressed, for browsers without DecompressionStream.")]


def report(run_folder: Folder, plain: Plain = False, png: Png = None, svg: Svg = None) -> None:
    """Write results.csv, results.parquet, samples.parquet and report.html of a run again; the files of a comparison likewise."""
    from .. import journal

    if journal.read(run_folder).manifest.comparison is not None:
        if png or svg:
            raise _no_pictures(f"{run_folder} is a comparison")
        raise typer.Exit(comparing.again(console(), run_folder, plain=plain))
    draw(run_folder, png, svg)
    say_path("report:", write(run_folder, plain=plain))


def draw(folder: Path, png: Path | None, svg: Path | None) -> None:
    """Write a run's charts as pictures into the folders that are given. Raises UsageError or PictureError when it cannot be done."""
    from kerneldyno.reports import frame, pictures

    from ..plan import UsageError

    frames = frame.load(folder)
    for place, form in ((png, "png"), (svg, "svg")):
        if place is None:
            continue
        try:
            made = pictures.write(frames, place, form)  # type: ignore[arg-type]
        except OSError as error:
            raise UsageError(f"--{form} {place}: cannot be written ({error.strerror or error}): give another folder") from error
        say_path(f"{len(made)} pictures:", place)


def _no_pictures(why: str) -> Exception:
    from ..plan import UsageError

    return UsageError(f"--png and --svg draw the charts of one run, and {why}: name the folder of a run")


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
