"""The page of several runs as text, and the command that writes it: what a reader without JavaScript sees, what is escaped."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import plotly.graph_objects
import pytest

from kerneldyno.bench.records import Case
from kerneldyno.reports import frame, page, together, together_figures, together_page, together_tables

from . import together_runs as runs
from .outline import Outline

RATES = {"sdpa": 1.0, "eager": 3.0, "onnxrt": 0.8, "int8": 0.5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, made: SimpleNamespace, rich_folder: Path) -> list[Path]:
    """Two runs of hostile names: elsewhere another kernel leads, one case is wrong and one shape is missing."""
    place = tmp_path_factory.mktemp("together")
    names = (*RATES, made.hostile)
    cases = [made.case("attention", name, problem) for problem in made.attention[:5] for name in names]
    cases += [made.case("feedforward", name, problem) for problem in feedforward(made) for name in ("compiled", "eager")]

    def here(case: Case, number: int) -> float:
        return RATES.get(case.kernel.partition("/")[2], 4.0)

    def there(case: Case, number: int) -> float | str:
        return f"error ratio 5.2 {made.hostile}" if number == 1 else 2.0 if case.kernel == "attention/onnxrt" else 0.5 * here(case, number)

    one = runs.write(place / "<i>one", made, rich_folder, cases, here)
    other = runs.write(place / "<i>other", made, rich_folder, cases[5:25], there, day=11, **runs.LAPTOP)
    return [one, other]


def feedforward(made: SimpleNamespace) -> list[dict[str, object]]:
    return [
        {"batch": 1, "seq_len": length, "dim": 512, "hidden_dim": 2048, "activation": "relu", "dtype": "float32"} for length in (64, 128)
    ]


@pytest.fixture(scope="module")
def text(folders: list[Path]) -> str:
    return together_page.html(together.read(folders))


@pytest.fixture(scope="module")
def outline(text: str) -> Outline:
    return Outline(text)


def said(outline: Outline) -> str:
    return re.sub(r"\s+", " ", " ".join(outline.texts))


def test_it_parses_links_arrive_and_it_connects_to_nothing(outline: Outline) -> None:
    assert outline.faults == []
    assert outline.open == []
    ids = [attributes["id"] for _, attributes in outline.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert {(attributes["href"] or "").removeprefix("#") for attributes in outline.of("a")} <= set(ids)
    outline.check_policy()


def test_the_first_screen_says_who_leads_where_and_that_it_is_no_verdict(outline: Outline) -> None:
    words = said(outline)
    assert (
        "Fastest, ties included, at the 4 shapes that both runs planned: for attention, "
        "onnxrt in A (4 of 4 shapes), sdpa in B (4 of 4 shapes)." in words
    )
    assert "these runs were measured at different times" in words
    assert "not a verdict" in words
    assert "kerneldyno compare" in words
    assert "34 of 34 cases" not in words
    assert "29 of 29 cases with a number, protocol default" in words
    assert "19 of 20 cases with a number, protocol default" in words


def test_nothing_of_a_user_becomes_an_element(outline: Outline, text: str) -> None:
    assert outline.of("i") == [attributes for attributes in outline.of("i") if attributes.get("class") or not attributes]
    assert "<i>one" not in text
    assert "Laptop <i>i7</i>" not in text
    assert len(outline.of("script")) == 4
    for figure in outline.payload("figures").values():
        labels = [trace[name] for trace in figure["data"] for name in ("name", "text", "hovertext")]
        drawn = json.dumps([labels, figure["layout"]])
        assert "alert(1)" in drawn
        assert "<script>" not in drawn
        assert "<i>" not in drawn


def test_differing_facts_are_marked_with_a_word_and_equal_ones_folded(outline: Outline) -> None:
    words = said(outline)
    assert "≠ differs torch 2.13.0 2.14.0" in words
    assert "≠ differs threads used" not in words
    assert "= equal threads used 2" in words


def test_a_wrong_case_links_to_its_reason_and_a_shape_of_one_run_is_named(outline: Outline, made: SimpleNamespace) -> None:
    words = said(outline)
    assert f"error ratio 5.2 {made.hostile}" in words
    assert "#reason-1" in {attributes["href"] for attributes in outline.of("a")}
    assert "Feed-forward A B 2 shapes" in words
    assert "Attention A B 1 shape" in words


def test_the_downloads_hold_every_row_of_every_run(outline: Outline, folders: list[Path]) -> None:
    table = outline.payload("table")
    found = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert len(found) == 2 * 29
    for letter, folder in zip("AB", folders, strict=True):
        own = {(row["kernel"], row["label"]): row for row in found if row["letter"] == letter}
        for row in frame.rows(frame.load(folder).results):
            for name in ("latency_s", "speedup", "status", "reason"):
                assert own[row["kernel"], row["label"]][name] == row[name]
    assert sum(row["reason"] == together.NOT_PLANNED for row in found) == 9


def test_every_figure_stands_alone_and_names_its_runs(folders: list[Path]) -> None:
    found = together.read(folders)
    drawing = together_page._Drawing(found)
    charts = [chart for part in drawing.parts() for chart in (*part.charts, *part.folded)]
    assert charts
    for chart in charts:
        figure = drawing.figures[chart.id]
        assert len(plotly.graph_objects.Figure(figure).data) == len(figure["data"])
        for trace in figure["data"]:
            assert trace["meta"]["run"] in {"A", "B"}
            assert trace["line"]["dash"] == {"A": "solid", "B": "dash"}[trace["meta"]["run"]]
            assert [text.strip() for text in trace["text"] if text] == [trace["meta"]["run"]]
        colours = {(trace["meta"]["kernel"], trace["meta"]["light"]) for trace in figure["data"]}
        assert len(colours) == len({trace["meta"]["kernel"] for trace in figure["data"]})


def test_runs_have_lanes_of_their_own_where_there_is_one_length(folders: list[Path]) -> None:
    found = together.read(folders)
    drawn = [
        (member, [row for row in member.rows.values() if row["seq_len"] == 512 and row["status"] == "ok"][:2]) for member in found.members
    ]
    figure = together_figures.over_runs(drawn, together_page._Drawing(found).looks)
    heights = [trace["y"][0] for trace in figure["data"]]
    assert len(set(heights)) == len(heights)
    assert together_figures.height(figure, 12) > together_figures.height(figure, 2)


@pytest.mark.parametrize("plain", [False, True])
def test_rendering_imports_neither_torch_nor_kernels(folders: list[Path], tmp_path: Path, plain: bool) -> None:
    code = (
        "import sys\nfrom kerneldyno.reports import together_page\n"
        f"together_page.render(sys.argv[2:], sys.argv[1], plain={plain})\n"
        "assert not {'torch', 'triton', 'kerneldyno.kernels'} & set(sys.modules)"
    )
    out = tmp_path / "deep" / "together.html"
    done = subprocess.run([sys.executable, "-c", code, str(out), *map(str, folders)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(folders[0].parent) not in out.read_text(encoding="utf-8")
    Outline(out.read_text(encoding="utf-8")).check_policy()


def report(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "kerneldyno.bench", "report", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


def test_the_command_writes_one_page_of_several_runs(folders: list[Path], tmp_path: Path) -> None:
    done = report(*folders, folders[0], tmp_path / "nowhere", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (folders[0].parent / "together.html").exists()
    assert list(tmp_path.iterdir()) == []
    assert done.stdout.startswith("Fastest, ties included, at the 4 shapes")
    assert "nowhere does not exist" in done.stderr
    assert not (folders[0] / "report.html").exists()
    done = report(folders[0].parent, "--out", "x/page.html", "--plain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "x/page.html" in done.stdout
    assert (tmp_path / "x" / "page.html").exists()


def test_the_page_of_one_run_can_go_elsewhere(folders: list[Path], tmp_path: Path) -> None:
    done = report(folders[0], "--out", "alone.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "<i>one" not in (tmp_path / "alone.html").read_text(encoding="utf-8")
    assert {path.name for path in folders[0].iterdir()} == {"manifest.json", "journal.jsonl"}


def test_many_runs_keep_cells_short_cards_folded_and_lines_without_dashes(tmp_path: Path, made: SimpleNamespace, rich_folder: Path) -> None:
    """Seven runs, of which four share a shape with another and only two plan a feed-forward network."""
    attention = [[made.case("attention", name, problem) for name in ("sdpa", "eager", "onnxrt")] for problem in made.attention[:6]]
    networks = [made.case("feedforward", name, feedforward(made)[0]) for name in ("compiled", "eager")]
    plans = [attention[0] + networks, attention[0][:2] + networks, *attention[1:5], attention[1]]
    for day, plan in enumerate(plans, 10):
        runs.write(
            tmp_path / f"run{day}", made, rich_folder, plan, lambda case, place: RATES.get(case.kernel.partition("/")[2], 4.0), day=day
        )
    found = together.read([tmp_path])
    written = together_page.html(found)
    page_ = Outline(written)
    words = said(page_)
    assert "A not planned" not in words
    assert "A ≈" in words or "A ★" in words
    lines = {(kernel, tuple(line.letter for line in stack.lines)) for board in together_tables.boards(found) for kernel, own in
             [*board.exact, *board.approximate] for stack in own if stack}  # fmt: skip
    assert {letters for kernel, letters in lines if kernel.startswith("attention/")} == {("A", "B"), ("C", "G")}
    assert "B · not planned" in words
    cards = [dict(together_page._card(found, member)["led"]) for member in found.members]
    assert [set(card) for card in cards] == [{"Attention", "Feed-forward"}] * 2 + [{"Attention"}] * 5
    assert all("no shape" in card["Attention"] for card in cards[3:6])
    assert "has a number" not in " ".join(value for card in cards for value in card.values())
    assert {trace["line"]["dash"] for figure in page_.payload("figures").values() for trace in figure["data"]} == {"solid"}
    assert "stroke-dasharray" not in written
    assert "the letter at the end of a line is the run's" in words
    assert len(page_.of("article")) == 7
    assert written.count("<details><summary>AMD EPYC") == 7


def test_two_runs_are_told_apart_by_dashes_and_their_cards_stand_open(text: str, outline: Outline) -> None:
    assert text.count("stroke-dasharray") >= 4
    assert "dash and letter the run's" in said(outline)
    assert "<details><summary>AMD EPYC" not in text


def mistakes(folders: list[Path], elsewhere: Path) -> dict[str, tuple[list[object], int, str]]:
    return {
        "one run twice": ([folders[0], folders[0]], 2, "there is only one run"),
        "nothing there": (["nowhere", "neither"], 2, "nowhere does not exist"),
        "an empty folder": (["."], 2, "holds no run"),
        "nothing in common": ([folders[0], elsewhere], 3, "no problem is in two of these runs"),
        "pictures of several": ([*folders, "--svg", "pictures"], 2, "--png and --svg draw the charts of one run"),
        "a folder as page": ([*folders, "--out", "."], 2, "--out .: is a folder"),
        "a page in no folder": ([*folders, "--out", "a/b/page.html"], 2, "there is no folder a: make it first"),
        "a page at the root": ([*folders, "--out", "/nonexistent-7/x.html"], 2, "there is no folder /nonexistent-7: make it first"),
    }


@pytest.mark.parametrize("mistake", sorted(mistakes([Path("one"), Path("other")], Path())))
def test_a_mistake_gets_one_sentence(
    mistake: str, folders: list[Path], tmp_path: Path, made: SimpleNamespace, rich_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    alone = [msgspec.structs.replace(made.case("layer", "compiled", feedforward(made)[0]))]
    elsewhere = runs.write(tmp_path_factory.mktemp("elsewhere") / "alone", made, rich_folder, alone, lambda case, place: 1.0, day=12)
    words, code, sentence = mistakes(folders, elsewhere)[mistake]
    done = report(*words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_run_of_one_folder_is_reported_as_ever(rich_copy: Path, tmp_path: Path) -> None:
    done = report(rich_copy, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (rich_copy / "report.html").exists()
    assert page.html(frame.load(rich_copy)).count("together.html") == 0
