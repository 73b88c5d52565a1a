"""Markdown: what a user wrote is text and reaches nobody, tables stay tables, and it is never longer than it may be."""

from __future__ import annotations

import re
import runpy
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from kerneldyno.bench.verdict import Outcome
from kerneldyno.reports.markdown import HEAD, SUMMARY_BYTES, code, escaped, fenced, markdown

sample = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("outcomes.py"))))

OURS = {"h3", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "code", "br", "details", "summary", "ul", "li", "pre"}


class Seen(HTMLParser):
    """What a reader of rendered Markdown gets: elements, texts, texts outside code, cells of each row."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loose: list[str] = []
        self.said: list[str] = []
        self.rows: list[list[str]] = []
        # as GitHub does: tables, strikethrough, and addresses that become links without being written as such
        self.feed(MarkdownIt("gfm-like").render(text))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
        assert not [name for name, _ in attrs if name not in {"class", "style"}], attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)
        if "code" not in self.open:
            self.loose.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def pings(text: str) -> list[str]:
    """What GitHub would make a mention, a reference or a link of."""
    return re.findall(r"@\w\S*|#\d+|\bGH-\d+|https?://\S+|\bwww\.\S+", text, flags=re.IGNORECASE)


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen(markdown(sample.rich()))


def test_the_headline_comes_first_with_a_sign_in_words(seen: Seen) -> None:
    text = markdown(sample.rich())
    assert text.startswith("### ❌ invalid: a base differs from its own copy")
    assert "**fails &#40;exit 4: too noisy, or a canary differs&#41;**" in text
    quiet = markdown(sample.fine())
    assert quiet.startswith("### ✅ nothing regressed in 11 cells\n\n**passes &#40;exit 0&#41;** · 1 IMPROVED, 1 NEW, 9 SAME · 1 base")
    doubtful = markdown(sample.fine(verdicts=sample.verdicts()[7:]))
    assert doubtful.startswith("### ⚠️ ")
    assert "passes, 1 inconclusive" in doubtful
    assert "".join(seen.said).index("origin/main (0123abc012) (base)") < "".join(seen.said).index("verdict")


def test_rows_that_are_not_same_stand_open_worst_first(seen: Seen) -> None:
    words = [row[0] for row in seen.rows]
    assert words[0] == "verdict"
    assert words[1:11] == [
        "▲ REGRESSED", "▲ REGRESSED", "▲ REGRESSED", "✗ FAILED", "∅ MISSING", "! INVALID", "▲ REGRESSED", "? INCONCLUSIVE", "▼ IMPROVED",
        "+ NEW",
    ]  # fmt: skip
    assert words[11:] == ["verdict", *["= SAME"] * 9]
    largest, slower, leaner = seen.rows[1:4]
    assert largest[1] == "attention/fused1×8×128×64 fp32"
    assert slower[2:5] == ["1.052 [1.040, 1.064]", "+5.2 %", "1.16 ms → 1.22 ms"]
    assert slower[5:7] == ["12.0 MiB", "0.410 naive errors"]
    assert "looked at 2 times; +5 % would have been seen with 98 %" in slower[7]
    assert leaner[5:7] == ["12.0 MiB → 20.0 MiB REGRESSED", "0.400 naive errors → 0.900 naive errors REGRESSED"]
    assert "does not fail the comparison" in seen.rows[7][7]
    assert "attention/sdpa against attention/eager" in seen.rows[9][1]


def test_the_same_are_folded(seen: Seen) -> None:
    text = markdown(sample.rich())
    assert text.index("<details><summary>9 cells SAME") > text.index("+ **NEW**")
    assert seen.tags.count("details") == seen.tags.count("summary") == 5


def test_everything_else_is_there(seen: Seen) -> None:
    said = " ".join(seen.said)
    for words in (
        "clocks are not locked", "attention 1.021 (n = 6)", "4 bases compared with their own copy: 1 DIFFERS", "≠ DIFFERS:", "layer/eager",
        "2 cells left out", "attention/fused at 1×8×4096×64", "2 kernels not compared", "within ± 2.0 % of 1 is no change",
        "kerneldyno compare --base origin/main --kernels 'attention/*' # ``` @octocat",
    ):  # fmt: skip
        assert words in said, words


def test_what_a_user_wrote_is_text_and_reaches_nobody(seen: Seen) -> None:
    assert set(seen.tags) <= OURS
    assert pings("".join(seen.loose)) == []
    flat = re.sub(r"\s+", " ", sample.HOSTILE.replace("\x1b", " "))
    assert flat in "".join(seen.said).replace("\u200b", "")
    assert {len(row) for row in seen.rows} == {len(HEAD)}
    assert pings("@octocat #123 GH-7 http://e.vil www.e.vil")  # the eye sees


@settings(max_examples=80, deadline=None)
@given(outcome=sample.outcomes())
def test_whatever_the_names_it_stays_a_document_of_our_own_making(outcome: Outcome) -> None:
    seen = Seen(markdown(outcome))
    assert set(seen.tags) <= OURS
    assert seen.open == []
    assert pings("".join(seen.loose)) == []
    assert {len(row) for row in seen.rows} <= {len(HEAD)}
    assert sum(row[0] != "verdict" for row in seen.rows) == len(outcome.verdicts)


@given(text=sample.anything | st.text())
def test_escaped_text_reads_as_it_was_written(text: str) -> None:
    seen = Seen(f"{escaped(text, 10_000)}\n")
    wanted = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    assert "".join(seen.said).strip().replace("\u200b", "") == wanted
    assert set(seen.tags) <= {"p"}
    assert pings("".join(seen.said)) == []
    assert set(Seen(f"x {code(text)}\n").tags) == {"p", "code"}


@given(text=sample.anything | st.text(alphabet="`~ \n<a", max_size=30))
def test_a_command_stays_inside_its_fence(text: str) -> None:
    seen = Seen(f"{fenced(text)}\nafter\n")
    assert seen.tags == ["pre", "code", "p"]


@pytest.mark.parametrize("limit", [64_000, 20_000, 5_000, 1_500, 100, 10])
def test_never_longer_than_the_limit(limit: int) -> None:
    text = markdown(sample.large(600), limit)
    assert len(text.encode()) <= limit
    assert text.startswith("### ❌"[: limit // 3])


@pytest.mark.parametrize("limit", [64_000, 30_000])
def test_what_is_cut_is_counted_and_the_worst_stay(limit: int) -> None:
    outcome = sample.large(600)
    seen = Seen(markdown(outcome, limit))
    open_rows = seen.rows[1 : next(index for index, row in enumerate(seen.rows) if index and row[0] == "verdict")]
    *kept, last = open_rows
    assert len(kept) > 10
    more = int(re.findall(r"and (\d+) more", last[1])[0])
    assert more + len(kept) == sum(verdict.word != "SAME" for verdict in outcome.verdicts)
    assert {row[0] for row in kept} <= {"▲ REGRESSED", "✗ FAILED"}
    assert "Reproduce" in " ".join(seen.said)
    assert seen.open == []
    assert len(markdown(outcome, limit).encode()) > 0.9 * limit  # room is used


def test_a_summary_has_room_for_everything() -> None:
    outcome = sample.large(600)
    seen = Seen(markdown(outcome, SUMMARY_BYTES))
    assert sum(row[0] != "verdict" for row in seen.rows) == 600
    assert "more" not in {word for row in seen.rows for word in row[1].split()}


@settings(max_examples=40, deadline=None)
@given(limit=st.integers(3_000, 40_000), cells=st.integers(0, 80))
def test_cut_anywhere_it_is_whole(limit: int, cells: int) -> None:
    text = markdown(sample.large(cells), limit)
    assert len(text.encode()) <= limit
    seen = Seen(text)
    assert seen.open == []
    assert {len(row) for row in seen.rows} <= {len(HEAD)}
