"""A comparison as Markdown for a job's summary or a comment on a pull request, never longer than it may be.

Every text that came from a user (names, labels, reasons) is escaped for Markdown, for tables and for HTML, and mentions or
references in it (@somebody, #12) are broken with a zero-width space, so that they reach nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kerneldyno.bench.verdict import EXIT_FINE, Outcome, Verdict, worst_first

from . import units, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COMMENT_BYTES = 56_000
"""GitHub takes 65 536 characters in a comment, and comment.yml makes some of them longer …"""
SUMMARY_BYTES = 2**20 - 1024
"""… and 1 MiB in the summary of a step."""
LONGEST = 400
"""Characters of one text in a cell; the page and verdict.json have it whole."""

SPECIAL = {character: f"&#{ord(character)};" for character in "&<>|\\`*_[]()~!#$\"'\u200b"}
PINGING = re.compile(r"@|#(?=\d)|(?<=GH)-(?=\d)|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""What GitHub turns into mentions, references and links, entities or not: a zero-width space after it prevents that."""

MOST_WARNINGS = 20
HEAD = ("verdict", "kernel and problem", "time ratio [95 %]", "change", "base → candidate", "memory", "errors", "why")


@dataclass
class Block:
    """A part of the document whose lines may be cut from the end."""

    head: str
    lines: list[str] = field(default_factory=list)
    tail: str = ""
    more: str = "and {} more"
    """What stands in the place of lines that are cut; `{}` is their number."""

    def text(self, kept: int) -> str:
        """With only the first `kept` lines."""
        cut = len(self.lines) - kept
        return self.head + "".join(self.lines[:kept]) + (self.more.format(cut) + "\n" if cut else "") + self.tail + "\n"

    def size(self, kept: int) -> int:
        return len(self.text(kept).encode())


def markdown(outcome: Outcome, limit_bytes: int = COMMENT_BYTES) -> str:
    """The whole comparison; what does not fit is cut from the end of its table, worst first, with "and N more"."""
    blocks = [block for block in _blocks(outcome) if block.lines or block.head]
    # in the order of the document every block gets its frame, then its lines, as long as there is room
    while len(blocks) > 1 and sum(block.size(0) for block in blocks) > limit_bytes:
        blocks.pop()
    kept = [0] * len(blocks)
    room = limit_bytes - sum(block.size(0) for block in blocks)
    for index, block in enumerate(blocks):
        kept[index] = _fitting(block, room)
        room -= block.size(kept[index]) - block.size(0)
    text = "".join(block.text(count) for block, count in zip(blocks, kept, strict=True))
    return text.encode()[:limit_bytes].decode(errors="ignore")


def _fitting(block: Block, room: int) -> int:
    """How many lines fit into so many bytes more than the empty block needs."""
    if block.size(len(block.lines)) - block.size(0) <= room:
        return len(block.lines)
    kept = used = 0
    while kept < len(block.lines) - 1 and used + len(block.lines[kept].encode()) <= room:
        used += len(block.lines[kept].encode())
        kept += 1
    return kept


def escaped(text: str, longest: int = LONGEST) -> str:
    """One line of text that is nothing but text: in a table, in HTML, for GitHub's mentions, references and links."""
    flat = _flat(text)
    short = flat if len(flat) <= longest else flat[: longest - 1] + "…"
    broken = PINGING.sub(lambda found: found[0] + "\u200b", short)
    safe = "".join(SPECIAL.get(character, character) for character in broken)
    return re.sub(r"^(?:[-+=]|\d+(?=[.]))", lambda found: "".join(f"&#{ord(character)};" for character in found[0]), safe)


