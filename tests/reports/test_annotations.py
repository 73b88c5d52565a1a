"""Annotations: GitHub's escapes, worst first, at most so many, and what is left out is said."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kerneldyno.bench.verdict import Outcome
from kerneldyno.reports.annotations import annotations

sample = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("outcomes.py"))))
COMMAND = re.compile(r"::(?P<level>error|warning) (?P<properties>[^:\r\n]*)::(?P<message>[^\r\n]*)\Z")


def understood(line: str) -> tuple[str, dict[str, str], str]:
    """A command as the runner reads it: up to the next "::", properties at commas, then unescaped."""
    found = COMMAND.match(line)
    assert found, line
    properties = dict(part.split("=", 1) for part in found["properties"].split(","))

    def plain(text: str) -> str:
        for escape, character in (("%3A", ":"), ("%2C", ","), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
            text = text.replace(escape, character)
        return text

    return found["level"], {name: plain(value) for name, value in properties.items()}, plain(found["message"])


def test_worst_first_and_the_last_says_how_many_more() -> None:
    lines = [understood(line) for line in annotations(sample.rich())]
    assert len(lines) == 10
    assert lines[0][1]["title"] == "comparison: too noisy, or a canary differs"
    assert [level for level, _, _ in lines[:8]] == ["error"] * 8
    assert [properties["title"] for _, properties, _ in lines[2:8]] == ["REGRESSED"] * 3 + ["FAILED", "MISSING", "INVALID"]
    assert "at 1×8×128×64 fp32: +31.0%" in lines[2][2]  # the larger one
    assert lines[-1] == ("warning", {"title": "kerneldyno compare"}, "6 more: see the job's summary or verdict.json")


def test_nothing_is_said_where_there_is_nothing_to_say() -> None:
    assert annotations(sample.fine()) == []


def test_what_does_not_fail_is_a_warning() -> None:
    advisory = [one for one in sample.verdicts() if one.advisory]
    [line] = annotations(sample.fine(verdicts=advisory))
    assert line.startswith("::warning title=REGRESSED::attention/flex at")
    assert line.endswith("it does not fail the comparison")


def test_a_source_is_named_where_it_is_known() -> None:
    outcome = sample.rich()
    known = [replace(one, source="kernels/attention/fu,sed.py" if one.kernel == "attention/fused" else None) for one in outcome.verdicts]
    lines = annotations(replace(outcome, verdicts=known), most=50)
    assert lines[2].startswith("::error file=kernels/attention/fu%2Csed.py,title=REGRESSED::")
    assert understood(lines[2])[1]["file"] == "kernels/attention/fu,sed.py"
    assert sum("file=" in line for line in lines) == 2


@pytest.mark.parametrize("most", [1, 2, 14, 15, 16])
def test_never_more_than_asked_for_and_none_lost(most: int) -> None:
    lines = annotations(sample.rich(), most=most)
    assert len(lines) == min(most, 15)
    hidden = re.search(r"::(\d+) (?:more|findings)", lines[-1])
    assert (int(hidden[1]) if hidden else 1) + len(lines) - 1 == 15


@settings(max_examples=60, deadline=None)
@given(outcome=sample.outcomes(), most=st.integers(1, 12))
def test_whatever_the_names_each_is_one_command_of_one_line(outcome: Outcome, most: int) -> None:
    lines = annotations(outcome, most=most)
    assert len(lines) <= most
    for line in lines:
        _, properties, message = understood(line)
        assert set(properties) == {"title"}
        assert len(message) <= 600
        assert message.replace("\n", "").replace("\r", "").isprintable()
    levels = [understood(line)[0] for line in lines[:-1]]
    assert levels == sorted(levels)
