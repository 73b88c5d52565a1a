"""One case in full, in a real browser: opened from a cell, by keyboard, by its address; its samples, its command, its neighbours."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.sync_api import Browser

from kerneldyno.bench.journal import read
from kerneldyno.bench.records import Clocks, Energy, Warn
from kerneldyno.reports import page as report
from kerneldyno.reports import reproduce, thinning

from .browsing import IN_A_BROWSER, Open, until

pytestmark = IN_A_BROWSER
DRAWN = "document.querySelector('#case .chart .main-svg') !== null"
OPEN = "document.getElementById('case').open"


@pytest.fixture(scope="module")
def address(rich_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("case") / "rich"
    shutil.copytree(rich_folder, folder)
    return report.render(folder).as_uri()


def test_a_number_opens_its_case_by_keyboard_and_escape_closes_it(open_page: Open, rich_folder: Path, address: str) -> None:
    page = open_page()
    cell = page.locator("#overview table.grid tbody td:not(.state) a").first
    identity = (cell.get_attribute("href") or "").removeprefix("#case-")
    cell.focus()
    page.keyboard.press("Enter")
    until(page, DRAWN)
    run = read(rich_folder)
    [case] = [case for case in run.cases if case.id == identity]
    assert page.inner_text("#case-title") == case.kernel
    assert case.label in page.inner_text("#case-shape")
    assert page.evaluate("document.activeElement.id") == "case-title"
    samples = run.measurements[identity].samples_s
    assert page.locator("#case .scatterlayer .point").count() == len(samples)
    assert page.inner_text("#case pre.command >> nth=-1") == reproduce.command(run, case)
    for words in ("median", "95th percentile", "slowest", "The device meanwhile", "Measure it again"):
        assert words in page.inner_text("#case-body")
    page.click("#case summary >> text=kernels at this shape")
    assert page.locator("#case tr.here").inner_text().startswith(case.kernel)
    page.click("#case summary >> text=columns of this row")
    assert "latency_p95_s" in page.inner_text("#case-body")
    page.keyboard.press("Escape")
    assert not page.evaluate(OPEN)
    assert page.url.partition("#")[0] == address
    assert "case-" not in page.url


def test_an_address_opens_its_case_and_a_neighbour_leads_on(open_page: Open, rich_folder: Path, address: str) -> None:
    run = read(rich_folder)
    case = next(case for case in run.cases if case.kernel == "layer/onnxrt")
    page = open_page()
    page.goto(f"{address}#case-{case.id}")
    page.reload()
    until(page, DRAWN)
    assert page.inner_text("#case-title") == "layer/onnxrt"
    page.click("#case summary >> text=kernels at this shape")
    page.click("#case tr:not(.here) a >> nth=0")
    until(page, "document.getElementById('case-title').textContent !== 'layer/onnxrt'")
    assert page.inner_text("#case-title").startswith("layer/")
    page.click("#case-close")
    assert not page.evaluate(OPEN)


def test_a_case_without_a_number_tells_why(open_page: Open, rich_folder: Path, made: SimpleNamespace) -> None:
    run = read(rich_folder)
    [failed] = [one for one in run.measurements.values() if one.status == "failed"]
    page = open_page()
    page.evaluate("(hash) => { location.hash = hash; }", f"case-{failed.case}")
    until(page, f"{OPEN} && document.querySelector('#case pre.command') !== null")
    told = page.inner_text("#case-body")
    assert "failed" in told
    assert made.hostile in told  # as text
    assert page.locator("#case .chart").count() == 0


def test_what_a_gpu_tells_and_what_is_left_out_is_said(made: SimpleNamespace, tmp_path: Path, browser: Browser) -> None:
    case = made.case("attention", "sdpa", made.attention[0])
    measurement = made.measured(case, 1.0, 1)
    [process] = measurement.processes
    long = [1e-3 + 1e-7 * (number % 97) for number in range(thinning.MOST + 500)]
    process.samples_s[:] = long
    process.rounds[:] = range(len(long))
    measurement.clocks = Clocks(before_mhz=1980.0, after_mhz=1965.0, temperature_c=54.0, throttle_reasons=("power cap",), dropped_rounds=3)
    measurement.energy = Energy(
        power_w=612.5,
        energy_j=0.02,
        idle_w=88.0,
        valid=True,
        windows_j=[0.0201, 0.0199],
        source="nvml total energy",
        temperature_low_c=51.0,
        temperature_high_c=53.0,
    )
    measurement.warnings = [Warn("unstable", "it did not settle")]
    folder = made.run(tmp_path / "gpu", [case], [measurement])
    target = report.render(folder).as_uri()
    page = browser.new_context().new_page()
    page.goto(f"{target}#case-{case.id}")
    until(page, DRAWN)
    told = page.inner_text("#case-body")
    for words in (
        "1980 → 1965 MHz",
        "54 °C",
        "power cap",
        "612.5 W",
        "88 W",
        "0.0201, 0.0199 J per call",
        "51 – 53 °C",
        "unstable: it did not settle",
    ):
        assert words in told, words
    said = re.search(r"Drawn are (\d+) of (\d+), in their order, the fastest and the slowest among them", told)
    assert said
    assert thinning.MOST - 2 <= int(said[1]) <= thinning.MOST
    assert int(said[2]) == len(long)
    page.context.close()


def test_two_links_at_once_show_the_second_case_alone(open_page: Open, rich_folder: Path) -> None:
    run = read(rich_folder)
    first, second = [case for case in run.cases if case.kernel == "attention/sdpa" and run.measurements[case.id].status == "ok"][:2]
    page = open_page()
    page.evaluate(
        "([a, b]) => { location.hash = a; setTimeout(() => { location.hash = b; }, 5); }", [f"case-{first.id}", f"case-{second.id}"]
    )
    until(page, f"{DRAWN} && document.getElementById('case-shape').textContent.startsWith({second.label!r})")
    page.wait_for_timeout(300)
    assert page.locator("#case h3 >> text=Every sample").count() == 1
    assert page.inner_text("#case pre.command >> nth=-1") == reproduce.command(run, second)


def test_samples_without_a_latency_are_drawn_as_they_are(made: SimpleNamespace, tmp_path: Path, browser: Browser) -> None:
    case = made.case("attention", "sdpa", made.attention[0])
    measurement = made.measured(case, 1.0, 1)
    measurement.status, measurement.reason = "invalid", "its answer changed while it was timed"
    target = report.render(made.run(tmp_path / "invalid", [case], [measurement])).as_uri()
    page = browser.new_context().new_page()
    page.goto(f"{target}#case-{case.id}")
    until(page, DRAWN)
    told = page.inner_text("#case-body")
    assert "its answer changed while it was timed" in told
    assert "fastest" in told
    assert "median" not in told  # nothing was worked out
    assert page.locator("#case .scatterlayer .trace").count() == 1
    page.context.close()


def test_closed_cases_leave_nothing_behind(open_page: Open) -> None:
    page = open_page()
    links = page.locator("#overview table.grid tbody td:not(.state) a")
    purged = "window.purged = 0; const own = Plotly.purge; Plotly.purge = (chart) => { window.purged += 1; return own(chart); }; null"
    for number in range(3):
        links.nth(number).click()
        until(page, DRAWN)
        if number == 0:
            page.evaluate(purged)
        page.keyboard.press("Escape")
        until(page, "document.getElementById('case-body').childElementCount === 0")
    assert page.evaluate("window.purged") == 3
