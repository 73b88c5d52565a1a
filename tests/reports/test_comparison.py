"""The page of a comparison: one file, everything escaped, every cell with its word, numbers, figure and way to reproduce."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import msgspec
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings

from kerneldyno.bench.verdict import Outcome
from kerneldyno.reports import comparison, ratios

from .browsing import IN_A_BROWSER, Open, until
from .outline import Outline

sample = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("outcomes.py"))))


@pytest.fixture(scope="module")
def text() -> str:
    return comparison.page(sample.rich())


@pytest.fixture(scope="module")
def outline(text: str) -> Outline:
    return Outline(text)


def test_it_parses_and_every_link_has_its_target(outline: Outline) -> None:
    assert outline.faults == []
    assert outline.open == []
    ids = [attributes["id"] for _, attributes in outline.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = {(attributes["href"] or "").removeprefix("#") for attributes in outline.of("a")}
    assert len(links) > 19
    assert links <= set(ids)


def test_it_is_one_file_that_connects_to_nothing(outline: Outline, text: str) -> None:
    addresses = [value for _, attributes in outline.elements for name, value in attributes.items() if name in {"src", "href", "action"}]
    assert [address for address in addresses if address and not address.startswith("#")] == ["data:,"]
    outline.check_policy()
    assert re.findall(r"nonce-(\w+)", comparison.page(sample.rich())) != re.findall(r"nonce-(\w+)", text)
    assert len(text) < 3 * 2**20


def test_the_first_screen_says_it_all_without_a_script(text: str) -> None:
    first = "".join(Outline(text[text.index('<section id="overview"') : text.index('<section id="ratios"')]).texts)
    for words in (
        "✗ fails (exit 4: too noisy, or a canary differs)", "invalid: a base differs from its own copy", "origin/main", "0123abc0123abc",
        "89abc-dirty", "AMD EPYC 9R14", "1 DIFFERS, 1 FAILED, 1 INCONCLUSIVE, 1 SAME", "clocks are not locked", "+2.1 %",
        "1.052 [1.040, 1.064]", "1.16 ms → 1.22 ms", "12.0 MiB → 20.0 MiB REGRESSED", "0.410 naive errors", "98 %", "2 left out",
    ):  # fmt: skip
        assert words in first, words
    assert re.search(r"4\s+REGRESSED", first)


def test_every_cell_has_its_row_worst_first_and_its_reason(outline: Outline) -> None:
    rows = [attributes for attributes in outline.of("tr") if (attributes.get("id") or "").startswith("cell-")]
    words = [attributes["data-word"] for attributes in rows]
    assert words == [
        *["REGRESSED"] * 3, "FAILED", "MISSING", "INVALID", "REGRESSED", "INCONCLUSIVE", "IMPROVED", "NEW", *["SAME"] * 9,
    ]  # fmt: skip
    assert [attributes.get("class") for attributes in rows] == ["fails"] * 6 + [None] * 13
    told = "\n".join(outline.texts)
    assert all(one.reason in told for one in sample.verdicts())
    assert "measured in adjacent processes: it registers torch ops" in told
    for reason in ("its source is the same on both sides", "does not fail the comparison", "looked at 2 times"):
        assert reason in told


def test_hostile_names_are_text_and_nothing_else(outline: Outline, text: str) -> None:
    assert "<script>alert" not in text
    assert any("<script>alert(1)</script>" in words for words in outline.texts)
    assert len(outline.of("script")) == 5
    labels = json.dumps(outline.payload("figures"))
    assert "<script" not in labels
    assert "&lt;script&gt;" in labels


def test_verdict_json_travels_whole(outline: Outline) -> None:
    assert msgspec.convert(outline.payload("verdict"), type=Outcome) == sample.rich()
    lines = outline.payload("csv").splitlines()
    assert lines[0].startswith("word,fails,operator,kernel,base_kernel,label,device,ratio,low,high")
    assert len(lines) == 1 + len(sample.verdicts())


def test_figures_are_real_ones_and_each_has_its_place_and_its_table(outline: Outline) -> None:
    figures = outline.payload("figures")
    places = {attributes["data-figure"] for attributes in outline.of("div") if "data-figure" in attributes}
    assert places == set(figures)
    assert {name for name in figures if name.startswith("ratios")} == {"ratios-0", "ratios-1", "ratios-2"}
    assert sum(name.startswith("processes") for name in figures) == sum(one.latency is not None for one in sample.verdicts())
    for figure in figures.values():
        go.Figure(figure)  # plotly's own validation
    told = "".join(outline.texts)
    assert "1.0520" in told  # the table beside the plot of ratios
    assert all(f"{difference:+.4f}" in told for difference in sample.verdicts()[0].latency.differences)


def test_the_forest_shows_intervals_margin_and_order() -> None:
    cells = [one for one in sample.verdicts() if one.operator == "attention"]
    figure = ratios.forest(cells)
    layout = figure["layout"]
    assert layout["xaxis"]["type"] == "log"
    assert layout["yaxis"]["categoryarray"][-1] == cells[0].cell  # the last one stands on top
    band, equal = layout["shapes"]
    assert (band["x0"], band["x1"], equal["x0"]) == (1 / 1.02, 1.02, 1)
    [slower] = [trace for trace in figure["data"] if trace["name"] == "REGRESSED"]
    place = slower["y"].index("a1")
    assert slower["x"][place] + slower["error_x"]["array"][place] == pytest.approx(cells[0].latency.high)
    assert slower["x"][place] - slower["error_x"]["arrayminus"][place] == pytest.approx(cells[0].latency.low)
    low, high = layout["xaxis"]["range"]
    assert all(low < tick < high for tick in [-0.149, 0.117])  # log10 of 0.71 and 1.31
    assert {trace["name"] for trace in figure["data"]} == {"REGRESSED", "SAME", "INCONCLUSIVE", "IMPROVED"}
    assert len({trace["marker"]["symbol"] for trace in figure["data"]}) == 4  # colour never alone


def test_processes_are_drawn_in_the_order_of_measuring() -> None:
    ratio = sample.ratio(1.2, 0.02, processes=12)
    points, mean = ratios.processes(ratio, "REGRESSED")["data"]
    assert points["x"] == list(range(1, 13))
    assert points["y"] == pytest.approx([2.718281828459045**difference for difference in ratio.differences])
    assert mean["y"] == [1.2, 1.2]


@pytest.mark.parametrize(("low", "high"), [(0.97, 1.03), (0.7, 1.31), (0.1, 15.0), (1.001, 1.0011), (0.999, 1.0)])
def test_ticks_are_few_and_lie_inside(low: float, high: float) -> None:
    ticks = ratios.steps(low, high)
    assert len(ticks) <= 9
    assert all(low <= tick <= high or tick == 1 for tick in ticks)


def test_numbers_that_cannot_be_drawn_do_not_break_the_page() -> None:
    odd = msgspec.structs.replace(sample.ratio(1.0), high=float("inf"), spread=float("nan"))
    bare = msgspec.structs.replace(sample.ratio(1.0), differences=[])
    told = [
        sample.verdict("x", "attention/a", "INCONCLUSIVE", latency=odd),
        sample.verdict("y", "attention/b", "SAME", latency=bare),
        sample.verdict("z", "attention/c", "SAME", latency=msgspec.structs.replace(bare, ratio=200.0, high=300.0)),
    ]
    outline = Outline(comparison.page(sample.fine(verdicts=told)))
    assert outline.faults == []
    assert set(outline.payload("figures")) == {"ratios-0"}


def test_next_to_nothing_has_a_page_too(tmp_path: Path) -> None:
    outcome = sample.fine(verdicts=[], canaries=[], means=[], command="", exit_code=3, meaning="not comparable")
    path = comparison.render(outcome, tmp_path / "comparison.html", plain=True)
    outline = Outline(path.read_text(encoding="utf-8"))
    assert outline.faults == []
    assert "no cell was compared" in outline.texts
    assert not [attributes for attributes in outline.of("select") if "data-filter" in attributes]
    assert list(tmp_path.iterdir()) == [path]


def test_of_very_many_cells_the_worst_are_drawn_and_all_are_listed() -> None:
    outline = Outline(comparison.page(sample.large(400)))
    figures = outline.payload("figures")
    assert max(len(figure["layout"]["yaxis"].get("tickvals", [])) for name, figure in figures.items() if name.startswith("ratios")) == 60
    assert sum((attributes.get("id") or "").startswith("cell-") for attributes in outline.of("tr")) == 400
    assert "Drawn are 60, worst first; the table has all." in "".join(outline.texts)


@settings(max_examples=25, deadline=None)
@given(outcome=sample.outcomes())
def test_whatever_the_names_the_page_is_of_our_own_making(outcome: Outcome) -> None:
    outline = Outline(comparison.page(outcome))
    assert outline.faults == []
    assert outline.open == []
    assert len(outline.of("script")) == 5
    assert msgspec.convert(outline.payload("verdict"), type=Outcome) == outcome


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return comparison.render(sample.rich(), tmp_path_factory.mktemp("browser") / "comparison.html").as_uri()


class TestInABrowser:
    pytestmark = IN_A_BROWSER

    def test_ratios_are_drawn_and_a_cell_only_when_it_is_opened(self, open_page: Open) -> None:
        page = open_page()
        for chart in page.query_selector_all("#ratios .chart"):
            chart.scroll_into_view_if_needed()
        until(page, "document.querySelectorAll('#ratios .chart .main-svg').length >= 3")
        assert page.locator("#ratios .point").count() == 16
        page.locator("#process-1").scroll_into_view_if_needed()
        page.wait_for_timeout(300)
        assert page.locator("#processes .main-svg").count() == 0
        page.click("#process-1 > summary")
        until(page, "document.querySelectorAll('#process-1 .chart .point').length === 8")
        assert page.evaluate("document.querySelector('#process-1 .main-svg').clientWidth") > 250

    def test_it_reads_without_javascript(self, open_page: Open) -> None:
        page = open_page(java_script_enabled=False)
        assert page.is_visible("text=fails (exit 4")
        assert page.locator("#listing tbody tr:visible").count() == 19
        assert not page.is_visible("#theme")
        assert not page.is_visible("#save")
        assert not page.is_visible("select[data-filter] >> nth=0")
        page.click("#process-0 > summary")
        assert page.is_visible("#process-0 table")

    def test_filters_and_search_hide_what_was_not_asked_for(self, open_page: Open) -> None:
        page = open_page()
        rows = page.locator("#listing tbody tr:visible")
        page.select_option("select[data-filter=word]", "REGRESSED")
        assert rows.count() == 4
        assert page.locator("details.cell:visible").count() == 4
        page.select_option("select[data-filter=kernel]", "attention/fused")
        assert rows.count() == 2
        page.fill("#search", "1×8×128")
        assert rows.count() == 1
        assert page.inner_text("#shown") == "1 of 19 shown"
        page.fill("#search", "")
        page.select_option("select[data-filter=word]", "")
        page.select_option("select[data-filter=kernel]", "")
        page.select_option("select[data-filter=operator]", "layer")
        assert page.locator("#ratios .block:visible").count() == 1

    def test_the_table_sorts_by_keyboard_and_a_name_opens_its_cell(self, open_page: Open) -> None:
        page = open_page()
        heading = page.locator("#listing th", has_text="ratio")
        heading.locator("button").focus()
        page.keyboard.press("Enter")
        keys = page.eval_on_selector_all("#listing tbody td:nth-child(4)", "(cells) => cells.map((cell) => cell.dataset.key)")
        numbers = [float(key) for key in keys if key]
        assert numbers == sorted(numbers)
        assert keys[-3:] == [""] * 3  # what has no ratio comes last
        page.locator("#listing a", has_text="1×8×128×64").click()
        until(page, "document.querySelector('#process-0').open")

    def test_both_files_can_be_saved(self, open_page: Open, tmp_path: Path) -> None:
        page = open_page()
        with page.expect_download() as waiting:
            page.click("#save")
        assert waiting.value.suggested_filename == "verdict.json"
        waiting.value.save_as(tmp_path / "verdict.json")
        assert msgspec.json.decode((tmp_path / "verdict.json").read_bytes(), type=Outcome) == sample.rich()
        with page.expect_download() as waiting:
            page.click("#download")
        waiting.value.save_as(tmp_path / "cells.csv")
        assert (tmp_path / "cells.csv").read_text(encoding="utf-8").startswith("word,fails,operator")

    @pytest.mark.parametrize("width", [360, 1440])
    def test_the_page_never_scrolls_sideways(self, open_page: Open, width: int) -> None:
        page = open_page(width)
        for details in page.query_selector_all("details"):
            details.evaluate("(element) => { element.open = true; }")
        assert page.evaluate("document.documentElement.scrollWidth") == width

    def test_dark_follows_the_system_and_the_switch_wins(self, open_page: Open) -> None:
        page = open_page(color_scheme="dark")
        paper = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(paper) == "rgb(23, 26, 31)"
        page.select_option("#theme", "light")
        assert page.evaluate(paper) == "rgb(255, 255, 255)"

    def test_it_prints_with_every_cell(self, open_page: Open) -> None:
        page = open_page()
        assert len(page.pdf()) > 20_000
        page.emulate_media(media="print")
        assert not page.is_visible("#save")
        assert page.locator("#listing tbody tr:visible").count() == 19