def _flat(text: str) -> str:
    """On one line, without control characters, lone surrogates and marks that change the direction of writing."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def code(text: str) -> str:
    """A name, set as code."""
    return f"<code>{escaped(text, 120)}</code>"


def fenced(text: str) -> str:
    """A command in a block of its own, to be copied; the fence is longer than any in it."""
    flat = _flat(text[:4000])
    ticks = max((len(run) for run in re.findall("`+", flat)), default=0)
    fence = "`" * max(3, ticks + 1)
    return f"{fence}sh\n{flat}\n{fence}\n"


def _blocks(outcome: Outcome) -> Iterable[Block]:
    """In the order of the document, which is the order of importance."""
    ordered = worst_first(outcome.verdicts)
    yield _top(outcome)
    if outcome.warnings:
        beyond = len(outcome.warnings) - MOST_WARNINGS
        lines = [f"- {escaped(warning)}\n" for warning in outcome.warnings[:MOST_WARNINGS]]
        yield Block("**Warnings**\n\n", lines, f"- and {beyond} more\n" if beyond > 0 else "", "- and {} more")
    yield _table("", [verdict for verdict in ordered if verdict.word != "SAME"])
    if outcome.means:
        means = "; ".join(f"{escaped(mean.operator, 40)} {mean.ratio:.3f} (n = {mean.cells})" for mean in outcome.means[:20])
        yield Block(f"Geometric mean of the ratios of cells that both sides have: {means}\n")
    if outcome.sensitivity:
        yield Block(f"{escaped(outcome.sensitivity)}\n")
    yield _canaries(outcome)
    if outcome.changed:
        lines = [f"- {code(kernel)}: {escaped(files)}\n" for kernel, files in sorted(outcome.changed.items())]
        head = f"<details><summary>{units.count(len(lines), 'changed kernel')}</summary>\n\n"
        yield Block(head, lines, "\n</details>\n", "- and {} more")
    if outcome.command:
        yield Block(f"**Reproduce**\n\n{fenced(outcome.command)}")
    yield _terms(outcome)
    yield from _not_compared(outcome)
    same = [verdict for verdict in ordered if verdict.word == "SAME"]
    yield _table(f"{units.count(len(same), 'cell')} SAME: shown to lie within the margin", same)


def _top(outcome: Outcome) -> Block:
    sign = "✅" if outcome.exit_code == EXIT_FINE and not outcome.count("INCONCLUSIVE") else "⚠️" if outcome.exit_code == EXIT_FINE else "❌"
    told = ", ".join(f"{count} {word}" for word, count in verdicts.counts(outcome)) or "no cell was compared"
    lines = [
        f"### {sign} {escaped(outcome.headline)}",
        f"**{escaped(verdicts.gate(outcome).lstrip('✓✗ '))}** · {told} · {escaped(verdicts.canary_state(outcome))}",
        f"{escaped(verdicts.side(outcome.base))} (base) against {escaped(verdicts.side(outcome.candidate))} (candidate) on "
        f"{escaped(outcome.device_name)}, kerneldyno {escaped(outcome.version, 40)}",
    ]
    return Block("\n\n".join(lines) + "\n")


def _table(folded: str, rows: Sequence[Verdict]) -> Block:
    """A table of verdicts, inside <details> where `folded` is its summary; nothing where there are no rows."""
    if not rows:
        return Block("")
    head = f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}\n"
    opening, closing = (f"<details><summary>{folded}</summary>\n\n", "\n</details>\n") if folded else ("", "")
    more = f"| … | and {{}} more: see comparison.html or verdict.json |{' |' * (len(HEAD) - 2)}"
    return Block(opening + head, [_row(verdict) for verdict in rows], closing, more)


def _row(verdict: Verdict) -> str:
    against = f" against {code(verdict.base_kernel)}" if verdict.base_kernel != verdict.kernel else ""
    word = f"{verdicts.SIGNS[verdict.word]} **{verdict.word}**" if verdict.word != "SAME" else "= SAME"
    changes = verdict.changes
    shown = [
        word,
        f"{code(verdict.kernel)}{against}<br>{escaped(verdict.label, 120)}",
        _escaped_number(verdicts.number(verdict.latency)),
        verdicts.percent(verdict.latency.ratio) if verdict.latency else "",
        verdicts.times(verdict.latency),
        _change(verdict, "memory"),
        _change(verdict, "errors"),
        "; ".join(escaped(text) for text in (verdict.reason, *verdicts.remarks(verdict))),
    ]
    if "energy" in changes:
        shown[-1] += f"; energy {_change(verdict, 'energy')}"
    return f"| {' | '.join(shown)} |\n"


def _escaped_number(text: str) -> str:
    return text.replace("[", SPECIAL["["]).replace("]", SPECIAL["]"])


def _change(verdict: Verdict, name: str) -> str:
    change = verdict.changes.get(name)
    if change is None:
        return ""
    word = f" **{change.word}**" if change.word not in {"SAME", "INCONCLUSIVE"} else ""
    return f"{escaped(verdicts.sides(change) or 'not measured', 80)}{word}"


def _canaries(outcome: Outcome) -> Block:
    lines = [
        f"- {verdicts.SIGNS.get(canary.word, '')} {canary.word}: {code(canary.kernel)} {escaped(canary.label, 120)} "
        f"{_escaped_number(verdicts.number(canary.ratio))} {escaped(canary.reason)}\n"
        for canary in outcome.canaries
    ]
    if not lines:
        return Block("")
    head = f"<details><summary>Canaries: {escaped(verdicts.canary_state(outcome))}</summary>\n\n"
    return Block(head, lines, "\n</details>\n", "- and {} more")


def _terms(outcome: Outcome) -> Block:
    lines = [f"- **{term}**: {escaped(meaning, 2000)}\n" for term, meaning in verdicts.decided(outcome.terms)]
    return Block("<details><summary>How it was decided</summary>\n\n", lines, "\n</details>\n", "- and {} more")


def _not_compared(outcome: Outcome) -> Iterable[Block]:
    for names, summary in (
        (outcome.left_out, "left out: the budget had no time for them"),
        (outcome.unchanged, "not compared: nothing that they are made of differs"),
    ):
        if names:
            noun = "cell" if names is outcome.left_out else "kernel"
            head = f"<details><summary>{units.count(len(names), noun)} {summary}</summary>\n\n"
            yield Block(head, [f"- {code(name)}\n" for name in names], "\n</details>\n", "- and {} more")
