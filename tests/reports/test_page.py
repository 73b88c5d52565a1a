"""The page as text: one file, no address outside it, everything escaped, small, and holding every case."""

from __future__ import annotations

import base64
import gzip
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from plotly.offline import get_plotlyjs

from kerneldyno.bench.journal import RunFolderError, read
from kerneldyno.bench.records import Energy, Measurement
from kerneldyno.reports import frame, page

from .outline import Outline


@pytest.fixture(scope="module")
def text(rich_folder: Path) -> str:
    return page.html(frame.load(rich_folder))


@pytest.fixture(scope="module")
def outline(text: str) -> Outline:
    return Outline(text)


def test_it_parses_and_every_tag_is_closed(outline: Outline) -> None:
    assert outline.faults == []
    assert outline.open == []


def test_ids_are_unique_and_every_link_has_its_target(outline: Outline) -> None:
    ids = [attributes["id"] for _, attributes in outline.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] or "" for attributes in outline.of("a")]
    assert len(links) > 150
    inside = {f"case-{case}" for case in outline.payload("run")["columns"]["case"]["values"]}  # opened by the script
    assert {link.removeprefix("#") for link in links} <= set(ids) | inside


def test_nothing_points_outside(outline: Outline, text: str) -> None:
    addresses = [
        value for _, attributes in outline.elements for name, value in attributes.items() if name in {"src", "href", "action", "data"}
    ]
    assert [address for address in addresses if address and not address.startswith("#")] == ["data:,"]
    without_bundle = text.replace(outline.script("plotly"), "")
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", without_bundle)


def test_the_policy_forbids_connections_and_allows_only_our_scripts(outline: Outline) -> None:
    outline.check_policy()


def test_two_pages_have_two_nonces(rich_folder: Path, text: str) -> None:
    assert re.findall(r"nonce-(\w+)", page.html(frame.load(rich_folder))) != re.findall(r"nonce-(\w+)", text)


def test_hostile_names_are_text_and_nothing_else(outline: Outline, text: str, made: SimpleNamespace) -> None:
    assert made.hostile not in text
    assert any(made.hostile in words for words in outline.texts)
    assert len(outline.of("script")) == 5
    assert f"attention/{made.hostile}" in outline.payload("run")["columns"]["kernel"]["values"]


def test_plotly_is_there_once_and_whole(outline: Outline, text: str) -> None:
    assert gzip.decompress(base64.b64decode(outline.script("plotly"))).decode() == get_plotlyjs()
    assert text.count(outline.script("plotly")) == 1
    assert "plotly.js v" not in text


def test_plain_embeds_the_bundle_as_it_is(rich_folder: Path) -> None:
    plain = Outline(page.html(frame.load(rich_folder), plain=True))
    assert plain.faults == []
    assert sum("plotly.js v" in script for script in plain.scripts) == 1


def test_every_chart_has_its_figure_and_every_figure_a_chart(outline: Outline) -> None:
    figures = outline.payload("figures")
    drawn = {attributes["data-figure"] for attributes in outline.of("div") if "data-figure" in attributes}
    choices = {attributes["value"] for attributes in outline.of("option")}
    assert drawn <= set(figures) <= drawn | choices
    assert all(attributes["aria-label"] for attributes in outline.of("div") if "data-figure" in attributes)


def test_every_case_is_on_the_page(outline: Outline, rich_folder: Path) -> None:
    known = outline.payload("run")["columns"]["case"]["values"]
    assert known == [case.id for case in read(rich_folder).cases]
    ids = {attributes.get("id") for _, attributes in outline.elements}
    without = [one for one in read(rich_folder).measurements.values() if one.status != "ok"]
    assert {f"case-{one.case}" for one in without} <= ids  # with its reason, for a reader without a script, too


def test_every_reason_is_on_the_page(outline: Outline, rich_folder: Path) -> None:
    words = " ".join(outline.texts)
    for measurement in read(rich_folder).measurements.values():
        assert measurement.status == "ok" or str(measurement.reason) in words


def test_the_first_screen_needs_no_script(text: str) -> None:
    first = text[text.index('<section id="overview"') : text.index('<section id="latency"')]
    assert "Fastest: sdpa for attention" in first
    assert first.count("×") > 100
    assert 'class="bar"' in first
    assert "unstable" in first


def test_small_and_quick(rich_copy: Path) -> None:
    started = time.process_time()
    written = page.render(rich_copy)
    assert time.process_time() - started < 3
    assert written == rich_copy / "report.html"
    assert written.stat().st_size < 3e6
    assert not list(rich_copy.glob(".*"))  # nothing half-written stays behind


def test_rendering_replaces_an_older_page(rich_copy: Path) -> None:
    (rich_copy / "report.html").write_text("old")
    assert page.render(rich_copy).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        page.render(tmp_path)


@pytest.mark.parametrize("number", [0, 1])
def test_runs_with_next_to_nothing_have_a_page_too(made: SimpleNamespace, tmp_path: Path, number: int) -> None:
    case = made.case("attention", "sdpa", made.attention[0])
    folder = made.run(tmp_path / "run", [case], [made.measured(case, 1.0, 1)][:number], ceilings=None, ended="interrupted")
    outline = Outline(page.html(frame.load(folder)))
    assert outline.faults == []
    assert not [attributes for attributes in outline.of("select") if "data-filter" in attributes]  # nothing to choose from


def test_energy_has_charts_where_it_was_measured_and_a_sentence_elsewhere(made: SimpleNamespace, tmp_path: Path, text: str) -> None:
    assert "this machine exposes no energy counter (RAPL)." in text
    case = made.case("attention", "sdpa", made.attention[0])
    measurement = made.measured(case, 1.0, 1)
    measurement.energy = Energy(power_w=310.0, energy_j=0.02, source="nvml total energy")
    outline = Outline(page.html(frame.load(made.run(tmp_path / "run", [case], [measurement]))))
    assert {"energy-attention-0", "power-attention-0"} <= set(outline.payload("figures"))


def test_an_unmeasured_number_is_no_zero(made: SimpleNamespace, tmp_path: Path) -> None:
    case = made.case("attention", "sdpa", made.attention[0])
    bare = Measurement(case=case.id, status="ok", processes=[made.process(1e-3, 1, samples=1)])
    text = page.html(frame.load(made.run(tmp_path / "run", [case], [bare])))
    assert 'id="memory"' not in text
    assert "nan" not in " ".join(Outline(text).texts).lower()
