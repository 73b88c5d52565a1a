from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kerneldyno.reports import explanation as page
from kerneldyno.reports.explanation_figures import difference, weights

from .explanations import HOSTILE, cells, exact_like, explanation, gone, numbers
from .outline import Outline


def test_the_headline_names_who_changes_least_and_most() -> None:
    assert page.headline(explanation()) == "int8 moves 0.70 % of the attention to other keys, pruned 50 %: mean of 2 heads"
    nobody = msgspec.structs.replace(explanation(), kernels=explanation().kernels[-1:])
    assert "all of them say why not" in page.headline(nobody)


def test_sentences_say_what_one_sees() -> None:
    assert page.of_head(gone(1)).startswith("Left out")
    assert page.of_head(exact_like(1)) == "The map is the exact one, but for rounding."
    told = page.of_head(numbers(1, 0.01))
    assert "Of a query's attention 1.0 % goes to other keys than it should, of the worst one's 3.0 %" in told
    assert "25 % of the queries look at another key most" in told
    assert "Attention is sharper: as if on 4.5 keys instead of 7.4" in told
    int8, pruned, own, cache = (page.of_kernel(kernel) for kernel in explanation().kernels)
    assert int8.startswith("moves 0.70 % of the attention, 3.0 % of a single query's at most")
    assert pruned == "leaves out 1 head of the 2 shown (0); leaves the others as they are"
    assert "the map does not tell all" in own
    assert cache == "not looked at: is for decode steps"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1e-7, "0 %"),
        (0.00034, "0.034 %"),
        (0.12, "12 %"),
        (0.9999, "> 99.9 %"),
        (0.9956, "99.5 %"),
        (1, "100 %"),
    ],
)
def test_shares_in_per_cent(share: float, text: str) -> None:
    assert page.percent(share) == text


def test_the_page_holds_all_maps_and_numbers_and_no_foreign_markup(tmp_path: Path) -> None:
    text = page.render(explanation(), tmp_path / "deep" / "explain.html").read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 3
    figures = Outline(text).payload("figures")
    assert set(figures) == {
        name for head in (0, 5) for name in (f"exact-h{head}", *(f"k{k}-h{head}{d}" for k in range(3) for d in ("", "-d")))
    }
    asked = set(re.findall(r'data-figure="([^"]*)"', text))
    assert asked == set(figures)
    rows = list(csv.DictReader(str(Outline(text).payload("csv")).splitlines()))
    assert len(rows) == 6
    assert rows[2]["entropy"] == ""
    assert "attention/int8_cache is for decode steps" in text
    assert not re.search(r'(?:src|href)="https?:', text)


def test_a_difference_is_what_is_more_or_less() -> None:
    sizes = {"query_cell": 2, "key_cell": 3}
    apart = difference([[0.5, 0.5]], [[0.25, 0.75]], **sizes)["data"][0]
    assert apart["z"] == [[-0.25, 0.25]]
    assert (apart["zmin"], apart["zmax"]) == (-0.25, 0.25)
    scale = [place for place, _ in apart["colorscale"]]
    assert scale == sorted(scale)
    assert (scale[0], scale[-1]) == (0, 1)
    same = difference(cells(0), cells(0), **sizes)["data"][0]
    assert same["zmax"] > 0
    whole = weights(cells(0), 0.5, **sizes)["data"][0]
    assert (whole["dx"], whole["dy"], whole["zmin"], whole["zmax"]) == (3, 2, 0, 0.5)


def test_the_page_needs_neither_torch_nor_kernels(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(msgspec.json.encode(explanation()))
    code = """import sys, msgspec
from pathlib import Path
from kerneldyno.bench.explanation import Explanation
from kerneldyno.reports import explanation
explanation.render(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Explanation), sys.argv[2])
print(*sys.modules)"""
    arguments = [sys.executable, "-c", code, tmp_path / "x.json", tmp_path / "x.html"]
    loaded = set(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split())
    assert "kerneldyno.reports.explanation" in loaded
    assert not {name for name in loaded if name == "torch" or name.startswith("kerneldyno.kernels")}
