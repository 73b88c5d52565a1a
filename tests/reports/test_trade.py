"""The trade of speed against error: the right shapes are drawn, sentences and table say what the rows hold, no axis breaks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.records import Distance
from kerneldyno.reports import frame, page, trade, trade_figures
from kerneldyno.reports.figures import looks_of

from .outline import Outline

PREFILL = {"operator": "attention", "q_len": 4096, "kv_len": 4096, "label": "1×8×4096×64 fp32", "flops": 10**9}
DECODE = {"operator": "attention", "q_len": 1, "kv_len": 4096, "label": "1×8×1→4096×64 fp32", "flops": 10**6}


def row(kernel: str, speedup: float | None, error: float | None, **more: Any) -> dict[str, Any]:
    loose = "sdpa" not in kernel
    common = {"status": "ok", "device": "cpu", "dtype": "float32", "baseline": "attention/sdpa", "structured": False, "identity": "seen"}
    errors = {"distance_rms": error if loose else None, "error_relative_rms": 1e-8 if loose else error}
    times = {"latency_s": 0.01, "latency_low_s": None, "latency_high_s": None, "family": kernel.partition("_")[0]}
    made = {"kernel": f"attention/{kernel}", "approximate": loose, "speedup": speedup, "case": f"{kernel} {sorted(more)}"}
    found = {**PREFILL, **common, **errors, **times, **made, **more}
    return found | ({"label": found["label"].replace(" fp32", " structured fp32")} if found["structured"] else {})


SPARSE = [
    row("sdpa", 1.0, 3e-7),
    row("sparse_25", 2.9, 0.31),
    row("pruned", 3.5, 0.8),
    row("int8", 0.7, 0.01),
    row("sdpa", 1.0, 4e-7, structured=True),
    row("sparse_25", 2.8, 0.06, structured=True),
    row("pruned", 3.6, 0.7, structured=True),
    row("int8", 0.7, 0.012, structured=True),
]
STEP = [row("sdpa", 1.0, 3e-7, **DECODE), row("int8", 1.4, 0.02, **DECODE)]
SMALL = [row("sdpa", 1.0, 3e-7, label="1×8×64×64 fp32", flops=9), row("pruned", 9.0, 0.5, label="1×8×64×64 fp32", flops=9)]


def test_panels_are_prefill_and_decode_random_and_structured_at_the_shape_that_says_most() -> None:
    drawn = trade.panels([*SMALL, *STEP, *SPARSE])
    assert [panel.title for panel in drawn] == [
        "prefill · 1×8×4096×64 fp32 · random inputs",
        "prefill · 1×8×4096×64 fp32 · structured inputs",
        "decode · 1×8×1→4096×64 fp32 · random inputs",
    ]
    assert [len(panel.rows) for panel in drawn] == [4, 4, 2]
    assert [panel.title for panel in trade.panels(SMALL)] == ["prefill · 1×8×64×64 fp32"]


def test_structured_inputs_are_named_even_when_there_are_no_others() -> None:
    only = [one for one in SPARSE if one["structured"]]
    assert [panel.title for panel in trade.panels(only)] == ["prefill · 1×8×4096×64 fp32 · structured inputs"]
    assert [below for _, below, number in trade.listing(only).headings if number] == ["structured inputs"] * 2


def test_nothing_is_drawn_without_an_approximation_or_without_a_baseline() -> None:
    assert trade.panels([row("sdpa", 1.0, 3e-7)]) == []
    assert trade.panels([row("int8", None, 0.1), row("int8", 2.0, None), row("int8", 2.0, 0.1, status="wrong")]) == []


def test_stages() -> None:
    assert trade.stage_of(row("int8", 1, 1)) == "prefill"
    assert trade.stage_of(row("int8", 1, 1, **DECODE)) == "decode"
    assert trade.stage_of(row("int8", 1, 1, q_len=10, kv_len=10)) == "prefill"
    assert trade.stage_of(row("int8", 1, 1, operator="layer", q_len=None)) == ""


def test_the_sentence_names_what_is_worth_it_and_what_is_merely_fast() -> None:
    assert trade.takeaway(trade.panels(SPARSE)) == (
        "Prefill at 1×8×4096×64 fp32: within 10 % error on structured inputs, sparse_25 is the fastest, 2.80× the speed of sdpa at "
        "6.0 % error (31 % on random inputs); pruned is the fastest of all, 3.60× the speed of sdpa at 70 % error (80 % on random inputs)."
    )
    assert trade.takeaway(trade.panels(STEP)) == (
        "Decode at 1×8×1→4096×64 fp32: within 10 % error, int8 is the fastest, 1.40× the speed of sdpa at 2.0 % error."
    )


def test_the_sentence_says_so_when_nothing_is_gained_or_nothing_is_close() -> None:
    slow = trade.takeaway(trade.panels([row("sdpa", 1.0, 3e-7), row("int8", 0.7, 0.01)]))
    assert slow.endswith("within 10 % error, nothing is faster than sdpa; int8 comes next, 0.70× the speed of sdpa at 1.0 % error.")
    far = trade.takeaway(trade.panels([row("sdpa", 1.0, 3e-7), row("pruned", 3.0, 0.7), row("sparse", 2.0, 0.4)]))
    assert "nothing stays within 10 % error; sparse is the closest, 2.00× the speed of sdpa at 40 % error; pruned is the fastest" in far


def test_the_table_holds_every_number_once() -> None:
    found = trade.listing([*SMALL, *SPARSE, *STEP, row("int8", None, 0.2)])
    assert [below for _, below, _ in found.headings[1:5]] == ["random inputs"] * 2 + ["structured inputs"] * 2
    named = [(shape, [row["kernel"].partition("/")[2] for row, _ in own]) for shape, own in found.bodies]
    assert named == [
        ("prefill · 1×8×4096×64 fp32", ["pruned", "sparse_25", "sdpa", "int8"]),
        ("prefill · 1×8×64×64 fp32", ["pruned", "sdpa"]),
        ("decode · 1×8×1→4096×64 fp32", ["int8", "sdpa"]),
    ]
    (_, large), _, (_, step) = found.bodies
    texts = [[cell if isinstance(cell, str) else cell[0] for cell in cells] for _, cells in [*large, *step]]
    assert texts[1][:5] == ["sparse_25 (approximate)", "2.90×", "31 %", "2.80×", "6.0 %"]
    assert texts[2][:5] == ["sdpa", "1.00×", "3e-07", "1.00×", "4e-07"]
    assert texts[4][:5] == ["int8 (approximate)", "1.40×", "2.0 %", "–", "–"]
    assert isinstance(step[0][1][1], tuple)  # leads to its case
    assert step[0][1][1][1] == step[0][0]["case"]


def figures_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    drawn = trade.panels(rows)
    every = [one for panel in drawn for one in panel.rows]
    return [trade_figures.speedup_against_error(panel.rows, every, looks_of(rows)) for panel in drawn]


def test_panels_share_their_axes_and_mark_equal_speed() -> None:
    made = figures_of([*SPARSE, *STEP])
    for figure in made:
        go.Figure(figure)
        json.dumps(figure, allow_nan=False)
        assert figure["layout"]["xaxis"] == made[0]["layout"]["xaxis"]
        assert figure["layout"]["yaxis"] == made[0]["layout"]["yaxis"]
        assert 1.0 in figure["layout"]["xaxis"]["tickvals"]
        assert figure["layout"]["shapes"][0]["x0"] == 1


def test_points_are_the_numbers_and_rounding_stands_at_the_bottom() -> None:
    figure = figures_of(SPARSE)[0]
    points = {trace["meta"]["kernel"]: (trace["x"][0], trace["y"][0]) for trace in figure["data"][1:]}
    floor = 0.01 / 3
    assert points == {
        "attention/sdpa": (1.0, floor), "attention/sparse_25": (2.9, 0.31), "attention/pruned": (3.5, 0.8), "attention/int8": (0.7, 0.01),
    }  # fmt: skip
    assert figure["layout"]["yaxis"]["ticktext"][0] == "exact"
    assert "3e-07" in next(trace["hovertext"][0] for trace in figure["data"] if trace["name"] == "sdpa")
    front = list(zip(figure["data"][0]["x"], figure["data"][0]["y"], strict=True))
    assert front == [(1.0, floor), (2.9, 0.31), (3.5, 0.8)]


def test_names_on_the_front_do_not_cover_one_another() -> None:
    crowd = [row("sdpa", 1.0, 3e-7), *(row(f"sparse_{number}", 2 + number / 100, 0.3 + number / 1000) for number in range(9))]
    named = [trace["text"][0] for trace in figures_of(crowd)[0]["data"][1:] if trace["text"][0]]
    assert named == ["sparse_0"]
    assert [trace["text"][0] for trace in figures_of(STEP)[0]["data"][1:]] == ["", "int8"]


NUMBER = st.floats(1e-3, 1e3) | st.none()
ERROR = st.floats(0, 10) | st.just(0.0) | st.floats(0, 1e-300) | st.none()


@given(st.lists(st.tuples(st.sampled_from(["sdpa", "int8", "pruned", "sparse"]), NUMBER, ERROR, st.booleans()), max_size=8))
def test_no_error_breaks_an_axis(points: list[tuple[str, float | None, float | None, bool]]) -> None:
    rows = [row(name, speedup, error, structured=structured) for name, speedup, error, structured in points]
    for figure in figures_of(rows):
        json.dumps(figure, allow_nan=False)
        for axis in ("xaxis", "yaxis"):
            low, high = figure["layout"][axis]["range"]
            assert -math.inf < low < high < math.inf
        (left, right), (bottom, top) = figure["layout"]["xaxis"]["range"], figure["layout"]["yaxis"]["range"]
        for trace in figure["data"][1:]:
            assert left < math.log10(trace["x"][0]) < right
            assert bottom < math.log10(trace["y"][0]) < top
    trade.takeaway(trade.panels(rows))
    trade.listing(rows)


@pytest.fixture(scope="module")
def traded(made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of exact and approximate kernels on random and on structured inputs, prefill and decode."""
    plain = made.attention[2]
    step = made.attention[6]
    cases = [
        made.case("attention", name, problem | drawn)
        for problem in (plain, step)
        for drawn in ({}, {"structured": True})
        for name in ("sdpa", "int8", "pruned", made.hostile)
    ]
    measurements = [made.measured(case, {"sdpa": 1.0, "int8": 0.7}.get(case.kernel.partition("/")[2], 0.5), 1) for case in cases]
    for measurement, case in zip(measurements, cases, strict=True):
        if case.approximate:
            measurement.distance = Distance(relative_rms=0.06 if case.problem.get("structured") else 0.3, cosine=0.9, max_abs=1.0)
    return Path(made.run(tmp_path_factory.mktemp("traded") / "run", cases, measurements))


def test_the_page_shows_the_trade(traded: Path, made: SimpleNamespace) -> None:
    text = page.html(frame.load(traded))
    section = text[text.index('<section id="error">') : text.index('<section id="energy">')]
    assert "The trade: speed against error" in section
    assert "within 10 % error on structured inputs, pruned is the fastest, 2.00× the speed of sdpa at 6.0 % error (30 %" in section
    assert section.count('data-listing="trade-attention"') == 1
    assert section.count("data-figure=") == 5
    table = Outline(text).payload("run")["listings"]["trade-attention"]
    assert sum(below == "structured inputs" for _, below, _ in table["headings"]) == 2
    assert made.hostile not in text


def test_a_run_without_approximations_keeps_the_shorter_section(made: SimpleNamespace, tmp_path: Path) -> None:
    cases = [made.case("attention", name, made.attention[0]) for name in ("sdpa", "eager")]
    text = page.html(frame.load(made.run(tmp_path / "run", cases, [made.measured(case, 1.0, 1) for case in cases])))
    assert "<h2>Speed against error <a" in text
    assert 'data-listing="trade' not in text
