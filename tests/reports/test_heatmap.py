"""The overview in one picture: every kernel at every shape, a number or a word, and the winner marked."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import plotly.graph_objects as go
import pytest

from kerneldyno.bench.journal import Run
from kerneldyno.reports import frame
from kerneldyno.reports.heatmap import heatmap


@pytest.fixture(scope="module")
def frames(rich: Run) -> frame.Frames:
    return frame.Frames(rich)


def attention(frames: frame.Frames) -> list[dict[str, Any]]:
    return [row for row in frame.rows(frames.results) if row["operator"] == "attention"]


def texts(drawn: dict[str, Any]) -> dict[tuple[str, str], str]:
    """What stands in each cell, whichever of the traces shows it."""
    found: dict[tuple[str, str], str] = {}
    for trace in drawn["data"]:
        for kernel, line in zip(trace["y"], trace["text"], strict=True):
            for shape, text in zip(trace["x"], line, strict=True):
                if text:
                    assert (kernel, shape) not in found
                    found[kernel, shape] = text
    return found


def test_every_cell_says_its_speedup_or_why_there_is_none(frames: frame.Frames) -> None:
    rows = attention(frames)
    found = texts(heatmap(rows, frames.winners))
    assert set(found) == {(kernel, shape) for kernel in {row["kernel"] for row in rows} for shape in {row["group"] for row in rows}}
    for row in rows:
        text = found[row["kernel"], row["group"]]
        if row["status"] != "ok":
            assert text == row["status"]
        elif row["speedup"]:
            assert text.startswith(f"{row['speedup']:.2f}"[:3]), text


def test_the_winner_of_each_shape_is_marked_in_its_division(frames: frame.Frames) -> None:
    rows = attention(frames)
    for contests in (frames.winners, None):
        found = texts(heatmap(rows, contests))
        for shape in {row["group"] for row in rows}:
            for loose, sign in ((False, "★"), (True, "☆")):
                own = {row["kernel"] for row in rows if row["group"] == shape and bool(row["approximate"]) == loose}
                marked = [kernel for kernel in own if sign in found[kernel, shape] or "≈" in found[kernel, shape]]
                assert 1 <= len(marked) <= 2
    by_speedup = texts(heatmap(rows))
    best = max((row for row in rows if row["speedup"] and not row["approximate"]), key=lambda row: row["speedup"])
    assert "★" in by_speedup[best["kernel"], best["group"]]


def test_approximate_kernels_are_a_division_of_their_own(frames: frame.Frames) -> None:
    drawn = heatmap(attention(frames), frames.winners)
    divisions: dict[str, set[str]] = {}
    for trace in drawn["data"]:
        divisions.setdefault(trace["yaxis"], set()).update(trace["y"])
    loose = {"attention/int8", "attention/pruned"}
    assert divisions["y2"] == loose
    assert not divisions["y"] & loose
    assert drawn["layout"]["yaxis2"]["domain"][1] < drawn["layout"]["yaxis"]["domain"][0]


def test_one_without_a_number_is_grey_and_faster_is_bluer_than_slower(frames: frame.Frames) -> None:
    rows = attention(frames)
    coloured, grey = heatmap(rows, frames.winners)["data"][:2]
    kernels, shapes = coloured["y"], coloured["x"]
    for row in (row for row in rows if not row["approximate"]):
        value = coloured["z"][kernels.index(row["kernel"])][shapes.index(row["group"])]
        if row["status"] != "ok":
            assert value is None
            assert grey["z"][kernels.index(row["kernel"])][shapes.index(row["group"])] is not None
        else:
            assert (value > 0) == (row["speedup"] > 1)
            assert -2 <= value <= 2


def test_shapes_are_named_by_what_tells_them_apart(frames: frame.Frames) -> None:
    drawn = heatmap([row for row in frame.rows(frames.results) if row["operator"] == "layer"])
    assert drawn["layout"]["xaxis"]["ticktext"] == [f"{length}<br>batch {batch}" for batch in (1, 4) for length in (128, 512, 2048)
                                                    if (batch, length) != (4, 2048)]  # fmt: skip
    labels = heatmap(attention(frames))["layout"]["xaxis"]["ticktext"]
    assert len(set(labels)) == len(labels) == 8
    assert "1×8×512×64 fp32" not in labels[0] or "bf16" in "".join(labels)
    assert any("causal" in label for label in labels)


def test_plotly_accepts_it_and_no_name_is_markup(frames: frame.Frames, made: SimpleNamespace) -> None:
    drawn = heatmap(attention(frames), frames.winners)
    go.Figure(drawn)
    json.dumps(drawn, allow_nan=False)
    shown = json.dumps([drawn["layout"], [[trace["text"], trace["hovertext"]] for trace in drawn["data"]]])
    assert made.hostile not in json.dumps([layout["ticktext"] for name, layout in drawn["layout"].items() if name.startswith("yaxis")])
    assert "&lt;script&gt;" in shown


def test_rows_of_several_operators_are_refused_in_a_sentence(frames: frame.Frames) -> None:
    with pytest.raises(ValueError, match="of one operator, and these rows are of attention, feedforward, layer"):
        heatmap(frames.results)
    with pytest.raises(ValueError, match="none"):
        heatmap([])
