"""The roofline: points stand where the mathematics says, under a roof that is the machine's, and what is not drawn is told."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.records import Ceilings
from kerneldyno.reports import frame, roofline
from kerneldyno.reports.figures import looks_of

if TYPE_CHECKING:
    from kerneldyno.bench.journal import Run

MACHINE = Ceilings(matmul_flops_per_s={"float32": 1e12}, copy_bytes_per_s=1e11, device="cuda:0")
"""The ridge is at 10 FLOP/B."""


def row(kernel: str, seconds: float | None, flops: int = 10**9, min_bytes: int = 10**8, **more: Any) -> dict[str, Any]:
    label = f"{flops} over {min_bytes}"
    common = {"status": "ok", "dtype": "float32", "operator": "attention", "family": kernel, "approximate": kernel == "int8"}
    return {"kernel": f"attention/{kernel}", "latency_s": seconds, "flops": flops, "min_bytes": min_bytes, "label": label,
            "group": label, "case": f"{kernel} {label}", **common, **more}  # fmt: skip


SHAPES = [
    row("sdpa", 2e-3),  # 5e11 of 1e12 at 10 FLOP/B: the ridge
    row("eager", 1e-2),
    row("sdpa", 1.25e-3, min_bytes=10**9 // 2, label="a decode step", group="decode"),  # 8e11, and memory allows 2e11: cached
    row("sdpa", 1e-2, min_bytes=10**9 // 2, label="another", group="another"),  # 1e11 of 2e11
    row("int8", 5e-4),  # 2e12: it does other work
]


def test_a_point_is_a_share_of_what_bounds_it() -> None:
    ridge, slow, cached, decode, loose = roofline.points(SHAPES, MACHINE)
    assert (ridge.intensity, ridge.rate, ridge.limit, ridge.bound) == (10, 5e11, 1e12, "compute")
    assert (decode.intensity, decode.limit, decode.bound) == (2, 2e11, "memory")
    assert [point.share for point in (ridge, slow, cached, decode, loose)] == pytest.approx([0.5, 0.1, 4, 0.5, 2])


def test_the_share_is_that_of_the_results(rich: Run) -> None:
    results = frame.rows(frame.results(rich))
    for operator, dtype in {(one["operator"], one["dtype"]) for one in results}:
        own = [one for one in results if (one["operator"], one["dtype"]) == (operator, dtype)]
        points = roofline.points(own, rich.ceilings)
        assert [point.share for point in points] == pytest.approx([one["share_of_limit"] for one in own if one["status"] == "ok"])
        assert points


def test_the_sentence_says_what_bounds_who_is_closest_and_what_is_above() -> None:
    assert roofline.takeaway([*SHAPES[:2], SHAPES[3]], MACHINE) == (
        "Of 2 shapes 1 is bound by memory, 1 by compute. sdpa comes closest to the limit: 50.0 % at 1000000000 over 100000000."
    )
    assert roofline.takeaway([SHAPES[0], SHAPES[4]], MACHINE).endswith(
        "1 point of approximations lies above the roof, which is that of the exact work."
    )
    told = roofline.takeaway(SHAPES, MACHINE)
    assert "sdpa goes farthest beyond the limit: 400 % at a decode step." in told
    assert told.endswith(
        "2 points (1 of approximations, which do less work) lie above the roof, which was measured with torch's matrix products and "
        "copies larger than the caches."
    )
    assert roofline.takeaway(SHAPES[:1], MACHINE).startswith("The only shape is bound by compute.")


def test_without_a_roof_there_is_a_sentence_instead() -> None:
    for rows, ceilings, sentence in (
        (SHAPES, None, "What this machine can do was not measured in this run: there is no roof to draw."),
        ([row("sdpa", 1.0, dtype="float16")], MACHINE, "The rate of matrix products in float16 was not measured in this run: there is no"),
        ([row("sdpa", None, status="skipped")], MACHINE, "Nothing was measured here."),
        ([], MACHINE, "Nothing was measured here."),
    ):
        assert roofline.roofline(rows, ceilings) is None
        assert roofline.rows(rows, ceilings) == []
        assert roofline.takeaway(rows, ceilings).startswith(sentence)


def test_of_too_many_points_the_leaders_are_drawn_and_the_rest_is_told() -> None:
    kernels = [row(name, seconds) for name, seconds in [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0), ("int8", 0.5)]]
    pruned = [{**one, "kernel": "attention/pruned", "approximate": True, "latency_s": 9.0} for one in kernels[:1]]
    many = [
        {**one, "group": str(number), "case": f"{one['kernel']} {number}", "flops": 10**9 + number}
        for number in range(70)
        for one in kernels + pruned
    ]
    figure = roofline.roofline(many, MACHINE)
    assert figure is not None
    drawn = {trace["name"]: len(trace["x"]) for trace in figure["data"] if trace["mode"] == "markers"}
    assert drawn == {"a": 70, "b": 70, "c": 70, "int8": 70}
    assert roofline.takeaway(many, MACHINE).endswith("and the fastest approximation; 140 more stand in the table.")
    assert len(roofline.rows(many, MACHINE)) == 420
    few = roofline.roofline(many[:396], MACHINE)
    assert few is not None
    assert sum(len(trace["x"]) for trace in few["data"][2:]) == 396


def test_names_from_a_file_are_shown_and_not_rendered(rich: Run) -> None:
    results = frame.rows(frame.results(rich))
    own = [one for one in results if one["operator"] == "attention" and one["dtype"] == "float32"]
    figure = roofline.roofline(own, rich.ceilings, looks_of(results))
    assert figure is not None
    texts = json.dumps([(trace["name"], trace["text"]) for trace in figure["data"]])
    assert "<script" not in texts
    assert "&lt;script&gt;" in texts
    assert all(trace["meta"] and {"light", "dark"} <= trace["meta"].keys() for trace in figure["data"])
    hollow = {trace["name"]: trace["marker"]["symbol"].endswith("-open") for trace in figure["data"] if "marker" in trace}
    assert hollow["int8"]
    assert not hollow["sdpa"]


def test_the_table_says_what_the_figure_shows() -> None:
    (first, cells), *_, (last, others) = roofline.rows(SHAPES, MACHINE)
    assert (first["case"], first["approximate"]) == (SHAPES[2]["case"], False)
    assert cells[0][1] == SHAPES[2]["case"]  # leads to the case
    assert cells[1:] == ["a decode step", "2.00", "800 GFLOP/s", "200 GFLOP/s", "400 %", "memory"]
    assert (last["kernel"], others[5]) == ("attention/eager", "10.0 %")
    assert len(cells) == len(roofline.HEADINGS)


COUNTS = st.integers(1, 10**18)


@settings(deadline=None)
@given(
    st.lists(st.tuples(COUNTS, COUNTS, st.floats(1e-9, 1e3), st.sampled_from(["sdpa", "eager", "int8"])), min_size=1, max_size=30),
    st.floats(1e6, 1e15),
    st.floats(1e6, 1e13),
)
def test_axes_cover_every_point_and_the_ridge(drawn: list[tuple[int, int, float, str]], matmul: float, copy: float) -> None:
    ceilings = Ceilings(matmul_flops_per_s={"float32": matmul}, copy_bytes_per_s=copy)
    rows = [row(kernel, seconds, flops, size) for flops, size, seconds, kernel in drawn]
    figure = roofline.roofline(rows, ceilings)
    assert figure is not None
    go.Figure(figure)  # raises for what plotly does not know
    across, up = figure["layout"]["xaxis"], figure["layout"]["yaxis"]
    for trace in figure["data"]:
        for x, y in zip(trace["x"], trace["y"], strict=True):
            assert across["range"][0] - 1e-9 <= math.log10(x) <= across["range"][1] + 1e-9
            assert up["range"][0] <= math.log10(y) <= up["range"][1]
    slope, flat = figure["data"][:2]
    assert (slope["x"][1], slope["y"][1]) == (flat["x"][0], flat["y"][0])  # they meet at the ridge
    assert slope["x"][1] == pytest.approx(matmul / copy)
    assert flat["y"][0] == flat["y"][1]
    assert math.log10(slope["y"][1] / slope["y"][0]) == pytest.approx(math.log10(slope["x"][1] / slope["x"][0]), abs=1e-9)
    points = roofline.points(rows, ceilings)
    for point in points:
        assert point.limit == pytest.approx(
            point.row["flops"] / (ceilings.limit_s(point.row["flops"], point.row["min_bytes"], "float32") or 0)
        )
    assert all(len(axis["tickvals"]) <= 8 for axis in (across, up))
    assert "nan" not in json.dumps(figure).lower()
    assert roofline.takeaway(rows, ceilings).count("bound by") == 1
