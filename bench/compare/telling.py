"""What the terminal shows of a comparison: a table that fits 100 columns, worst first, and the headline as the last line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from ..terminal import duration, seconds
from ..verdict import EXIT_FINE, Outcome, Ratio, Verdict, worst_first

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {
    "REGRESSED": "bold red",
    "FAILED": "bold red",
    "MISSING": "bold red",
    "INVALID": "bold red",
    "DIFFERS": "bold red",
    "INCONCLUSIVE": "yellow",
    "IMPROVED": "green",
    "NEW": "cyan",
    "SAME": "dim",
}
FEW = 5
"""So many SAME cells are shown one by one; of more only the number."""
MOST = 60
"""Rows of the table."""
MOST_NAMES = 6
BAD = ("REGRESSED", "FAILED", "MISSING", "INVALID")
EXPLAINED = (*BAD, "INCONCLUSIVE")
"""Words whose reason is told below the table."""
HEADINGS = ("change", "ratio [95 %]", "base → candidate")
PADDING = 14
"""Of a table of five columns: two on either side of each border."""
LEAST_NAME, LONGEST_NAME = 10, 120


def tell(console: Console, outcome: Outcome) -> None:
    """Print the table, what must be known beside it, and the headline."""
    rows = worst_first(outcome.verdicts)
    same = outcome.count("SAME")
    shown = [verdict for verdict in rows if verdict.word != "SAME" or same <= FEW]
    if shown:
        console.print(table(shown[:MOST], _title(outcome), console.width))
    for line in _lines(outcome, shown):
        console.print(line, highlight=False, soft_wrap=True)
    style = "green" if outcome.exit_code == EXIT_FINE else "bold red"
    meaning = f"exit {outcome.exit_code}: {plain(outcome.meaning)}"
    console.print(f"[{style}]{plain(outcome.headline)}[/] [dim]({meaning})[/]", highlight=False, soft_wrap=True)


def table(rows: Sequence[Verdict], title: str = "", width: int = 100) -> Table:
    """A row for each verdict; where there is too little room, names are broken and numbers are not."""
    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    numbers = [_numbers(verdict) for verdict in rows]
    beside = sum(max(map(cell_len, column)) for column in zip(HEADINGS, *numbers, strict=True))
    word = max((len(_word(verdict)) for verdict in rows), default=0)
    room = max(LEAST_NAME, width - beside - max(word, len("verdict")) - PADDING)
    made.add_column("verdict", no_wrap=True)
    made.add_column("kernel and problem", overflow="fold", max_width=room)
    for name in HEADINGS:
        made.add_column(name.replace("[", "\\["), justify="right", no_wrap=True)
    for verdict, shown in zip(rows, numbers, strict=True):
        name = plain(f"{verdict.kernel} {verdict.label}"[:LONGEST_NAME])
        made.add_row(f"[{STYLES[verdict.word]}]{_word(verdict)}[/]", name, *map(plain, shown))
    return made


def _word(verdict: Verdict) -> str:
    return verdict.word + ("*" if verdict.word in BAD and not verdict.fails else "")


def plain(text: str) -> str:
    """A user's text for rich: no markup, nothing that moves the cursor."""
    return escape("".join(character if character.isprintable() else " " for character in text))


def _numbers(verdict: Verdict) -> tuple[str, str, str]:
    """Change, ratio with interval and both times; where the word comes from another quantity, that one's sides too."""
    others = [f"{name} {change.word}" for name, change in verdict.changes.items() if change.word in {"REGRESSED", "IMPROVED"}]
    if verdict.latency is None:
        return "", "", ", ".join(others) or "–"
    ratio = verdict.latency
    return f"{ratio.ratio - 1:+.1%}", _interval(ratio), f"{seconds(ratio.base_s)} → {seconds(ratio.other_s)}"


def _interval(ratio: Ratio) -> str:
    return f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _title(outcome: Outcome) -> str:
    return plain(f"{_side(outcome.candidate.label, outcome.candidate.commit)} against {_side(outcome.base.label, outcome.base.commit)}")


def _side(label: str, commit: str | None) -> str:
    return f"{label} ({commit[:10]})" if commit and commit != label else label


def _lines(outcome: Outcome, shown: list[Verdict]) -> Iterable[str]:
    """Below the table: reasons and counts, then the rest."""
    if len(shown) > MOST:
        yield f"and {len(shown) - MOST} more rows"
    if any("*" in _word(verdict) for verdict in shown):
        yield "* does not fail the comparison"
    explained = [verdict for verdict in shown if verdict.word in EXPLAINED][:MOST]
    for verdict in explained:
        yield f"[{STYLES[verdict.word]}]{verdict.word}[/] {plain(f'{verdict.kernel} at {verdict.label}: {verdict.reason}')}"
    if (same := outcome.count("SAME")) > FEW:
        yield f"[dim]and {same} SAME[/]"
    yield from _beside(outcome)


def _beside(outcome: Outcome) -> Iterable[str]:
    """What concerns no single row."""
    for canary in outcome.canaries:
        if canary.word != "SAME":
            style = STYLES.get(canary.word, "yellow")
            yield f"[{style}]canary {canary.word}[/] {plain(f'{canary.kernel} at {canary.label}: {canary.reason}')}"
    if (quiet := sum(canary.word == "SAME" for canary in outcome.canaries)) > 0:
        yield f"{quiet} of {len(outcome.canaries)} canaries SAME"
    for warning in outcome.warnings:
        yield f"[yellow]warning[/] {plain(warning)}"
    if outcome.left_out:
        yield f"{len(outcome.left_out)} cells left out by the budget: {_some(outcome.left_out)}"
    if outcome.unchanged:
        yield f"{len(outcome.unchanged)} kernels unchanged, not compared: {_some(outcome.unchanged)}"
    for mean in outcome.means:
        yield plain(f"{mean.operator}: geometric mean of the ratios {mean.ratio:.3f} (n = {mean.cells})")
    if outcome.sensitivity:
        yield plain(outcome.sensitivity)
    if outcome.wall_s is not None:
        yield f"{duration(outcome.wall_s)} in all"


def _some(names: Iterable[str]) -> str:
    given = list(names)
    return plain(", ".join(given[:MOST_NAMES]) + (f" and {len(given) - MOST_NAMES} more" if len(given) > MOST_NAMES else ""))
