"""The command line of the benchmark of reports: `python -m kerneldyno.reports.growth`."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from . import browser as browsers
from . import telling
from .costs import Costs, missed
from .stages import StageError, in_fresh_process

MISSED = 5
PAGE_UP_TO = 10_000


def main(
    sizes: Annotated[str, typer.Option(help="Cases of the made-up runs, with commas.")] = "100,1000,10000,100000",
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of growth.json and growth.md.")] = Path("runs/growth"),
    browser: Annotated[bool, typer.Option(help="Open the pages in Chromium.")] = True,
    page_up_to: Annotated[int, typer.Option(min=0, help="Write no page of more cases.")] = PAGE_UP_TO,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the made-up samples.")] = 0,
) -> None:
    """How do reports grow with a run? Made-up runs of several sizes: what reading, tables and page cost, in fresh processes.

    Limits: a page of 100 cases has at most 3 MB and can be used within 1 s; of 10 000 cases at most 10 MB, is written within
    10 s and can be used within 10 s; 100 000 cases are in a frame within 10 s and 2 GiB. Exit with 5 when one is missed, with
    1 when a step failed. With the default sizes it takes some minutes and 2 GiB of memory.
    """
    measured = []
    why_not = browsers.why_not() if browser else "no browser was asked for"
    out.mkdir(parents=True, exist_ok=True)
    for size in _sizes(sizes):
        print(f"{size:,} cases …", file=sys.stderr, flush=True)
        with TemporaryDirectory(dir=out, prefix="run-") as folder:
            try:
                measured.append(_costs(Path(folder) / str(size), size, seed, size <= page_up_to, why_not))
            except StageError as error:
                print(f"kerneldyno: {error}", file=sys.stderr)
                raise typer.Exit(1) from error
    (out / "growth.json").write_bytes(msgspec.json.format(msgspec.json.encode({"machine": _machine(), "costs": measured}), indent=1))
    (out / "growth.md").write_text(telling.markdown(measured, _machine()), encoding="utf-8")
    console = Console()
    console.print(telling.table(measured))
    for line in [*telling.verdicts(measured), *telling.notes(measured)]:
        console.print(line, markup=False)
    raise typer.Exit(MISSED if missed(measured) else 0)


def _sizes(text: str) -> list[int]:
    """The sizes in ascending order; ends with 2 when they are none."""
    wanted = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in wanted):
        print(f"kerneldyno: --sizes {text!r} are no sizes: give whole numbers above 0, with commas, like 100,1000", file=sys.stderr)
        raise typer.Exit(2)
    return sorted({int(part) for part in wanted})


def _costs(folder: Path, size: int, seed: int, with_page: bool, why_not: str | None) -> Costs:
    """What one size costs; the run is made first."""
    in_fresh_process("make", folder, size, seed)
    found = in_fresh_process("tables", folder)
    if not with_page:
        return Costs(**found, notes=["the page was not written: --page-up-to says for how many cases it is"])
    found |= in_fresh_process("page", folder)
    return Costs(**found, **({"notes": [f"the page was not opened: {why_not}"]} if why_not else browsers.opened(folder / "report.html")))


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    typer.run(main)
