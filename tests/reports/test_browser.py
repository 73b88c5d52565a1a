"""The page in a real browser: no console message, no request, charts drawn, both widths, both schemes, without a script."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page

from kerneldyno.reports import frame
from kerneldyno.reports import page as report

from .browsing import IN_A_BROWSER, Open, until

pytestmark = IN_A_BROWSER
READY = "document.documentElement.dataset.ready === 'yes'"


@pytest.fixture(scope="module")
def address(rich_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser") / "rich"
    shutil.copytree(rich_folder, folder)
    return report.render(folder).as_uri()


def draw(page: Page, selector: str = ".chart") -> None:
    """Scroll to each chart, as a reader does, and wait until it is drawn."""
    for chart in page.query_selector_all(selector):
        chart.scroll_into_view_if_needed()
    until(page, f"[...document.querySelectorAll({selector!r})].every((chart) => chart.querySelector('.main-svg'))")


def color(page: Page, selector: str, attribute: str) -> str:
    return str(page.eval_on_selector(selector, f"(element) => getComputedStyle(element).{attribute}"))


def test_every_chart_is_really_drawn(open_page: Open) -> None:
    page = open_page()
    draw(page)
    counts = page.eval_on_selector_all(".chart", "(charts) => charts.map((chart) => chart.querySelectorAll('.point').length)")
    assert len(counts) == 41
    assert min(counts) >= 2
    sizes = page.eval_on_selector_all(".chart", "(charts) => charts.map((chart) => chart.querySelector('.main-svg').clientWidth)")
    assert min(sizes) > 250
    assert page.query_selector("script[src]") is None
    assert "<script>" in (page.text_content("#latency") or "")  # the hostile name, as text


def test_charts_are_drawn_when_first_seen_and_not_before(open_page: Open) -> None:
    page = open_page()
    page.wait_for_timeout(300)
    assert page.query_selector("#memory .main-svg") is None
    assert not page.evaluate("'Plotly' in window")


@pytest.mark.parametrize("width", [360, 1440])
def test_the_page_never_scrolls_sideways(open_page: Open, width: int) -> None:
    page = open_page(width)
    for details in page.query_selector_all("details"):
        details.evaluate("(element) => { element.open = true; }")
    if width == 360:
        draw(page, "#latency .chart")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    past_the_edge = """(all, width) => all
        .filter((element) => !element.closest('.scroll') && element.getBoundingClientRect().right > width + 1)
        .map((element) => element.outerHTML.slice(0, 80))"""
    outside = page.eval_on_selector_all("main *", past_the_edge, width)
    assert outside == []
    assert page.is_visible("h1")


def test_dark_follows_the_system_and_the_switch_wins(open_page: Open) -> None:
    page = open_page(color_scheme="dark")
    dark = color(page, "body", "backgroundColor")
    draw(page, "#latency figure:first-child .chart")
    line = ".chart[data-figure='latency-attention-0'] .trace path.js-line"
    in_dark = color(page, line, "stroke")
    page.select_option("#theme", "light")
    until(page, f"getComputedStyle(document.querySelector(\"{line}\")).stroke !== '{in_dark}'")
    light = color(page, "body", "backgroundColor")
    assert (dark, light) == ("rgb(23, 26, 31)", "rgb(255, 255, 255)")
    page.select_option("#theme", "dark")
    assert color(page, "body", "backgroundColor") == dark


def test_the_first_screen_reads_without_javascript(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    assert "Fastest: sdpa for attention" in page.inner_text("h1")
    assert page.is_visible("text=measured")
    assert page.locator("#overview table.grid").count() == 3
    assert "★" in page.inner_text("#overview table.grid >> nth=0")
    assert not page.is_visible("#theme")
    assert not page.is_visible("select[data-filter] >> nth=0")
    assert not page.is_visible("#search")
    assert page.is_visible("text=Without JavaScript this is all")
    page.click("#overview td.skipped a >> nth=0")
    assert "attention/" in page.locator(":target").inner_text()  # its reason


def test_filters_hide_what_was_not_asked_for(open_page: Open) -> None:
    page = open_page()
    until(page, READY)
    assert page.locator("#listing tbody tr").count() == 100
    total = 123
    page.select_option("select[data-filter=operator]", "layer")
    assert page.locator("#overview table.grid:visible").count() == 1
    kernels = page.locator("#listing tbody tr:visible td:first-child").all_inner_texts()
    assert 0 < len(kernels) < total
    assert all(name.startswith("layer/") for name in kernels)
    page.select_option("select[data-filter=operator]", "")
    page.select_option("select[data-filter=dtype]", "bfloat16")
    assert page.locator("#overview table.grid >> nth=0 >> thead tr:last-child th:visible").all_inner_texts() == [
        "batch × length",
        "1 × 512",
    ]
    page.select_option("select[data-filter=dtype]", "")
    page.fill("#search", "causal")
    shapes = page.locator("#listing tbody tr:visible td:nth-child(2)").all_inner_texts()
    assert shapes
    assert all("causal" in shape for shape in shapes)
    assert page.inner_text("#shown") == f"{len(shapes)} of {total} rows"


def test_the_table_sorts_by_keyboard_over_all_its_pages(open_page: Open) -> None:
    page = open_page()
    until(page, READY)
    heading = page.locator("#listing th", has_text="latency")
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    latencies = """async () => {
        const { get, places } = await kerneldyno.run.opened;
        const links = [...document.querySelectorAll("#listing tbody a")];
        return links.map((link) => get("latency_s", places.get(link.hash.slice(6))));
    }"""
    ascending = page.evaluate(latencies)
    assert ascending == sorted(ascending)
    page.click("text=Next")
    following = page.evaluate(latencies)
    assert len(ascending) + len(following) == 123
    assert following == sorted(following)
    assert following[0] >= ascending[-1]
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(latencies) == sorted(ascending + following, reverse=True)[:100]
    assert "rows 1 to 100 of 123" in page.inner_text("#pager")


def test_the_legend_takes_a_kernel_out_and_the_shape_can_be_chosen(open_page: Open) -> None:
    page = open_page()
    draw(page, "#latency .block:first-of-type .chart")
    traces = "document.querySelectorAll(\".chart[data-figure='latency-attention-0'] .scatterlayer .trace\").length"
    before = page.evaluate(traces)
    page.uncheck("#latency .legend input[value='attention/eager']")
    until(page, f"{traces} === {before - 1}")
    draw(page, "#error .block:first-of-type .chart")
    page.select_option("#error select.shape >> nth=0", index=1)
    chosen = page.eval_on_selector("#error select.shape", "(select) => select.selectedOptions[0].textContent")
    assert page.inner_text("#error .chosen figcaption >> nth=0") == chosen


def test_a_folded_table_is_made_when_it_is_opened_and_follows_the_filters(open_page: Open) -> None:
    page = open_page()
    assert page.locator("#memory table").count() == 0
    page.click("#memory .block:first-of-type details.numbers > summary")
    table = page.locator("#memory table.grid").first
    table.wait_for()
    assert table.locator("tbody tr").count() == page.locator("#overview table.grid").first.locator("tbody tr").count()
    assert "MiB" in table.inner_text()
    page.select_option("select[data-filter=kernel]", "sdpa")
    assert table.locator("tbody tr[data-kernel]:visible").count() == 1


def test_the_results_can_be_saved_as_csv_and_json(open_page: Open, rich_folder: Path, tmp_path: Path) -> None:
    page = open_page()
    until(page, READY)
    expected = frame.load(rich_folder).results
    for form in ("csv", "json"):
        with page.expect_download() as waiting:
            page.click(f"#save-{form}")
        waiting.value.save_as(tmp_path / f"saved.{form}")
        assert waiting.value.suggested_filename == f"rich.{form}"
    saved = pd.read_csv(tmp_path / "saved.csv")
    assert list(saved.columns) == list(expected.columns)
    assert saved["kernel"].tolist() == expected["kernel"].tolist()
    assert saved["latency_s"].to_numpy() == pytest.approx(expected["latency_s"].to_numpy(), rel=1e-6, nan_ok=True)
    told = json.loads((tmp_path / "saved.json").read_text(encoding="utf-8"))
    assert [row["case"] for row in told] == expected["case"].tolist()
    assert told[0]["flops"] == expected["flops"][0]
    page.select_option("select[data-filter=operator]", "layer")
    with page.expect_download() as waiting:
        page.click("#save-json")
    waiting.value.save_as(tmp_path / "part.json")
    assert {row["operator"] for row in json.loads((tmp_path / "part.json").read_text(encoding="utf-8"))} == {"layer"}


def test_a_view_has_an_address(open_page: Open, address: str) -> None:
    page = open_page()
    until(page, READY)
    page.select_option("select[data-filter=operator]", "feedforward")
    page.fill("#search", "2048")
    page.click("#listing th >> text=speedup")
    asked = page.url
    shown = page.locator("#listing tbody tr").all_inner_texts()
    assert asked.startswith(f"{address}#view?operator=feedforward&shape=2048&up=speedup")
    again = open_page()
    again.goto(address)
    again.evaluate("(hash) => { location.hash = hash; }", asked.partition("#")[2])
    until(again, "document.querySelectorAll('#listing tbody tr').length < 100")
    assert again.locator("#listing tbody tr").all_inner_texts() == shown
    assert again.input_value("#search") == "2048"


def test_pages_of_the_list_are_turned_by_keyboard_and_stay_when_a_table_is_opened(open_page: Open) -> None:
    page = open_page()
    until(page, READY)
    page.locator("#pager >> text=Next").focus()
    page.keyboard.press("Enter")
    assert "rows 101 to 123" in page.inner_text("#pager")
    page.click("#memory .block:first-of-type details.numbers > summary")
    page.locator("#memory table.grid").first.wait_for()
    assert "rows 101 to 123" in page.inner_text("#pager")
    page.locator("#pager >> text=Previous").focus()
    page.keyboard.press("Enter")
    assert "rows 1 to 100" in page.inner_text("#pager")
    assert page.evaluate("document.activeElement.textContent") == "Next"  # there is no page before


@pytest.mark.parametrize("end", ["cases?up=50%", "%C3", "nowhere", "case-0123456789abcdef"])
def test_a_link_that_leads_nowhere_does_no_harm(open_page: Open, address: str, end: str) -> None:
    page = open_page()
    page.goto("about:blank")
    page.goto(f"{address}#{end}")
    until(page, READY)
    assert page.locator("#listing tbody tr").count() > 0


def test_a_link_to_another_view_replaces_the_one_before(open_page: Open) -> None:
    page = open_page()
    until(page, READY)
    page.click("#listing th >> text=latency")
    page.evaluate("location.hash = '#cases?down=speedup'")
    until(page, "document.querySelector('#listing [aria-sort=descending]') !== null")
    assert page.locator("#listing [aria-sort]").count() == 1
    page.evaluate("location.hash = '#cases?operator=layer'")
    until(page, "document.querySelector('#listing [aria-sort]') === null")
    assert page.input_value("select[data-filter=operator]") == "layer"
