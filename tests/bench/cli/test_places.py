"""Where the page of several runs goes, and which paths are refused with a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kerneldyno.bench import journal
from kerneldyno.bench.cli import places
from kerneldyno.bench.plan import UsageError


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of runs, of which the current one is not a parent."""
    for name in ("runs/laptop", "runs/server", "runs/nightly/monday", "else/where/other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / journal.MANIFEST).touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["runs"], "runs/page.html"),
        (["runs/laptop"], "runs/page.html"),
        (["runs/laptop", "runs/server", "runs/gone"], "runs/page.html"),
        (["runs/nightly", "runs/server"], "runs/page.html"),
        (["runs/nightly/monday", "runs/nightly"], "runs/nightly/page.html"),
        (["runs/laptop", "else/where/other"], None),
        (["gone"], None),
    ],
)
def test_the_page_lies_beside_what_was_given(there: Path, given: list[str], expected: str | None) -> None:
    found = places.beside([there / name for name in given], "page.html")
    assert found == (there / expected if expected else Path("page.html"))


@pytest.mark.parametrize(
    ("inside", "given", "expected"), [("runs", ".", "."), ("runs/laptop", ".", ".."), ("runs/laptop", "..", ".."), ("runs", "laptop", ".")]
)
def test_relative_folders_mean_the_same(there: Path, monkeypatch: pytest.MonkeyPatch, inside: str, given: str, expected: str) -> None:
    monkeypatch.chdir(there / inside)
    assert places.beside([Path(given)], "page.html").resolve() == Path(expected).resolve() / "page.html"


def test_a_place_that_may_not_be_written_is_left_alone(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # whoever is root may write anywhere
    assert places.beside([there / "runs"], "page.html") == Path("page.html")


def test_the_last_folder_is_made(there: Path) -> None:
    for path in (Path("page.html"), Path("new/page.html"), there / "new" / "page.html"):
        with places.written("--out", path):
            path.write_text("a page")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (".", "--out .: is a folder"),
        ("a/b/page.html", "there is no folder a: make it first"),
        ("a/b/c/page.html", "there is no folder a/b: make it first"),
        ("/nowhere-7/page.html", "there is no folder /nowhere-7: make it first"),
        ("file/page.html", r"--out file/page.html: cannot be written \(Not a directory\)"),
        (f"{'x' * 300}/page.html", r"cannot be written \(File name too long\)"),
    ],
)
def test_a_path_that_cannot_be_meant_is_refused(there: Path, path: str, told: str) -> None:
    Path("file").touch()
    with pytest.raises(UsageError, match=told), places.written("--out", Path(path)):
        Path(path).write_text("a page")
    assert list(Path().iterdir()) == [Path("file")]
    assert not Path("/nowhere-7").exists()


def test_what_stops_the_writing_is_told(there: Path) -> None:
    told = r"--csv new/page.csv: cannot be written \(disk full\): give another file"
    with pytest.raises(UsageError, match=told), places.written("--csv", Path("new/page.csv")):
        raise OSError(28, "disk full")
