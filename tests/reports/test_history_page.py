"""The page of a history as text: what the first screen says, what is escaped, what is left of a reader's own paths."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from kerneldyno.bench.entries import Measured
from kerneldyno.bench.journal import Journal, read
from kerneldyno.bench.records import Measurement
from kerneldyno.reports import history, history_page
from kerneldyno.reports.history_page import MOST_DRAWN

from .outline import Outline

Nights = Callable[..., Path]


@pytest.fixture
def nights(tmp_path: Path, rich_folder: Path, made: SimpleNamespace) -> Nights:
    """Writes many runs of a hostile kernel that becomes slower by `step` with run number `at`, beside steady ones."""
    pattern = read(rich_folder).manifest

    def written(count: int, at: int = 99, step: float = 0.1, names: tuple[str, ...] = ("sdpa", "eager"), first: int = 0) -> Path:
        cases = [made.case("attention", name, made.attention[0]) for name in (*names, made.hostile)]
        noise = 0.01 * np.random.default_rng(4).standard_normal((count, len(cases)))
        for number in range(count):
            environment = msgspec.structs.replace(pattern.environment, commit=f"<b>{number}</b>")
            created = f"2026-11-{1 + first + number:02}T08:00:00+00:00"
            manifest = msgspec.structs.replace(pattern, cases=cases, environment=environment, created=created)
            with Journal.create(tmp_path / "runs" / f"<i>night-{first + number:02}", manifest) as journal:
                for place, case in enumerate(cases):
                    relative = (2 + place) * math.exp(noise[number, place]) * (1 + step if case is cases[-1] and number >= at else 1)
                    wrong = Measurement(case=case.id, status="wrong", reason=f"error ratio 5.2 {made.hostile}")
                    journal.append(Measured(wrong if place == 0 and number == 1 else made.measured(case, relative, place)))
        return tmp_path / "runs"

    return written


class Reader(HTMLParser):
    """Collects the visible text, and every element, of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._hidden += tag in {"script", "style"}

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in {"script", "style"}

    def handle_data(self, data: str) -> None:
        self.text += "" if self._hidden else data


def readable(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def figures(path: Path) -> dict[str, Any]:
    return Outline(path.read_text(encoding="utf-8")).payload("figures")  # type: ignore[no-any-return]


def test_the_change_is_named_first_with_both_runs_and_commits(nights: Nights, tmp_path: Path, made: SimpleNamespace) -> None:
    page = readable(history_page.render([nights(20, at=12)], tmp_path / "deep" / "history.html"))
    said = re.sub(r"\s+", " ", page.text)
    assert f"attention/{made.hostile} became" in said
    assert "% slower at 1×8×512×64 fp32 between run <i>night-11 (commit <b>11</b>) and run <i>night-12 (commit <b>12</b>)" in said
    assert "20 runs from 1 November 2026 to 20 November 2026: 3 kernels on 1 shape of attention" in said
    assert "a trend is no verdict" in said
    assert "✗ wrong: error ratio 5.2" in said
    assert len([tag for tag, attributes in page.elements if attributes.get("id") == "changes"]) == 1


def test_nothing_of_a_user_becomes_an_element(nights: Nights, tmp_path: Path, made: SimpleNamespace) -> None:
    path = history_page.render([nights(20, at=12)], tmp_path / "history.html")
    page = readable(path)
    assert ("i", {}) not in page.elements  # begins the name of every run
    assert len([tag for tag, _ in page.elements if tag == "script"]) == 4
    drawn = json.dumps(figures(path))
    assert made.hostile not in drawn
    assert "<i>night" not in drawn


def test_steady_runs_and_few_runs_are_said_apart(nights: Nights, tmp_path: Path) -> None:
    few = readable(history_page.render([nights(4, at=2)], tmp_path / "few.html")).text
    assert "Too few runs to look for changes: of 3 series the longest has 4 numbers, and 10 are needed." in few
    more = readable(history_page.render([nights(8, first=4)], tmp_path / "more.html")).text
    assert "No change of level in 3 series." in more
    assert "None was found." in more


def test_a_gap_is_a_sign_at_the_foot_and_no_point(nights: Nights, tmp_path: Path) -> None:
    path = history_page.render([nights(12)], tmp_path / "history.html")
    drawn = [figure for figure in figures(path).values() if figure["layout"]["annotations"]]
    assert len(drawn) == 1
    (sign,) = drawn[0]["layout"]["annotations"]
    assert (sign["x"], sign["text"], sign["yref"]) == (1, "✗", "paper")
    points = drawn[0]["data"][1]
    assert points["x"] == [0, *range(2, 12)]
    assert min(points["y"]) > 0


def test_so_many_charts_stand_open_and_the_rest_can_be_reached(nights: Nights, tmp_path: Path) -> None:
    names = tuple(f"kernel{number}" for number in range(MOST_DRAWN + 2))
    path = history_page.render([nights(3, names=names)], tmp_path / "history.html")
    page = readable(path)
    assert len(figures(path)) == len(names) + 1
    assert "3 more series" in page.text
    anchors = {attributes.get("id") for _, attributes in page.elements}
    links = {str(attributes["href"]).removeprefix("#") for tag, attributes in page.elements if tag == "a"}
    assert links <= anchors


def test_the_page_has_no_path_of_its_reader(nights: Nights, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    path = history_page.render([nights(2), tmp_path / "broken", tmp_path / "nowhere"], tmp_path / "history.html")
    assert "manifest.json in broken is damaged" in readable(path).text
    assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_rendering_needs_neither_torch_nor_kernels(nights: Nights, tmp_path: Path) -> None:
    code = "import sys\nfrom kerneldyno.reports import history_page\nhistory_page.render(sys.argv[1:2], sys.argv[2])\nprint(*sys.modules)"
    command = [sys.executable, "-c", code, str(nights(12)), str(tmp_path / "history.html")]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "ruptures" in loaded
    assert not [name for name in loaded if name == "torch" or name.startswith("kerneldyno.kernels")]


def command(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = [sys.executable, "-P", "-m", "kerneldyno.bench", "history", *map(str, words)]
    return subprocess.run(code, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


def test_the_command_writes_into_the_folder_that_was_given(nights: Nights, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    done = command(nights(2), "--csv", "new/frame.csv", cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "history.html").exists()
    assert f"history: {tmp_path / 'runs' / 'history.html'}" in done.stdout
    assert [path.name for path in (tmp_path / "elsewhere").rglob("*")] == ["new", "frame.csv"]


@pytest.mark.parametrize("words", [("--out", "."), ("--out", "a/b/x.html"), ("--csv", ".")])
def test_a_page_that_cannot_be_written_gets_one_sentence(nights: Nights, tmp_path: Path, words: tuple[str, str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    done = command(nights(2), *words, cwd=tmp_path / "elsewhere")
    assert done.returncode == 2
    assert " ".join(words) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_saved_table_holds_every_run_and_case(nights: Nights, tmp_path: Path) -> None:
    found = history.read([nights(3)])
    text = history_page.html(found)
    lines = Outline(text).payload("csv").splitlines()
    assert lines[0].startswith("created,commit,run,fingerprint,conditions,protocol,kernel,label,device,status,reason,latency_s")
    assert len(lines) == 1 + len(found.frame) == 10
