"""The page of several runs in a real browser: no console message, no request; runs and kernels can be hidden, tables saved."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.sync_api import Page

from kerneldyno.bench.records import Case
from kerneldyno.reports import together, together_page

from . import together_runs as runs
from .browsing import IN_A_BROWSER, Open, until

pytestmark = IN_A_BROWSER
RATES = {"sdpa": 1.0, "eager": 3.0, "onnxrt": 0.8, "int8": 0.5}


@pytest.fixture(scope="module")
def address(rich_folder: Path, made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two runs of hostile names; one case is wrong in the second, which also lacks a shape."""
    place = tmp_path_factory.mktemp("together")
    names = (*RATES, made.hostile)
    cases = [made.case("attention", name, problem) for problem in made.attention[:6] for name in names]

    def here(case: Case, number: int) -> float:
        return RATES.get(case.kernel.partition("/")[2], 4.0)

    def there(case: Case, number: int) -> float | str:
        return f"error ratio 5.2 {made.hostile}" if number == 1 else 0.5 * here(case, number)

    runs.write(place / "runs" / "<i>one", made, rich_folder, cases, here)
    runs.write(place / "runs" / "<i>other", made, rich_folder, cases[:-5], there, day=11, **runs.LAPTOP)
    return together_page.render([place / "runs"], place / "together.html").as_uri()


def traces(page: Page) -> int:
    return page.locator("#attention .panels figure:first-child .scatterlayer .trace").count()


def drawn(page: Page) -> None:
    page.locator("#attention .panels figure").first.scroll_into_view_if_needed()
    until(page, 'document.querySelector("#attention .panels figure:first-child .main-svg") !== null')


def test_the_first_screen_reads_without_javascript(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    assert page.inner_text("h1").startswith(
        "Fastest, ties included, at the 5 shapes that both runs planned: for attention, onnxrt in both runs"
    )
    assert page.locator(".cards article h2").all_inner_texts() == ["A <i>one", "B <i>other"]
    assert page.is_visible("text=measured at different times")
    assert page.locator("#differences .differs").count() > 3
    assert not page.is_visible("[data-run-switch]")
    cell = page.locator("#attention tr[data-kernel=onnxrt] td").first
    assert [line.split()[0] for line in cell.locator("p").all_inner_texts()] == ["A", "B", "B"]
    assert "B ÷ A 2.00×" in cell.inner_text().replace("1.99", "2.00").replace("2.01", "2.00")


def test_a_run_can_be_hidden_everywhere_by_keyboard(open_page: Open) -> None:
    page = open_page()
    drawn(page)
    before = traces(page)
    box = page.locator("#overview [data-run-switch=B]")
    box.focus()
    page.keyboard.press("Space")
    until(page, f"document.querySelectorAll('#attention .panels figure:first-child .scatterlayer .trace').length < {before}")
    assert page.locator("#attention p[data-run=B]:visible").count() == 0
    assert page.locator("#attention p[data-run=A]:visible").count() > 0
    assert not page.locator("#attention [data-run-switch=B]").is_checked()
    visible = page.locator("#listing thead th:visible").all_inner_texts()
    assert not [text for text in visible if text.endswith(("B", "B, × baseline"))]
    assert page.locator(".cards article:visible").count() == 1
    box.check()
    assert page.locator(".cards article:visible").count() == 2


def test_a_kernel_can_be_hidden_in_the_charts(open_page: Open, made: SimpleNamespace) -> None:
    page = open_page()
    drawn(page)
    before = traces(page)
    page.locator(f"#attention .legend input[value='attention/{made.hostile}']").uncheck()
    until(page, f"document.querySelectorAll('#attention .panels figure:first-child .scatterlayer .trace').length === {before - 2}")


def test_filters_search_and_sorting_act_on_the_table_of_all(open_page: Open) -> None:
    page = open_page()
    page.select_option("select[data-filter=kernel]", "onnxrt")
    assert page.locator("#listing tbody tr:visible").count() == 6
    page.fill("#search", "2048")
    assert page.locator("#listing tbody tr:visible").count() < 6
    page.select_option("select[data-filter=kernel]", "")
    page.fill("#search", "")
    heading = page.locator("#listing th", has_text="B ÷ A")
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    keys = page.eval_on_selector_all("#listing tbody td:last-child", "(cells) => cells.map((cell) => cell.dataset.key)")
    numbers = [float(key) for key in keys if key]
    assert numbers == sorted(numbers)
    assert keys[-6:] == [""] * 6
    assert "unpaired" in heading.inner_text()


def test_a_word_leads_to_its_reason(open_page: Open) -> None:
    page = open_page()
    page.locator("#attention td p.wrong a").click()
    assert page.url.endswith("#reason-1")
    assert "error ratio 5.2 <script>alert(1)</script>" in page.inner_text("#reason-1")


def test_what_is_saved_reads_back(open_page: Open, address: str, tmp_path: Path) -> None:
    page = open_page()
    with page.expect_download() as saving:
        page.click("#save-json")
    saving.value.save_as(tmp_path / "together.json")
    found = json.loads((tmp_path / "together.json").read_text(encoding="utf-8"))
    folder = Path(address.removeprefix("file://")).parent / "runs"
    read = together.read([folder])
    assert len(found) == len(read.frame) == 60
    with page.expect_download() as saving:
        page.click("#save-csv")
    saving.value.save_as(tmp_path / "together.csv")
    with (tmp_path / "together.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    for one, other, row in zip(found, table, read.every_row(), strict=True):
        assert one["latency_s"] == row["latency_s"]
        assert (float(other["latency_s"]) if other["latency_s"] else None) == row["latency_s"]
        assert one["kernel"] == other["kernel"] == row["kernel"]
        assert one["reason"] == row["reason"]


@pytest.mark.parametrize("width", [360, 1440])
def test_the_page_never_scrolls_sideways(open_page: Open, width: int) -> None:
    page = open_page(width)
    page.eval_on_selector_all("details", "(all) => all.forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_dark_follows_the_system(open_page: Open) -> None:
    page = open_page(color_scheme="dark")
    assert page.eval_on_selector("body", "(body) => getComputedStyle(body).backgroundColor") == "rgb(23, 26, 31)"
