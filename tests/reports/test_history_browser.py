"""The page of a history in a real browser: no console message, no request, charts drawn when seen, both widths, no script."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from kerneldyno.bench.entries import Measured
from kerneldyno.bench.journal import Journal, read
from kerneldyno.bench.records import Measurement
from kerneldyno.reports import history_page

from .browsing import IN_A_BROWSER, Open, until

pytestmark = IN_A_BROWSER
NAMES = ("sdpa", "eager", "compiled", "int8", *(f"own{number}" for number in range(10)))


@pytest.fixture(scope="module")
def address(rich_folder: Path, made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sixteen runs of fifteen kernels, the hostile one slower from the tenth on; one kernel wrong once; two runs elsewhere."""
    folder = tmp_path_factory.mktemp("history")
    pattern = read(rich_folder).manifest
    cases = [made.case("attention", name, made.attention[0]) for name in (*NAMES, made.hostile)]
    generator = np.random.default_rng(2)
    for number in range(18):
        versions = pattern.environment.versions | ({"torch": "<b>2.14"} if number >= 16 else {})
        environment = msgspec.structs.replace(pattern.environment, commit=f"c{number:02}", versions=versions)
        created = f"2026-11-{1 + number:02}T08:00:00+00:00"
        manifest = msgspec.structs.replace(pattern, cases=cases, environment=environment, created=created)
        with Journal.create(folder / f"<i>{number}", manifest) as journal:
            for place, case in enumerate(cases):
                step = 1.1 if case is cases[-1] and number >= 9 else 1.0
                measurement = made.measured(case, (2 + place) * step * math.exp(0.01 * generator.standard_normal()), place)
                wrong = Measurement(case=case.id, status="wrong", reason=f"error ratio 5.2 {made.hostile}")
                journal.append(Measured(wrong if (place, number) == (2, 5) else measurement))
    return history_page.render([folder], folder / "history.html").as_uri()


def drawn(selector: str) -> str:
    return f'document.querySelector("{selector} .main-svg") !== null'


def test_the_chart_of_a_change_has_its_runs_levels_and_mark(open_page: Open) -> None:
    page = open_page()
    page.locator("#series-1").scroll_into_view_if_needed()
    until(page, drawn("#series-1"))
    assert page.locator("#series-1 .scatterlayer .trace").count() == 3
    assert page.locator("#series-1 .point").count() == 16
    assert "<script>alert(1)</script>" in page.inner_text("#series-1 h3")
    assert "slower since run <i>9 (commit c09)" in page.inner_text("#series-1 .takeaway")


def test_folded_charts_are_drawn_when_they_are_opened(open_page: Open) -> None:
    page = open_page()
    assert page.locator("#trend-1 details.more .main-svg").count() == 0
    page.click("#trend-1 details.more > summary")
    folded = page.locator("#trend-1 details.more .chart")
    assert folded.count() == 3
    folded.last.scroll_into_view_if_needed()
    until(page, drawn("#trend-1 details.more .block:last-child"))


def test_a_link_to_a_folded_series_opens_it(open_page: Open) -> None:
    page = open_page()
    target = page.locator("#trend-1 details.more .block").first.get_attribute("id")
    page.click(f"#listing a[href='#{target}']")
    page.locator(f"#{target}").wait_for(state="visible")


@pytest.mark.parametrize("width", [360, 1440])
def test_the_page_never_scrolls_sideways(open_page: Open, width: int) -> None:
    page = open_page(width)
    page.eval_on_selector_all("details", "(all) => all.forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_first_screen_reads_without_javascript(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    assert "% slower at 1×8×512×64 fp32 between run <i>8 (commit c08) and run <i>9 (commit c09)" in page.inner_text("h1")
    assert page.locator("#changes tbody tr").count() == 1
    assert "▲" in page.inner_text("#changes td >> nth=0")
    assert page.is_visible("text=a trend is no verdict")
    assert not page.is_visible("#search")
    page.click("#series-1 details.numbers summary")
    assert page.locator("#series-1 table tbody tr").count() == 16


def test_conditions_stand_apart_and_are_named(open_page: Open) -> None:
    page = open_page()
    assert page.locator("section[id^=trend-] h2").all_inner_texts() == [
        "Latency over runs: torch 2.13.0",
        "Latency over runs: torch <b>2.14",
    ]


def test_controls_work_by_keyboard(open_page: Open) -> None:
    page = open_page()
    page.select_option("select[data-filter=kernel]", "compiled")
    names = page.locator("#listing tbody tr:visible td:first-child").all_inner_texts()
    assert names == ["attention/compiled"] * 2
    page.select_option("select[data-filter=kernel]", "")
    heading = page.locator("#listing th", has_text="level now")
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    keys = page.eval_on_selector_all("#listing tbody td:nth-child(6)", "(cells) => cells.map((cell) => Number(cell.dataset.key))")
    assert keys == sorted(keys)


def test_dark_follows_the_system(open_page: Open) -> None:
    page = open_page(color_scheme="dark")
    assert page.eval_on_selector("body", "(body) => getComputedStyle(body).backgroundColor") == "rgb(23, 26, 31)"
