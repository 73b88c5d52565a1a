"""What a page carries is what was measured: columns, tables and samples come back as they went in."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.journal import Run, read
from kerneldyno.bench.records import Measurement, Process
from kerneldyno.reports import frame, page, payload, reproduce, shell, thinning
from kerneldyno.reports.frame import Frames

from .outline import Outline, numbers

SAMPLES = st.lists(st.floats(1e-7, 10.0), min_size=1, max_size=400)


@pytest.fixture(scope="module")
def frames(rich: Run) -> Frames:
    return Frames(rich)


@pytest.fixture(scope="module")
def carried(frames: Frames) -> Outline:
    return Outline(page.html(frames))


def values(packed: dict[str, Any] | None, rows: int) -> list[Any]:
    """A column of the payload as a list."""
    if packed is None:
        return [None] * rows
    if "numbers" in packed:
        return [None if math.isnan(number) else number for number in numbers(packed["numbers"])]
    return [packed["values"][int(code)] for code in numbers(packed["codes"])]


def test_every_column_comes_back(frames: Frames, carried: Outline) -> None:
    columns = carried.payload("run")["columns"]
    assert list(columns) == list(frames.results.columns)
    rows = frame.rows(frames.results)
    for name, packed in columns.items():
        for got, row in zip(values(packed, len(rows)), rows, strict=True):
            expected = row[name]
            assert got == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected), name


def test_counts_too_large_for_float32_stay_exact(frames: Frames) -> None:
    flops = frames.results["flops"] + 2**40 + 1
    packed = payload.results(flops.to_frame())
    assert values(packed["flops"], len(flops)) == flops.tolist()


def test_the_list_of_cases_names_its_rows_and_sorts_by_numbers(frames: Frames, carried: Outline) -> None:
    cases = carried.payload("run")["cases"]
    rows = frame.rows(frames.results)
    listed = [rows[int(place)] for place in numbers(cases["rows"])]
    assert [row["case"] for row in listed] == [row["case"] for row in rows if row["status"] == "ok"]
    headings = [heading for heading, _ in cases["headings"]]
    assert headings[:3] == ["kernel", "shape", "latency"]
    assert numbers(cases["keys"][2]) == pytest.approx([row["latency_s"] for row in listed], rel=1e-6)
    assert cases["keys"][0] is None  # by name
    assert "energy" not in headings  # nobody has any


def test_grids_point_at_their_rows(frames: Frames, carried: Outline) -> None:
    rows = frame.rows(frames.results)
    seen = set()
    for grid in carried.payload("run")["grids"]:
        shapes = [shape for _, _, own in grid["columns"] for shape in own]
        kernels = [kernel for division in grid["divisions"] for kernel in division]
        for kernel, line in zip(kernels, grid["cells"], strict=True):
            for (batch, length), place in zip(shapes, numbers(line), strict=True):
                if place >= 0:
                    row = rows[int(place)]
                    assert (row["kernel"], row["batch"], row["seq_len"]) == (kernel, batch, length)
                    seen.add(row["case"])
    assert seen == {row["case"] for row in rows}


def test_details_hold_the_samples_the_probes_and_the_command(rich: Run, carried: Outline) -> None:
    details = carried.payload("details")
    for number, case in enumerate(rich.cases):
        measurement = rich.measurements.get(case.id)
        assert details["commands"][number] == reproduce.command(rich, case)
        packed = details["samples"][number]
        taken = measurement.samples_s if measurement else []
        assert (packed is None) == (not taken)
        if packed:
            assert packed["of"] == len(taken)
            assert drawn(packed) == pytest.approx(taken, abs=(max(taken) - min(taken)) / payload.STEPS)


def drawn(packed: dict[str, Any]) -> list[float]:
    """Samples as the page's script unpacks them."""
    return [packed["low"] + step / payload.STEPS * (packed["high"] - packed["low"]) for step in numbers(packed["values"])]


@given(samples=SAMPLES, most=st.integers(4, 100))
def test_thinning_keeps_order_ends_and_extremes(samples: list[float], most: int) -> None:
    kept = thinning.thinned(samples, most).tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == len(samples) if len(samples) <= most else most - 4 <= len(kept) <= most
    assert {kept[0], kept[-1]} == {0, len(samples) - 1}
    chosen = [samples[place] for place in kept]
    assert (min(chosen), max(chosen)) == (min(samples), max(samples))


@given(counts=st.lists(st.integers(0, 9000), max_size=90))
def test_the_points_of_a_page_are_bounded(counts: list[int]) -> None:
    each = [
        Measurement(case=str(number), status="ok", processes=[Process(samples_s=[1.0] * count, rounds=[])])
        for number, count in enumerate(counts)
    ]
    most = thinning.points_per_case(each)
    if sum(counts) <= thinning.ALL_POINTS:
        assert most == min(max(counts, default=0), thinning.MOST)
    assert sum(min(count, most) for count in counts) <= thinning.ALL_POINTS
    assert thinning.points_per_case([None] * 1001) == thinning.LEAST


def test_the_page_says_what_it_does_not_draw(made: SimpleNamespace, tmp_path: Path) -> None:
    case = made.case("attention", "sdpa", made.attention[0])
    measurement = made.measured(case, 1.0, 1)
    [process] = measurement.processes
    process.samples_s[:] = [1e-3 + number * 1e-9 for number in range(thinning.MOST + 1)]
    process.rounds[:] = range(thinning.MOST + 1)
    frames = frame.load(made.run(tmp_path / "run", [case], [measurement]))
    assert f"Of 1 case with more than {thinning.MOST} samples {thinning.MOST} each are drawn, in their order" in page.html(frames)
    assert payload.left_out(read(made.run(tmp_path / "short", [case], [made.measured(case, 1.0, 1)]))) == ""


def test_long_real_numbers_travel_as_typed_arrays_and_what_plotly_cannot_take_so_does_not() -> None:
    long = [number / 7 for number in range(40)]
    trace = {"x": long, "n": list(range(40)), "z": [long, long], "short": [0.5], "odd": [long, [1.0]], "error_y": {"array": long}}
    [slim] = shell.slim({"one": {"data": [trace], "layout": {"tickvals": long}}})["one"]["data"]
    assert numbers(slim["x"]) == numbers(slim["error_y"]["array"]) == pytest.approx(long, rel=1e-6)
    assert {name: slim[name] for name in ("n", "short", "odd")} == {name: trace[name] for name in ("n", "short", "odd")}
    assert slim["z"]["shape"] == "2, 40"
    assert np.array(numbers(slim["z"])).reshape(2, 40)[1].tolist() == pytest.approx(long, rel=1e-6)


def test_a_plain_page_carries_the_same(rich_folder: Path) -> None:
    frames = frame.load(rich_folder)
    packed, plain = Outline(page.html(frames)), Outline(page.html(frames, plain=True))
    for name in ("run", "details", "figures"):
        assert plain.payload(name) == packed.payload(name)
        assert "<" not in plain.script(name)
        json.loads(plain.script(name))


def test_the_payload_of_a_run_that_ended_early_is_whole(rich_folder: Path) -> None:
    run = read(rich_folder)
    run.measurements.clear()
    outline = Outline(page.html(Frames(run)))
    assert outline.payload("details")["samples"] == [None] * len(run.cases)
    assert outline.payload("run")["cases"]["headings"] == []
