"""The charts of a page as files, one picture each: for slides, papers and README files. Drawn by a browser, through kaleido."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from kerneldyno.bench.journal import JournalError

from . import summary
from .frame import replacing, rows
from .heatmap import heatmap
from .sections import Drawing
from .shapes import SHORT_DTYPES, grids, titles, variants
from .standalone import described, standalone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kerneldyno.bench.journal import Run

    from .figures import Figure
    from .frame import Frames

Form = Literal["png", "svg"]
SCALE = 2
MOST_TABS = 4
TIMEOUT_S = 60.0
"""For one picture."""
NAME_LENGTH = 90


class PictureError(JournalError):
    """Pictures cannot be made here; the message says what is missing, or what went wrong."""


def write(frames: Frames, folder: Path, form: Form) -> list[Path]:
    """Write every chart of the run's page, and an overview of each operator, into a folder; the paths of the files.

    Nothing is written unless all could be drawn; files of the same names are replaced. Raises PictureError where kaleido or a
    browser is missing, or the browser fails; OSError when the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise PictureError(f"--{form} {folder}: is a file: give a folder, which need not exist yet")
    made = figures(frames)
    drawn = draw(list(made.values()), form)
    folder.mkdir(parents=True, exist_ok=True)
    return [
        replacing(folder / f"{name}.{form}", lambda path, data=data: path.write_bytes(data))  # type: ignore[misc]
        for name, data in zip(made, drawn, strict=True)
    ]


def figures(frames: Frames) -> dict[str, Figure]:
    """Every picture under the name of its file without the ending: overviews first, then the page's charts in its order."""
    drawing = Drawing(frames)
    sections = drawing.sections()
    common = _common(frames.run)
    below = described(summary.machine(frames.run), summary.date(frames.run), f"protocol {frames.run.manifest.settings.protocol.name}")
    made: dict[str, Figure] = dict(_overviews(frames, below))
    for section in sections:
        for block in section.blocks:
            for chart in [*block.charts, *block.choice]:
                kind = chart.id.partition(f"-{block.operator}")[0]
                operator = summary.OPERATORS.get(block.operator, block.operator)
                shown = described(*(fact for fact in chart.title.split(" · ") if fact not in {operator, block.operator})) or chart.title
                name = _free(f"{kind}-{block.operator}-{shown}", made)
                shape = _facts(frames.run, shown, SHORT_DTYPES.get(chart.dtype, chart.dtype), common[block.operator])
                made[name] = standalone(drawing.figures[chart.id], f"{operator}: {_lower(section.heading)}", (shape, below))
    return made


def draw(figures: list[Figure], form: Form) -> list[bytes]:
    """The figures as files of this form, twice as large as their layout says. Raises PictureError when they cannot be drawn."""
    try:
        import kaleido  # noqa: F401
    except ImportError:
        raise PictureError("pictures need kaleido, which is not installed: pip install 'kerneldyno[pictures]'") from None
    from choreographer.errors import ChromeNotFoundError, DevtoolsProtocolError

    try:
        with ThreadPoolExecutor(1) as pool:  # a notebook has an event loop of its own in this thread
            return pool.submit(asyncio.run, _drawn(figures, form)).result()
    except ChromeNotFoundError:
        named = os.environ.get("BROWSER_PATH")
        lacking = "none was found" if named is None else f"BROWSER_PATH={named!r} is none"
        raise PictureError(
            f"pictures are drawn by Chrome or Chromium, and {lacking}: install one (apt install chromium) or name it in BROWSER_PATH"
        ) from None
    except (RuntimeError, OSError, TimeoutError, DevtoolsProtocolError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise PictureError(f"the browser drew no pictures ({said}): try another one, by its path in BROWSER_PATH") from error


async def _drawn(figures: list[Figure], form: Form) -> list[bytes]:
    """One browser for all; no formulas, whose library would be fetched from the network."""
    import kaleido

    tabs = max(1, min(MOST_TABS, os.cpu_count() or 1, len(figures)))
    async with kaleido.Kaleido(n=tabs, mathjax=False, timeout=TIMEOUT_S) as browser:
        drawn = list(await asyncio.gather(*(browser.calc_fig(figure, opts=_options(figure, form)) for figure in figures)))
    return [_settled(data) for data in drawn] if form == "svg" else drawn


def _settled(data: bytes) -> bytes:
    """An SVG with identifiers that follow from what it shows, where plotly draws them by lot: the same figure is the same file."""
    found = re.search(rb'id="defs-([0-9a-f]{6})"', data)
    if found is None:
        return data
    return data.replace(found[1], hashlib.sha256(data.replace(found[1], b"")).hexdigest()[:6].encode())


def _options(figure: Figure, form: Form) -> dict[str, Any]:
    return {"format": form, "width": figure["layout"]["width"], "height": figure["layout"]["height"], "scale": SCALE}


def _overviews(frames: Frames, below: str) -> Iterator[tuple[str, Figure]]:
    """A heatmap of each table of the page's first screen."""
    by_case = variants(frames.run.cases)
    counted: dict[str, int] = {}
    for grid in grids(rows(frames.results), by_case):
        number = counted[grid.operator] = counted.get(grid.operator, 0) + 1
        operator = summary.OPERATORS.get(grid.operator, grid.operator)
        name = _slug(f"overview-{grid.operator}" + f"-{number}" * (number > 1))
        title = f"{operator}: speed against the baseline, higher is better"
        yield name, standalone(heatmap(list(grid.cells.values()), frames.winners), title, (_facts(frames.run, grid.common), below))


def _common(run: Run) -> dict[str, str]:
    """Operator -> what all its problems share, in words."""
    found = variants(run.cases)
    operators = dict.fromkeys(variant.operator for variant in found.values())
    return {operator: titles(variant for variant in found.values() if variant.operator == operator)[1] for operator in operators}


def _facts(run: Run, *texts: str) -> str:
    """What these texts say of a shape, each fact once; the device is told elsewhere."""
    facts = dict.fromkeys(fact for text in texts for fact in text.split(" · "))
    said = " ".join(texts[:1]).split()
    return described(
        *(fact for number, fact in enumerate(facts) if fact != run.manifest.environment.device and (not number or fact not in said))
    )


def _lower(heading: str) -> str:
    return heading[:1].lower() + heading[1:]


def _free(text: str, taken: Mapping[str, Any]) -> str:
    """A name for a file that no other picture has."""
    name = _slug(text)
    return next(found for number in range(1, len(taken) + 2) if (found := name if number == 1 else f"{name}-{number}") not in taken)


def _slug(text: str) -> str:
    """Letters, digits and hyphens that every file system takes, from any text."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("×", "x").replace("→", "-to-")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:NAME_LENGTH].strip("-") or "chart"
