"""`kerneldyno report`: tables and pages of stored runs, derived anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import comparing, places

if TYPE_CHECKING:
    from rich.console import Console

Folders = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folder of a run; several, or folders that hold runs: side by side.")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The page alone, there. (default: report.html in the run; of several together.html in the folder that holds them)",
    ),
]
Png = Annotated[Path | None, typer.Option("--png", metavar="DIR", help="Write every chart as a PNG picture, too (needs a browser).")]
Svg = Annotated[Path | None, typer.Option("--svg", metavar="DIR", help="Write every chart as an SVG picture, too.")]
Plain = Annotated[bool, typer.Option(help="Embed the chart library uncompressed, for browsers without DecompressionStream.")]


TOGETHER = "together.html"
"""The name of the page of several runs."""


def report(folders: Folders, out: Out = None, plain: Plain = False, png: Png = None, svg: Svg = None) -> None:
    """Write results.csv, results.parquet, samples.parquet and report.html of a run again; the files of a comparison likewise.

    Several runs, of other machines, versions or days, come onto one page: side by side, never pooled.

    That page is written into the folder that was given or that holds all runs given; into the current one where there is
    none, or where it may not be written.
    """
    from .. import journal

    run_folder = folders[0]
    if len(folders) > 1 or places.holds_runs(run_folder):
        if png or svg:
            raise _no_pictures("several are given")
        together(folders, out or places.beside(folders, TOGETHER), plain=plain)
    elif journal.read(run_folder).manifest.comparison is not None:
        if png or svg:
            raise _no_pictures(f"{run_folder} is a comparison")
        if out is not None:
            raise _not_elsewhere(run_folder)
        raise typer.Exit(comparing.again(console(), run_folder, plain=plain))
    else:
        draw(run_folder, png, svg)
        say_path("report:", write(run_folder, plain=plain) if out is None else page_alone(run_folder, out, plain=plain))


def together(folders: list[Path], out: Path, *, plain: bool = False) -> None:
    """Write the page of several runs and say what was left out. Raises JournalError, or UsageError when it cannot be written."""
    from kerneldyno.reports import together, together_page, together_text

    found = together.read(folders)
    for folder in found.left_out:
        print(f"kerneldyno: left out: {folder.sentence}", file=sys.stderr)
    with places.written("--out", out):
        together_page.write(found, out, plain=plain)
    print(together_text.headline(found))
    say_path("report:", out)


def page_alone(folder: Path, out: Path, *, plain: bool = False) -> Path:
    """Write the page of a run elsewhere, and nothing into its folder; the page. Raises UsageError when it cannot be written."""
    from kerneldyno.reports import frame, page

    text = page.html(frame.load(folder), plain=plain)
    with places.written("--out", out):
        return frame.replacing(out, lambda path: path.write_text(text, encoding="utf-8"))


def _not_elsewhere(folder: Path) -> Exception:
    from ..plan import UsageError

    return UsageError(f"--out is for the page of runs, and {folder} is a comparison, whose files stay together: leave --out away")


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
