"""What the terminal says, without a terminal: plain lines, units, the table of winners."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console

from kerneldyno.bench import terminal
from kerneldyno.bench.entries import GroupDone
from kerneldyno.bench.manifest import PROTOCOLS, Settings
from kerneldyno.bench.plan import Group, Plan
from kerneldyno.bench.records import Case, Distance, Measurement, Process, Warn


def case(kernel="attention/a"):
    return Case(
        kernel=kernel, family="a", operator="attention", problem={}, label="[1×2]", batch=1, seq_len=1, tokens=1, dtype="float32",
        direction="forward", device="cpu", seed=0, flops=1, min_bytes=1, approximate=False, baseline="attention/sdpa",
    )  # fmt: skip


def measured(**changes):
    process = Process(worker=1, samples_s=[0.0123] * 10, rounds=list(range(10)))
    return Measurement(**{"case": "x", "status": "ok", "processes": [process], **changes})


@pytest.mark.parametrize(
    ("value", "text"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (4.56e-5, "45.6 µs"), (7e-9, "7 ns")], ids=["s", "ms", "µs", "ns"]
)
def test_seconds_in_the_unit_that_suits(value, text):
    assert terminal.seconds(value) == text


def test_outcomes_in_a_few_words():
    assert terminal.outcome(measured()) == "12.3 ms ± 0.0%"
    approximate = measured(distance=Distance(relative_rms=0.01, cosine=1.0, max_abs=0.1), warnings=[Warn("unstable", "…")])
    assert terminal.outcome(approximate) == "12.3 ms ± 0.0%, 1.0e-02 off [unstable]"
    assert terminal.outcome(Measurement(case="x", status="failed", reason="build: ValueError: no")) == "build: ValueError: no"


def test_plain_lines_when_it_is_not_a_terminal():
    out = io.StringIO()
    progress = terminal.TerminalProgress(Console(file=out, width=100))
    group = Group("g", "[1×2]", "attention", [case()])
    progress.begin(Plan([group], {}, [case()]), Settings(protocol=PROTOCOLS["smoke"]), 0)
    progress.group(group, 1, 1, 75.0)
    progress.doing(case(), "build")
    progress.tick()
    progress.done(case(), measured())
    progress.done(case("attention/b"), Measurement(case="y", status="wrong", reason="off by [1]"))
    progress.end("budget")
    text = out.getvalue()
    assert "\x1b" not in text
    assert "1/1 attention [1×2], about 75 s left" in text
    assert "12.3 ms" in text
    assert "off by [1]" in text
    assert "--resume" in text


def test_the_summary_counts_and_names():
    out = io.StringIO()
    rows = [
        {"kernel": "attention/a", "label": "L", "status": "ok", "reason": None},
        {"kernel": "attention/b", "label": "L", "status": "failed", "reason": "build: [x]"},
        {"kernel": "attention/c", "label": "L", "status": "missing", "reason": "not measured"},
    ]
    winner = {
        "operator": "attention", "label": "L", "kernel": "attention/a", "runner_up": None, "tie": False, "latency_s": 0.001,
        "speedup": None, "baseline": "attention/sdpa", "division": "exact",
    }  # fmt: skip
    groups = [GroupDone(group="g", wall_s=100.0, phases_s={"build": 30.0, "timing": 70.0})] * 2
    others = [winner, {**winner, "division": "approximate", "kernel": "attention/zzz"}]
    terminal.summary(Console(file=out, width=100), pd.DataFrame(rows), pd.DataFrame(others), groups)
    text = out.getvalue()
    assert "3 cases: 1 ok, 1 failed, 1 missing" in text
    assert "attention/b at L: build: [x]" in text
    assert "1 ms" in text
    assert "3 min of measuring: timing 70%, build 30%" in text
    assert "zzz" not in text  # approximate kernels never win against exact ones
