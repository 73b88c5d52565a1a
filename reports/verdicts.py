"""What a comparison came to in words and numbers that every view shares: signs, ratios, changes, order, the terms explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kerneldyno.bench.comparison import Quantity
from kerneldyno.bench.verdict import EXIT_FINE, WORDS, Outcome, Ratio, Verdict, Word

from . import units

if TYPE_CHECKING:
    from kerneldyno.bench.comparison import Side, Terms
    from kerneldyno.bench.verdict import Canary, Change

SIGNS: dict[str, str] = {
    "REGRESSED": "▲",
    "FAILED": "✗",
    "MISSING": "∅",
    "INVALID": "!",
    "INCONCLUSIVE": "?",
    "IMPROVED": "▼",
    "NEW": "+",
    "SAME": "=",
    "DIFFERS": "≠",
}
"""Beside each word, so that colour never carries meaning alone: ▲ takes longer, ▼ takes less time."""

BAD: frozenset[Word] = frozenset({"REGRESSED", "FAILED", "MISSING", "INVALID"})
"""Words that fail a comparison, unless the cell is advisory."""

ORDERS: tuple[Quantity, ...] = ("memory", "errors", "energy")


def place(verdict: Verdict | Canary) -> str:
    """Which cell it is: "attention/fused at 4×8×512×64", with the base's kernel where that is another."""
    base = getattr(verdict, "base_kernel", verdict.kernel)
    against = f" against {base}" if base != verdict.kernel else ""
    return f"{verdict.kernel}{against} at {verdict.label}"


def number(ratio: Ratio | None) -> str:
    """`1.052 [1.041, 1.063]`; nothing where there is no ratio."""
    return f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio else ""


def percent(ratio: float | None) -> str:
    """A ratio as a change: `+5.2 %`."""
    return f"{100 * (ratio - 1):+.1f} %" if ratio is not None else ""


def times(ratio: Ratio | None) -> str:
    """`1.16 ms → 1.22 ms`, base first."""
    return f"{units.quantity(ratio.base_s, 's')} → {units.quantity(ratio.other_s, 's')}" if ratio else ""


def amount(value: float | None, unit: str) -> str:
    """A quantity that is not a time: `12.0 MiB`, `0.41 naive errors`; a dash for None."""
    if value is None:
        return "–"
    return units.quantity(value, unit) if unit in units.SCALES else f"{units.digits(value)} {unit}".strip()


def sides(change: Change | None) -> str:
    """`12.0 MiB → 14.0 MiB`, one value where nothing changed, nothing where neither side has one."""
    if change is None or (change.base is None and change.candidate is None):
        return ""
    before, after = amount(change.base, change.unit), amount(change.candidate, change.unit)
    return after if before == after else f"{before} → {after}"


def told(verdict: Verdict) -> list[str]:
    """Everything that is known of a cell, a line for each: reason, time, the other quantities, how it was looked at."""
    lines = [f"{verdict.word}: {verdict.reason}"]
    if verdict.latency:
        lines += [
            f"time: {number(verdict.latency)} ({percent(verdict.latency.ratio)}), {times(verdict.latency)}",
            f"{units.count(verdict.latency.processes, 'process', 'processes')}, "
            f"spread {units.quantity(verdict.latency.spread, 'share', 2)}, margin ± {units.quantity(verdict.latency.margin, 'share', 2)}",
        ]
    for name in (*ORDERS, *(name for name in verdict.changes if name not in ORDERS)):
        if change := verdict.changes.get(name):
            lines.append(f"{name}: {change.word}, {sides(change) or 'not measured'}: {change.reason}")
    return lines + remarks(verdict)


