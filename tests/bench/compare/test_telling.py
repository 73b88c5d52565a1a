"""The terminal's table: fits 100 columns, worst first, the same folded, no markup of a user's, the headline last."""

from __future__ import annotations

import io
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from rich.console import Console

from kerneldyno.bench.compare.telling import MOST, tell
from kerneldyno.bench.verdict import WORDS, Outcome, worst_first

ROOT = Path(__file__).parents[2]
sample = SimpleNamespace(**runpy.run_path(str(ROOT / "reports" / "outcomes.py")))


def told(outcome: Outcome, width: int = 100) -> list[str]:
    written = io.StringIO()
    tell(Console(file=written, width=width), outcome)
    return written.getvalue().splitlines()


def table(lines: list[str]) -> list[str]:
    """The lines between the rule below the headings and the empty line that ends a table."""
    first = next(index for index, line in enumerate(lines) if set(line.strip()) == {"─"}) + 1
    return lines[first : next(index for index in range(first, len(lines)) if not lines[index].strip())]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_table_fits_and_no_number_is_cut(width: int) -> None:
    lines = told(sample.rich(), width)
    rows = table(lines)
    assert max(map(len, rows)) <= width
    slower = next(row for row in rows if "+5.2%" in row)
    for words in ("REGRESSED", "attention", "1.052 [1.040, 1.064]", "1.16 ms → 1.22 ms"):
        assert words in slower
    names = "".join(row[15:].split("  ")[0].strip() for row in rows)
    assert "512→2048" in names.replace(" ", "")  # broken where it must be, not cut
    assert "REGRESSED attention/int8 at 4×8×512×64 fp32: memory: +8,388,608 bytes at the peak of a call (+66.7%)" in lines


def test_worst_first_and_the_same_are_folded() -> None:
    lines = told(sample.rich())
    assert [row.split()[0] for row in table(lines) if row[1] != " "] == [
        "REGRESSED", "REGRESSED", "REGRESSED", "FAILED", "MISSING", "INVALID", "REGRESSED*", "INCONCLUSIVE", "IMPROVED", "NEW",
    ]  # fmt: skip
    assert "* does not fail the comparison" in lines
    assert "and 9 SAME" in lines
    few = told(sample.fine(verdicts=[one for one in sample.verdicts() if one.word == "SAME"][:3]))
    assert len(table(few)) == 3
    assert not [line for line in few if line.startswith("and ")]


def test_the_headline_comes_last_with_the_exit_code() -> None:
    assert told(sample.fine())[-1] == "nothing regressed in 11 cells (exit 0: fine)"
    assert told(sample.fine(verdicts=[]))[-1].startswith("nothing regressed")
    assert told(sample.rich())[-1].endswith("(exit 4: too noisy, or a canary differs)")


def test_reasons_canaries_warnings_and_what_was_left_out_are_said() -> None:
    lines = told(sample.rich())
    for line in (
        "MISSING feedforward/pruned at 2048 512→2048 relu: the candidate has no kernel feedforward/pruned",
        "canary DIFFERS layer/compiled at 2×256 layer: the base differs from its own copy by +5.0%: nothing here can be believed",
        "1 of 4 canaries SAME", "warning clocks are not locked", "2 kernels unchanged, not compared: attention/eager, layer/eager",
        "attention: geometric mean of the ratios 1.021 (n = 6)", "14 min in all",
    ):  # fmt: skip
        assert line in lines, line
    assert any(line.startswith("2 cells left out by the budget: attention/fused at 1×8×4096×64, ") for line in lines)
    assert "worktree (89abcde89a) against origin/main (0123abc012)" in " ".join(lines)


def test_of_very_many_the_worst_are_shown_and_the_rest_counted() -> None:
    lines = told(sample.large(400))
    assert len([row for row in table(lines) if row[1] != " "]) == MOST
    hidden = sum(one.word != "SAME" for one in sample.large(400).verdicts) - MOST
    assert f"and {hidden} more rows" in lines


def test_what_fails_comes_first_then_by_word_then_by_size() -> None:
    mixed = sample.large(100).verdicts
    ordered = worst_first(mixed)
    ranks = [(not one.fails, WORDS.index(one.word), -abs(math.log(one.latency.ratio)) if one.latency else 0.0) for one in ordered]
    assert ranks == sorted(ranks)
    assert sorted(one.cell for one in ordered) == sorted(one.cell for one in mixed)


@settings(max_examples=60, deadline=None)
@given(outcome=sample.outcomes())
def test_whatever_the_names_nothing_is_markup_and_nothing_moves_the_cursor(outcome: Outcome) -> None:
    lines = told(outcome)
    assert all(line.isprintable() for line in lines)
    flat = "".join(character if character.isprintable() else " " for character in outcome.headline)
    assert flat in lines[-1]
