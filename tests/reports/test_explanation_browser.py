"""The page of an explanation in a real browser: no console message, no request, maps drawn, both widths, both schemes, no script."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from kerneldyno.reports import explanation as report

from .browsing import IN_A_BROWSER, Open, until
from .explanations import explanation

pytestmark = IN_A_BROWSER


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report.render(explanation(), tmp_path_factory.mktemp("explanation") / "explain.html").as_uri()


def draw(page: Page) -> None:
    for chart in page.query_selector_all(".chart"):
        chart.scroll_into_view_if_needed()
    until(page, "[...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('.heatmaplayer image'))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_map_is_really_drawn(open_page: Open, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    draw(page)
    assert len(page.query_selector_all(".chart")) == 18
    first = page.query_selector_all(".maps")[0]
    tops = {round(chart.bounding_box()["y"]) for chart in first.query_selector_all(".chart")}
    assert len(tops) == 1  # exact, kernel and difference side by side
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(23, 26, 31)")


def test_the_theme_can_be_chosen_and_maps_stay(open_page: Open) -> None:
    page = open_page(color_scheme="light")
    draw(page)
    page.select_option("#theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 26, 31)"
    until(page, "[...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('.heatmaplayer image'))")


@pytest.mark.parametrize("width", [360, 1440])
def test_the_page_never_scrolls_sideways(open_page: Open, width: int) -> None:
    page = open_page(width)
    for details in page.query_selector_all("details"):
        details.evaluate("(element) => { element.open = true; }")
    draw(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_table_is_searched_and_sorted(open_page: Open) -> None:
    page = open_page()
    page.fill("#search", "int8")
    assert page.text_content("#shown") == "2 of 6 shown"
    page.fill("#search", "")
    page.click("#listing th:nth-child(3) button")
    moved = page.eval_on_selector_all("#listing tbody tr", "(rows) => rows.map((row) => Number(row.cells[2].dataset.key))")
    assert moved == sorted(moved)


def test_without_a_script_the_words_and_numbers_are_there(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    assert page.inner_text("h1").startswith("int8 moves")
    assert page.is_visible("#listing")
    assert not page.is_visible(".chart")
