"""Figures: what is drawn is what was measured, in valid plotly, with every label escaped."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.journal import Run
from kerneldyno.reports import figures, frame, trade_figures
from kerneldyno.reports.figures import QUANTITIES


@pytest.fixture(scope="module")
def rows(rich: Run) -> list[dict[str, Any]]:
    found = frame.rows(frame.results(rich))
    return [
        row for row in found if row["operator"] == "attention" and row["batch"] == 1 and row["dtype"] == "float32" and not row["causal"]
    ]


def test_lines_hold_the_measured_numbers(rows: list[dict[str, Any]]) -> None:
    drawn = figures.against_length(rows, QUANTITIES["latency"])
    [line] = [trace for trace in drawn["data"] if trace["meta"]["kernel"] == "attention/sdpa"]
    own = sorted((row for row in rows if row["kernel"] == "attention/sdpa"), key=lambda row: row["seq_len"])
    assert line["x"] == [128, 512, 2048]
    assert [value * 1e-3 for value in line["y"]] == pytest.approx([row["latency_s"] for row in own])
    assert "ms" in drawn["layout"]["yaxis"]["title"]["text"]
    assert drawn["layout"]["xaxis"]["type"] == drawn["layout"]["yaxis"]["type"] == "log"
    above = [(row["latency_high_s"] - row["latency_s"]) * 1e3 for row in own]
    assert line["error_y"]["array"] == pytest.approx(above)


def test_only_measured_kernels_are_drawn(rows: list[dict[str, Any]]) -> None:
    drawn = {trace["meta"]["kernel"] for trace in figures.panel(rows, QUANTITIES["latency"])["data"]}
    assert "attention/fused" not in drawn
    assert drawn == {row["kernel"] for row in rows if row["status"] == "ok"}


def test_one_length_becomes_dots_with_the_best_on_top(rows: list[dict[str, Any]]) -> None:
    single = [row for row in rows if row["seq_len"] == 2048]
    drawn = figures.panel(single, QUANTITIES["latency"])
    values = [trace["x"][0] for trace in drawn["data"]]
    assert values == sorted(values, reverse=True)
    assert drawn["layout"]["yaxis"]["type"] == "category"


@pytest.mark.parametrize("name", ["latency", "share", "memory"])
def test_plotly_accepts_every_figure_and_json_every_value(rich: Run, name: str) -> None:
    results = frame.results(rich)
    for _, part in results.groupby(["operator", "batch"]):
        drawn = figures.panel(part, QUANTITIES[name])
        go.Figure(drawn)  # raises on anything that plotly does not know
        json.dumps(drawn, allow_nan=False)


def test_names_from_files_are_escaped(rich: Run, made: SimpleNamespace) -> None:
    results = frame.results(rich)
    part = results[(results["operator"] == "attention") & (results["seq_len"] == 512)]
    for drawn in (figures.dots(part, QUANTITIES["latency"]), trade_figures.speed_against_error(part)):
        for trace in drawn["data"]:
            assert "<script" not in trace["name"]
            assert all("<script" not in text for text in trace.get("text", []))
    labels = figures.dots(part, QUANTITIES["latency"])["layout"]["yaxis"]["ticktext"]
    assert any(label.startswith("&lt;script&gt;") for label in labels)
    assert made.hostile not in labels


def test_approximate_kernels_are_hollow(rows: list[dict[str, Any]]) -> None:
    symbols = {trace["meta"]["kernel"]: trace["marker"]["symbol"] for trace in figures.panel(rows, QUANTITIES["latency"])["data"]}
    assert symbols["attention/int8"].endswith("-open")
    assert not symbols["attention/sdpa"].endswith("-open")


def test_speed_against_error_uses_the_distance_of_approximate_kernels(rows: list[dict[str, Any]]) -> None:
    drawn = trade_figures.speed_against_error([row for row in rows if row["seq_len"] == 2048])
    go.Figure(drawn)
    errors = {trace["meta"].get("kernel"): trace["y"][0] for trace in drawn["data"][1:]}
    assert errors["attention/int8"] == pytest.approx(1.3e-2)
    assert errors["attention/sdpa"] < 1e-5


def test_an_unknown_interval_draws_no_whisker(rows: list[dict[str, Any]]) -> None:
    bare = [row | {"latency_low_s": None, "latency_high_s": math.inf} for row in rows if row["status"] == "ok"]
    for trace in figures.panel(bare, QUANTITIES["latency"])["data"]:
        assert set(trace["error_y"]["array"]) == set(trace["error_y"]["arrayminus"]) == {0.0}


def test_nothing_measured_is_an_empty_figure() -> None:
    for drawn in (figures.panel([], QUANTITIES["latency"]), figures.panel([], QUANTITIES["share"])):
        assert drawn["data"] == []
        go.Figure(drawn)


POINT = st.tuples(st.floats(1e-6, 1e6), st.floats(1e-9, 1))


@given(st.lists(POINT, min_size=1))
def test_the_front_holds_exactly_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    front = figures.pareto(points)
    assert front == sorted(front)
    for point in points:
        beaten = any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)
        assert (point in front) == (not beaten)


@given(st.floats(1e-9, 1e9), st.floats(1, 1e9))
def test_ticks_are_few_ascending_and_near_the_data(low: float, spread: float) -> None:
    ticks = figures.log_ticks(low, low * spread)
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 7
    assert all(low / 1.6 <= tick <= low * spread * 1.6 for tick in ticks)
    assert spread < 10 or ticks
