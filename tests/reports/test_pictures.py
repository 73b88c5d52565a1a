"""Pictures: every chart of the page as a file that says what it shows, drawn by a real browser; or one sentence why not."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import plotly.graph_objects as go
import pytest

from kerneldyno.bench.journal import Run
from kerneldyno.reports import frame, pictures
from kerneldyno.reports.sections import Drawing
from kerneldyno.reports.standalone import HEIGHT, WIDTH, standalone

from .browsing import IN_A_BROWSER

_, needs_chromium = IN_A_BROWSER


@pytest.fixture(scope="module")
def made_figures(rich: Run) -> dict[str, dict]:
    return pictures.figures(frame.Frames(rich))


def cli(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kerneldyno.bench", "report", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_every_chart_of_the_page_is_a_picture_and_each_operator_has_an_overview(rich: Run, made_figures: dict[str, dict]) -> None:
    drawing = Drawing(frame.Frames(rich))
    charts = [chart for section in drawing.sections() for block in section.blocks for chart in [*block.charts, *block.choice]]
    overviews = [name for name in made_figures if name.startswith("overview-")]
    assert len(made_figures) == len(charts) + len(overviews)
    assert {name.split("-")[1] for name in overviews} == {"attention", "feedforward", "layer"}
    assert "latency-layer-batch-1" in made_figures


def test_names_of_files_are_telling_and_harmless(made_figures: dict[str, dict]) -> None:
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) and len(name) <= 100 for name in made_figures)
    taken: dict[str, int] = {}
    for text in ("../../Ünïcode <b>1×2→3</b>", "../../Ünïcode <b>1×2→3</b>", "🙂", "🙂", "x" * 500):
        taken[pictures._free(text, taken)] = 1
    assert list(taken)[:4] == ["unicode-b-1x2-to-3-b", "unicode-b-1x2-to-3-b-2", "chart", "chart-2"]


def test_a_picture_can_be_read_alone(made_figures: dict[str, dict], made: SimpleNamespace) -> None:
    for name, figure in made_figures.items():
        go.Figure(figure)
        layout = figure["layout"]
        title, subtitle = layout["title"]["text"], layout["title"]["subtitle"]["text"]
        assert title.split(":")[0] in {"Attention", "Feed-forward", "Encoder layer"}
        assert "AMD EPYC 9R14 (CPU, 2 threads) · 23 November 2026 · protocol default" in subtitle
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "#ffffff"
        assert (layout["width"], layout["height"] >= HEIGHT) == (WIDTH, True)
        if not name.startswith("overview"):
            axes = [layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis") if "title" in layout[axis]]
            notes = [note["text"] for note in layout.get("annotations", ())]
            assert any("is better" in text or "faster" in text for text in [*axes, *notes]), name
        assert made.hostile not in str([trace.get("name") for trace in figure["data"]])
    names = [trace["name"] for trace in made_figures["latency-layer-batch-1"]["data"] if trace["showlegend"]]
    assert len(names) == len(set(names)) > 3


def test_a_legend_names_each_kernel_once_and_long_names_are_cut() -> None:
    traces = [{"type": "scatter", "x": [1], "y": [1], "name": name} for name in ("a", "a", "&lt;b&gt;" + "x" * 60)]
    given = {"data": traces, "layout": {"xaxis": {}, "yaxis": {}}}
    drawn = standalone(given, "<b>T</b>", ["one", "<i>two</i>"])
    assert [trace["showlegend"] for trace in drawn["data"]] == [True, False, True]
    assert drawn["data"][2]["name"] == "&lt;b&gt;" + "x" * 32 + "…"
    assert drawn["layout"]["title"]["text"] == "&lt;b&gt;T&lt;/b&gt;"
    assert drawn["layout"]["title"]["subtitle"]["text"] == "one<br>&lt;i&gt;two&lt;/i&gt;"
    assert "title" not in given["layout"]
    many = {"data": [{"type": "scatter", "name": f"kernel {number}"} for number in range(60)], "layout": {}}
    assert standalone(many, "many")["layout"]["height"] > 60 * 20


@needs_chromium
@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_draws_them_and_draws_them_the_same_again(made: SimpleNamespace, tmp_path: Path) -> None:
    cases = [made.case("attention", name, shape) for shape in made.attention[1:3] for name in ("eager", "sdpa", "int8", made.hostile)]
    folder = made.run(tmp_path / "run", cases, [made.measured(case, 1 + number / 10, number) for number, case in enumerate(cases)])
    expected = pictures.figures(frame.load(folder))
    done = cli(str(folder), "--svg", str(tmp_path / "new" / "pictures"))
    assert done.returncode == 0, done.stderr
    assert f"{len(expected)} pictures: {tmp_path / 'new' / 'pictures'}" in done.stdout
    found = sorted((tmp_path / "new" / "pictures").iterdir())
    assert {path.stem for path in found} == set(expected)
    for path in found:
        picture = ET.fromstring(path.read_bytes())
        text = " ".join("".join(element.itertext()) for element in picture.iter("{http://www.w3.org/2000/svg}text"))
        assert "AMD EPYC 9R14" in text
        assert made.hostile[:12] in text
        assert "script" not in {element.tag.rpartition("}")[2] for element in picture.iter()}
    chosen = list(expected)[:4:3]
    again = pictures.draw([expected[name] for name in chosen], "svg")
    assert again == [(tmp_path / "new" / "pictures" / f"{name}.svg").read_bytes() for name in chosen]


@needs_chromium
@pytest.mark.browser
def test_a_png_is_twice_as_large_as_its_layout_and_says_nothing_else(made_figures: dict[str, dict]) -> None:
    [data] = pictures.draw([made_figures["latency-layer-batch-1"]], "png")
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (2 * WIDTH, 2 * HEIGHT)
    chunks, at = set(), 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.add(data[at + 4 : at + 8])
        at += 12 + length
    assert chunks == {b"IHDR", b"IDAT", b"IEND"}


def test_without_a_browser_one_sentence_and_nothing_written(rich_copy: Path, tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    before = sorted(rich_copy.iterdir())
    done = cli(str(rich_copy), "--png", str(tmp_path / "pictures"), BROWSER_PATH=str(tmp_path / "no browser"))
    assert done.returncode == 2
    assert done.stderr.startswith("kerneldyno: pictures are drawn by Chrome or Chromium, and BROWSER_PATH='")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "pictures").exists()
    assert sorted(rich_copy.iterdir()) == before


def test_a_browser_that_is_none_is_one_sentence(rich_copy: Path, tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    done = cli(str(rich_copy), "--png", str(tmp_path / "pictures"), BROWSER_PATH="/bin/true")
    assert done.returncode == 2
    assert "kerneldyno: the browser drew no pictures (" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "pictures").exists()


def test_without_kaleido_one_sentence(rich: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(
        pictures.PictureError, match=r"^pictures need kaleido, which is not installed: pip install 'kerneldyno\[pictures\]'$"
    ):
        pictures.draw([], "png")


def test_a_file_instead_of_a_folder_is_one_sentence(rich_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = cli(str(rich_copy), "--svg", str(tmp_path / "taken"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "is a file: give a folder" in done.stderr