def remarks(verdict: Verdict) -> list[str]:
    """What a reader should know about how this cell was decided; mostly nothing."""
    said = []
    if verdict.advisory:
        said.append("advisory: it scatters so much that only a large change counts")
    if verdict.word in BAD and not verdict.fails:
        said.append("does not fail the comparison")
    if verdict.unchanged:
        said.append("its source is the same on both sides: a difference is not its doing")
    if verdict.adjacent:
        said.append(f"measured in adjacent processes: {verdict.adjacent}")
    if verdict.looks > 1:
        said.append(f"looked at {verdict.looks} times")
    if verdict.power is not None:
        said.append(f"+5 % would have been seen with {units.quantity(verdict.power, 'share', 2)}")
    return said


def gate(outcome: Outcome) -> str:
    """Sign and words for the whole: `✓ passes`, `✗ fails (exit 1: regression)`."""
    if outcome.exit_code != EXIT_FINE:
        return f"✗ fails (exit {outcome.exit_code}: {outcome.meaning})"
    if outcome.advisory:
        return "✓ advisory: it gates nothing (exit 0)"
    doubts = outcome.count("INCONCLUSIVE")
    return f"✓ passes, {doubts} inconclusive (exit 0)" if doubts else "✓ passes (exit 0)"


def side(one: Side) -> str:
    """`origin/main (0123abc4d5)`."""
    commit = one.commit or ""
    short = commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")
    return f"{one.label} ({short})" if commit and commit != one.label else one.label


def counts(outcome: Outcome) -> list[tuple[Word, int]]:
    """(word, cells) for every word that occurs, in the order of WORDS."""
    return [(word, count) for word in WORDS if (count := outcome.count(word))]


def canary_state(outcome: Outcome) -> str:
    """What the canaries say, in a sentence."""
    words = [canary.word for canary in outcome.canaries]
    if not words:
        return "no canary: no base was compared with its own copy"
    said = ", ".join(f"{words.count(word)} {word}" for word in ("DIFFERS", "FAILED", "INCONCLUSIVE", "SAME") if word in words)
    return f"{units.count(len(words), 'base')} compared with {'its' if len(words) == 1 else 'their'} own copy: {said}"


def decided(terms: Terms) -> list[tuple[str, str]]:
    """(term, what it means here): by which rule a cell gets its word."""

    def share(value: float) -> str:
        return units.quantity(value, "share", 2)

    most = max(terms.processes, terms.more_processes) + terms.second_look
    return [
        ("ratio", "time of the candidate over time of the base, both measured side by side in the same fresh process; above 1 is slower"),
        ("interval", "two-sided 95 %, over processes: how far the ratio would move if it were measured again in new processes"),
        (
            "processes",
            f"{terms.processes} per cell, {terms.more_processes} where pairs scatter by more than {share(terms.restless)}; once "
            f"{terms.second_look} more where a cell is regressed or inconclusive; never more than {most}",
        ),
        ("margin", f"a ratio within ± {share(terms.margin)} of 1 is no change; a cell with a noisy copy of its own has a wider margin"),
        (
            "REGRESSED, IMPROVED",
            f"beyond the margin by a one-sided test; a false alarm in all cells together has a chance of at most {share(terms.alpha)} "
            f"in either direction (Holm's correction, {share(terms.first_look)} of it spent at the first look)",
        ),
        ("SAME", "both one-sided 95 % bounds lie inside the margin: shown to be the same, not merely not shown to differ"),
        ("INCONCLUSIVE", f"neither; more than {share(terms.too_many_inconclusive)} of the cells make the comparison too noisy (exit 4)"),
        (
            "advisory",
            f"a cell that scatters by more than {share(terms.noisy)} from process to process: only a change beyond "
            f"± {share(terms.noisy_margin)} counts",
        ),
        (
            "canary",
            f"a base against its own copy: should one differ by more than {share(terms.canary_margin)} "
            f"(chance of a false alarm {share(terms.canary_alpha)}), the comparison is invalid (exit 4)",
        ),
        ("what fails it", f"{units.listed(terms.gates)}; anything else is shown only"),
        (
            "exit codes",
            "0 fine, 1 regression, 2 usage, 3 not comparable, 4 too noisy or a canary differs, 5 cases failed, wrong or missing",
        ),
    ]
