"""Every kind of page, judged by axe-core in both colour schemes, at a phone's and a laptop's width; on paper; with hostile names."""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, Page

from kerneldyno.reports import comparison, explanation, history_page, together_page
from kerneldyno.reports import page as report

from .browsing import IN_A_BROWSER, until
from .explanations import explanation as explained

AXE = Path(os.environ.get("AXE_CORE", ".nox/axe/node_modules/axe-core/axe.min.js"))
pytestmark = IN_A_BROWSER
with_axe = pytest.mark.skipif(
    not AXE.exists() and not os.environ.get("CI"), reason="no axe-core: npm install --prefix .nox/axe axe-core, as .ci/run does"
)
sample = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("outcomes.py"))))
NAMES = [
    "<script>alert(1)</script>",
    "</script><b>",
    "%{x} %{customdata}",
    "\"double\" 'single'",
    "\u202eright to left\u202c \u05d0\u05d1",
    "k" * 500,
]
PUBLISHED = Path("reports/published/2026-11-23-cpu-default")
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def pages(rich_folder: Path, made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    run, other = (Path(shutil.copytree(rich_folder, folder / name)) for name in ("run", "other"))
    later = other / "manifest.json"
    later.write_text(
        later.read_text(encoding="utf-8").replace("2026-11-23T19:20", "2026-11-24T08:00").replace('"2.13.0"', '"2.14.0"'), encoding="utf-8"
    )
    return {
        "run": report.render(run),
        "default": report.render(Path(shutil.copytree(PUBLISHED, folder / "default"))),
        "comparison": comparison.render(sample.rich(), folder / "comparison.html"),
        "history": history_page.render([run, other], folder / "history.html"),
        "explanation": explanation.render(explained(), folder / "explanation.html"),
        "together": together_page.render([run, other], folder / "together.html"),
    }


@pytest.fixture
def looked(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a file without a network; at the end asserts that nothing was asked for and that the console stayed silent."""
    said: list[str] = []
    asked: list[str] = []
    opened: list[Any] = []

    def look(path: Path, width: int = 1440, **settings: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **settings)
        opened.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: asked.append(request.url) if not request.url.startswith(("file:", "data:", "blob:")) else None)
        page.goto(path.as_uri())
        return page

    yield look
    for context in opened:
        context.close()
    assert (said, asked) == ([], [])


def faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical, with the elements."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run(document, { resultTypes: ['violations'] })).violations")
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {[node['html'][:160] for node in one['nodes'][:4]]}"
        for one in found
        if one["impact"] in SERIOUS
    ]


@with_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["run", "default", "comparison", "history", "explanation", "together"])
def test_axe_finds_nothing_serious(looked: Callable[..., Page], pages: dict[str, Path], kind: str, scheme: str) -> None:
    page = looked(pages[kind], color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.wait_for_timeout(500)
    assert faults(page) == []


@with_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_a_case_on_a_phone(looked: Callable[..., Page], pages: dict[str, Path], scheme: str) -> None:
    page = looked(pages["run"], 360, color_scheme=scheme)
    page.locator("#overview table.grid tbody td:not(.state) a").first.click()
    until(page, "document.querySelector('#case .chart .main-svg') !== null")
    page.evaluate("document.querySelectorAll('#case details').forEach((one) => { one.open = true; })")
    assert faults(page) == []
    assert page.evaluate("document.getElementById('case').scrollWidth <= innerWidth")


@pytest.mark.parametrize("kind", ["default", "together"])
def test_paper_has_the_charts_and_the_tables(looked: Callable[..., Page], pages: dict[str, Path], tmp_path: Path, kind: str) -> None:
    page = looked(pages[kind], color_scheme="dark")
    page.evaluate("window.print = () => { window.printed = true; }; null")
    page.click("#print")
    until(page, "window.printed === true", 60)
    assert page.evaluate("[...document.querySelectorAll('.chart[data-figure]')].every((chart) => chart.querySelector('.main-svg'))")
    page.pdf(path=tmp_path / "page.pdf", format="A4", print_background=True)
    assert (tmp_path / "page.pdf").stat().st_size > 50_000
    if shutil.which("pdftotext"):
        told = subprocess.run(["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True).stdout
        assert "Fastest" in told or "fastest" in told
        assert "latency" in told
        assert "Copy" not in told  # no buttons on paper


FOCUSABLE = "a[href], button:not([disabled]), select, input, summary, [tabindex='0']"
WHERE = f"""() => {{
    const all = [...document.querySelectorAll({FOCUSABLE!r})];
    return all.indexOf(document.activeElement);
}}"""


def test_everything_can_be_reached_and_used_by_keyboard_alone(looked: Callable[..., Page], made: SimpleNamespace, tmp_path: Path) -> None:
    cases = [made.case("attention", name, problem) for problem in made.attention[:3] for name in ("sdpa", "eager", "int8")]
    path = report.render(
        Path(made.run(tmp_path / "small", cases, [made.measured(case, 1.0 + number / 9, number) for number, case in enumerate(cases)]))
    )
    page = looked(path)
    until(page, "document.documentElement.dataset.ready === 'yes'")
    shown = page.evaluate(
        f"[...document.querySelectorAll({FOCUSABLE!r})].map((one, at) => one.checkVisibility() ? at : -1).filter((at) => at >= 0)"
    )
    reached = []
    for _ in range(len(shown) + 5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(WHERE))
        outlined = "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
        assert reached[-1] < 0 or page.evaluate(outlined), page.evaluate("document.activeElement.outerHTML")
    missed = set(shown) - set(reached)
    assert not missed, page.evaluate(f"(at) => document.querySelectorAll({FOCUSABLE!r})[at].outerHTML", missed.pop())
    page.locator("#memory summary >> nth=0").focus()
    page.keyboard.press("Enter")
    page.locator("#memory table").wait_for()
    page.locator("select[data-filter=kernel]").focus()
    page.keyboard.press("e")  # as a native control takes it: the first choice with that letter
    until(page, "document.querySelectorAll('#listing tbody tr').length === 3")
    page.locator("#theme").focus()
    page.keyboard.press("d")
    until(page, "document.documentElement.dataset.theme === 'dark'")


def hostile(made: SimpleNamespace, folder: Path) -> Path:
    """A run whose kernels and problems are called what an attacker would call them."""
    problems = [made.attention[0] | {"note": name} for name in NAMES]
    cases = [made.case("attention", kernel, problem) for problem in problems for kernel in ("sdpa", *NAMES)]
    measurements = [made.measured(case, 1.0 + 0.01 * number, number) for number, case in enumerate(cases)]
    measurements[3].status, measurements[3].reason = "failed", f"RuntimeError in {NAMES[0]}/{NAMES[1]}.py: {NAMES[2]}"  # type: ignore[assignment]
    made.run(folder / "hostile", cases, measurements)
    manifest = folder / "hostile" / "manifest.json"
    stored = msgspec.json.decode(manifest.read_bytes())
    files = [f"{name}.py" for name in NAMES]  # plugins of such names: shown in commands and among the facts
    stored["settings"] |= {
        "load": files,
        "command": shlex.join(["kerneldyno", "run", *(word for file in files for word in ("--load", file))]),
    }
    manifest.write_bytes(msgspec.json.encode(stored))
    return folder / "hostile"


@pytest.mark.parametrize("width", [360, 1440])
def test_hostile_names_are_shown_and_do_no_harm(looked: Callable[..., Page], made: SimpleNamespace, tmp_path: Path, width: int) -> None:
    path = report.render(hostile(made, tmp_path))
    page = looked(path, width)
    until(page, "document.documentElement.dataset.ready === 'yes'")
    for chart in page.query_selector_all(".chart[data-figure]")[:6]:
        chart.scroll_into_view_if_needed()
    until(page, "document.querySelectorAll('.chart .main-svg').length >= 4")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    kernels = page.evaluate("[...new Set([...document.querySelectorAll('#overview tbody th[scope=row]')].map((cell) => cell.title))]")
    assert {f"attention/{name}" for name in NAMES} <= set(kernels)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("main b >> text=double").count() == 0
    drawn = page.evaluate("[...document.querySelectorAll('.chart text')].map((text) => text.textContent).join(' ')")
    assert "<script>" in drawn  # as text, in a label
    page.locator("#overview table.grid tbody tr:nth-child(2) td:not(.state) a").first.click()
    until(page, "document.getElementById('case').open")
    until(page, "document.querySelector('#case pre.command') !== null")
    assert f"--load '{NAMES[0]}.py'" in page.inner_text("#case pre.command >> nth=-1")
    assert f"--load '{NAMES[1]}.py'" in page.inner_text("#method")
    assert page.inner_text("#case-title") in {f"attention/{name}" for name in ("sdpa", *NAMES)}
    scripts = page.evaluate("[...document.querySelectorAll('script')].map((one) => one.id).sort()")
    assert scripts == ["", "", "details", "figures", "plotly", "run"]  # the page's own, and plotly unpacked
