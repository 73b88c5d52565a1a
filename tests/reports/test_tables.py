"""Cells and lists: no blank that could be read as zero, no rank for what has no number."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kerneldyno.bench.journal import Run, read
from kerneldyno.bench.records import Energy, Measurement, Warn
from kerneldyno.reports import figures, frame, shapes, tables


@pytest.fixture(scope="module")
def rows(rich: Run) -> list[dict[str, Any]]:
    return frame.rows(frame.results(rich))


@pytest.fixture(scope="module")
def marks(rich: Run, rows: list[dict[str, Any]]) -> tables.Marks:
    return tables.Marks.of(rows, frame.winners(rich))


def test_every_cell_says_something(rich: Run, rows: list[dict[str, Any]], marks: tables.Marks) -> None:
    for grid in shapes.grids(rows, shapes.variants(rich.manifest.cases)):
        table = tables.fill(grid, lambda row: tables.speedup_cell(row, marks))
        for kernel, cells in table.exact + table.approximate:
            assert len(cells) == grid.width, kernel
            assert all(cell.text and cell.title for cell in cells)
            assert all(cell.text not in {"0", "0.00×"} for cell in cells)


def test_a_status_becomes_its_word_with_the_reason_on_asking(rows: list[dict[str, Any]], marks: tables.Marks) -> None:
    for status in ("wrong", "failed", "timeout", "invalid", "skipped", "missing"):
        row = next(row for row in rows if row["status"] == status)
        cell = tables.speedup_cell(row, marks)
        assert (cell.text, cell.state) == (status, status)
        assert cell.sign
        assert row["reason"] in cell.title
        assert cell.below == ""


def test_one_mark_per_shape_and_division_and_none_without_a_number(rich: Run, rows: list[dict[str, Any]], marks: tables.Marks) -> None:
    for group in {row["group"] for row in rows}:
        signs = [marks.signs.get(row["case"], "") for row in rows if row["group"] == group]
        assert signs.count(tables.BEST) + signs.count(tables.TIE) / 2 == 1
        assert signs.count(tables.BEST_APPROXIMATE) + signs.count(tables.BEST_APPROXIMATE + tables.TIE) / 2 == 1
    assert all(row["status"] == "ok" for row in rows if row["case"] in marks.signs)
    assert all(not row["approximate"] for row in rows if marks.signs.get(row["case"]) in {tables.BEST, tables.TIE})


def test_a_cell_shows_speedup_latency_and_interval(rows: list[dict[str, Any]], marks: tables.Marks) -> None:
    row = next(row for row in rows if row["kernel"] == "feedforward/int8" and row["status"] == "ok")
    cell = tables.speedup_cell(row, marks)
    assert cell.text.endswith("×")
    assert cell.below.endswith("ms")
    assert "the speed of feedforward/compiled" in cell.title
    assert "–" in cell.title
    assert cell.tint > 0


def test_without_a_baseline_the_latency_stands_alone(rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if row["kernel"] == "layer/eager" and row["status"] == "ok")
    cell = tables.speedup_cell(row | {"speedup": None, "speedup_reason": "the baseline layer/compiled is wrong"}, tables.Marks({}))
    assert cell.text.endswith("ms")
    assert (cell.below, cell.tint) == ("no baseline", 0)
    assert "the baseline layer/compiled is wrong" in cell.title


def test_the_fastest_stand_on_top_and_the_approximate_apart(rich: Run, rows: list[dict[str, Any]], marks: tables.Marks) -> None:
    grid = shapes.grids(rows, shapes.variants(rich.manifest.cases))[1]
    table = tables.fill(grid, lambda row: tables.speedup_cell(row, marks))
    assert [kernel for kernel, _ in table.approximate] == ["feedforward/int8", "feedforward/pruned"]
    assert table.exact[0][0] == "feedforward/onnxrt"
    assert table.exact[-1][0] == "feedforward/fused"


def test_joules_that_are_not_valid_keep_their_number_with_a_sign_and_the_reason(made: SimpleNamespace, tmp_path: Path) -> None:
    cases = [made.case("attention", name, made.attention[0]) for name in ("sdpa", "eager", "compiled")]
    measurements = [made.measured(case, 1.0, 1) for case in cases]
    measurements[0].energy = Energy(power_w=300.0, energy_j=0.02, valid=False, reason="not valid: windows differ by 9%")
    measurements[0].warnings = [Warn("energy", "invalid energy window: windows differ by 9%")]
    measurements[1].energy = Energy(power_w=300.0, energy_j=0.03, valid=True)
    measurements[2].energy = Energy(power_w=300.0, reason="no joules: time")
    run = read(made.run(tmp_path / "run", cases, measurements))
    results = frame.results(run)
    joules = figures.QUANTITIES["energy"]
    doubted, believed, absent = (tables.quantity_cell(row, joules) for row in frame.rows(results))
    assert (doubted.text, doubted.sign, doubted.warned) == ("20.0 mJ", "?", True)
    assert doubted.title.endswith(": not valid: windows differ by 9%")
    assert (believed.text, believed.sign, believed.warned) == ("30.0 mJ", "", False)
    assert (absent.text, absent.title) == ("–", "no joules: time")
    assert [row["kernel"] for row in figures.drawable(results, joules)] == ["attention/eager"]
    assert len(figures.drawable(results, figures.QUANTITIES["power"])) == 3
    column = [heading for heading, *_ in tables.LISTED].index("energy")
    listed = [cells[column] for _, cells in tables.listing(frame.rows(results))]
    assert listed == [("20.0 mJ (not valid)", 0.02), ("30.0 mJ", 0.03), ("", None)]
    ((code, text, own),) = tables.warned(frame.rows(results), run.measurements)
    assert (code, text, len(own)) == ("energy", "invalid energy window: windows differ by 9%", 1)


def test_the_same_reason_is_said_once(rows: list[dict[str, Any]]) -> None:
    found = tables.numberless(rows)
    assert sum(len(own) for _, _, own in found) == sum(row["status"] != "ok" for row in rows)
    [(_, _, fused)] = [entry for entry in found if "needs a CUDA GPU" in entry[1]]
    assert len(fused) == 18
    assert [status for status, _, _ in found][:2] == ["wrong", "failed"]


def test_warnings_are_counted_by_kind(made: SimpleNamespace, tmp_path: Path) -> None:
    cases = [made.case("attention", name, made.attention[0]) for name in ("sdpa", "eager")]
    measurements = [made.measured(case, 1.0, 1) for case in cases]
    measurements[0].warnings = [Warn("unstable", "a"), Warn("unstable", "again"), Warn("clocks", "b")]
    measurements[1].warnings = [Warn("unstable", "c")]
    run = read(made.run(tmp_path / "run", cases, measurements))
    found = tables.warned(frame.rows(frame.results(run)), run.measurements)
    assert [(code, text, len(own)) for code, text, own in found] == [("unstable", "for example, again", 2), ("clocks", "b", 1)]


def test_the_list_holds_every_measured_case(rows: list[dict[str, Any]]) -> None:
    listing = tables.listing(rows)
    assert len(listing) == sum(row["status"] == "ok" for row in rows)
    assert all(len(cells) == len(tables.LISTED) for _, cells in listing)


def test_a_measurement_of_no_known_case_is_left_out(made: SimpleNamespace, tmp_path: Path) -> None:
    case = made.case("attention", "sdpa", made.attention[0])
    stray = Measurement(case="0000000000000000", status="failed", reason="stray")
    run = read(made.run(tmp_path / "run", [case], [made.measured(case, 1.0, 1), stray]))
    assert tables.numberless(frame.rows(frame.results(run))) == []
