"""Crossover lengths on the page: the right kernels at the right lengths, in words, in a table and drawn."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import plotly.graph_objects as go
import pytest

from kerneldyno.bench.entries import Extended, Measured
from kerneldyno.bench.journal import read
from kerneldyno.bench.records import Measurement
from kerneldyno.reports import crossovers, frame
from kerneldyno.reports.figures import looks_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kerneldyno.bench.journal import Run
    from kerneldyno.bench.records import Case

COMMON = {"heads": 8, "kv_heads": 8, "head_dim": 64, "causal": False, "padding": False, "bias": "none", "dtype": "float32"}
POWERS = {"sdpa": 0.0, "eager": 1.0, "int8": 0.0, "pruned": -1.0}
"""Kernel -> how its time grows with the length; all take a millisecond at 300."""


def make(tmp_path: Path, made: SimpleNamespace, names: Sequence[str], lengths: Sequence[int], **fields: object) -> Run:
    """A run whose kernels cross at a length of 300."""
    cases = [made.case("attention", name, problem(length, **fields)) for length in lengths for name in names]
    return read(made.run(tmp_path / "run", cases, [measured(made, case, number) for number, case in enumerate(cases)]))


def problem(length: int, **fields: object) -> dict[str, object]:
    return COMMON | {"batch": 1, "q_len": length, "kv_len": length} | fields


def measured(made: SimpleNamespace, case: Case, seed: int) -> Measurement:
    power = POWERS.get(case.kernel.partition("/")[2], 2.0)
    return Measurement(case=case.id, status="ok", processes=[made.process(1e-3 * (case.seq_len / 300) ** power, seed)])


def test_a_row_says_who_where_and_how_closely(tmp_path: Path, made: SimpleNamespace) -> None:
    run = make(tmp_path, made, ("sdpa", "eager"), [128, 256, 512])
    table = crossovers.crossovers(run)
    assert list(table) == list(crossovers.COLUMNS)
    (row,) = frame.rows(table)
    assert (row["shorter"], row["longer"]) == ("attention/eager", "attention/sdpa")
    assert (row["low_len"], row["high_len"], row["division"], row["variant"]) == (256, 512, "exact", "")
    assert 256 < row["interval_low"] <= row["estimate_len"] <= row["interval_high"] < 512
    assert row["interval_low"] <= 300 <= row["interval_high"]
    assert row["leads"] is True
    assert row["refined"] is False
    by_id = {case.id: (case.kernel, case.seq_len) for case in run.cases}
    assert [by_id[case] for case in row["cases"].split()] == [
        ("attention/eager", 256), ("attention/sdpa", 256), ("attention/eager", 512), ("attention/sdpa", 512),
    ]  # fmt: skip


def test_the_sentence_reads(tmp_path: Path, made: SimpleNamespace) -> None:
    found = crossovers.read(make(tmp_path, made, ("sdpa", "eager"), [128, 256, 512]))
    row = {**found[0].row, "estimate_len": 301.4, "interval_low": 297.2, "interval_high": 305.1}
    assert crossovers.sentence(row) == (
        "attention · batch 1 · fp32: sdpa overtakes eager, at a length of about 301 (95 % interval 297 – 306; measured at 256 and 512)."
    )
    assert crossovers.sentence(row | {"direction": "backward"}).startswith("attention · batch 1 · fp32 · forward + backward: sdpa")
    assert len(crossovers.leading(make(tmp_path / "again", made, ("sdpa", "eager", "pruned"), [128, 512]))) == 1
    told = crossovers.takeaway(found)
    assert told.startswith("The fastest kernel changes with the length in 1 place. attention · batch 1 · fp32: sdpa overtakes eager")
    assert told.endswith("--refine-crossovers measures some.")


def test_without_a_crossing_that_is_said(tmp_path: Path, made: SimpleNamespace) -> None:
    run = make(tmp_path, made, ("sdpa", "eager"), [512, 1024])
    assert len(crossovers.crossovers(run)) == 0
    assert list(crossovers.crossovers(run)) == list(crossovers.COLUMNS)
    assert crossovers.takeaway(crossovers.read(run)) == "At no measured length does one kernel overtake another beyond noise."
    assert crossovers.lines([]) == []


def test_lengths_that_were_added_are_marked(tmp_path: Path, made: SimpleNamespace) -> None:
    run = make(tmp_path, made, ("sdpa", "eager"), [128, 1024])
    added = [made.case("attention", name, problem(384)) for name in ("sdpa", "eager")]
    run.note(Extended(added))
    for number, case in enumerate(added):
        run.note(Measured(measured(made, case, 10 + number)))
    (one,) = crossovers.read(run)
    assert (one.row["low_len"], one.row["high_len"], one.row["refined"]) == (128, 384, True)
    ((_, cells),) = crossovers.lines([one])
    assert cells[-1] == "128 and 384 (added)"
    assert "--refine-crossovers" not in crossovers.takeaway([one])
    assert len(frame.results(run)) == 6


def test_approximate_kernels_carry_their_sign_and_winners_stand_first(tmp_path: Path, made: SimpleNamespace) -> None:
    run = make(tmp_path, made, ("sdpa", "int8", "pruned"), [128, 1024])
    found = crossovers.read(run)
    assert {one.row["division"] for one in found} == {"approximate"}
    lines = [[cell[0] if isinstance(cell, tuple) else cell for cell in cells][:2] for _, cells in crossovers.lines(found)]
    assert lines == [["pruned (approximate)", "int8 (approximate)"], ["pruned (approximate)", "sdpa"]]
    assert [one.row["leads"] for one in found] == [True, False]
    alone = crossovers.read(make(tmp_path / "alone", made, ("sdpa", "pruned"), [128, 1024]))
    assert crossovers.takeaway(alone) == (
        "The fastest kernel changes nowhere beyond noise; of other pairs, one overtakes the other in 1 place."
    )


def test_a_third_that_ties_in_between_hides_no_change_of_the_fastest(tmp_path: Path, made: SimpleNamespace) -> None:
    times = {"eager": (1, 1.01, 1.5), "compiled": (1.005, 1, 1.01), "sdpa": (1.5, 1.01, 1)}
    cases = [made.case("attention", name, problem(length)) for length in (64, 256, 1024) for name in times]
    measurements = []
    for number, case in enumerate(cases):
        relative = times[case.family][(64, 256, 1024).index(case.seq_len)]
        process = made.process(1e-3 * relative, number, spread=0.001)
        measurements.append(Measurement(case=case.id, status="ok", processes=[process]))
    run = read(made.run(tmp_path / "run", cases, measurements))
    told = crossovers.takeaway(crossovers.read(run))
    assert told.startswith("The fastest kernel changes with the length in 1 place. attention · batch 1 · fp32: sdpa overtakes eager")
    assert len(crossovers.leading(run)) == 1


def test_variants_are_told_apart(tmp_path: Path, made: SimpleNamespace) -> None:
    cases = [
        made.case("attention", name, problem(length, causal=causal))
        for causal in (False, True) for length in (128, 1024) for name in ("sdpa", "eager")
    ]  # fmt: skip
    run = read(made.run(tmp_path / "run", cases, [measured(made, case, number) for number, case in enumerate(cases)]))
    rows = [one.row for one in crossovers.read(run)]
    assert [row["variant"] for row in rows] == ["not causal", "causal"]
    assert [crossovers.title(row) for row in rows] == [
        "attention · batch 1 · not causal: sdpa overtakes eager", "attention · batch 1 · causal: sdpa overtakes eager",
    ]  # fmt: skip


def test_the_figure_stands_alone_and_shows_interval_and_sides(tmp_path: Path, made: SimpleNamespace) -> None:
    run = make(tmp_path, made, ("sdpa", made.hostile), [128, 256, 512, 1024])
    (one,) = crossovers.read(run)
    figure = crossovers.figure(one, looks_of(frame.results(run)))
    drawn = go.Figure(figure)  # refuses what plotly does not know
    (trace,) = figure["data"]
    assert trace["x"] == [128, 256, 512, 1024]
    assert trace["y"] == sorted(trace["y"], reverse=True)
    assert all(value >= 0 for end in ("array", "arrayminus") for value in trace["error_y"][end])
    assert trace["meta"].keys() == {"light", "dark"}
    band = drawn.layout.shapes[0]
    assert (band.x0, band.x1) == (one.row["interval_low"], one.row["interval_high"])
    assert "<script" not in json.dumps(figure)
    texts = [note.text for note in drawn.layout.annotations]
    assert texts[0].startswith("↑ &lt;script")
    assert texts[1] == "↓ sdpa faster"
    assert int(texts[2]) == pytest.approx(one.row["estimate_len"], rel=0.01)
    assert any("is faster" in text for text in trace["text"])


def test_every_crossover_of_a_rich_run_can_be_told_and_drawn(rich: Run) -> None:
    found, looks = crossovers.read(rich), looks_of(frame.results(rich))
    assert len(found) == len(crossovers.crossovers(rich)) == len(crossovers.lines(found))
    for one in found:
        assert crossovers.sentence(one.row)
        assert go.Figure(crossovers.figure(one, looks)).data
        assert one.row["low_len"] <= one.row["interval_low"] <= one.row["estimate_len"] <= one.row["interval_high"] <= one.row["high_len"]
    assert crossovers.takeaway(found)
