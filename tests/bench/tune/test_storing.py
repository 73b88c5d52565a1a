"""Where choices are stored, and the folder of a tuning that may go on later."""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec
import pytest

from kerneldyno.bench._run_folder import CorruptRunError, MismatchError, RunFolderError
from kerneldyno.bench.launch import Options
from kerneldyno.bench.plan import UsageError
from kerneldyno.bench.stats import Interval
from kerneldyno.bench.tune import book, folder, goals, records
from kerneldyno.kernels import _tuned
from kerneldyno.kernels._cards import H100
from kerneldyno.kernels._tuned import Entry, Evidence, Key, TunedError

KEY = Key(function="f", architecture="sm_90", triton="3.7", dtype="float16", size="head_dim 64", length="≤1k")
EVIDENCE = Evidence(
    gpu="a card", multiprocessors=132, triton="3.7.1", torch="2.13", date="2026-11-28", commit="abc", problem="1x2", default="64 s2",
    default_s=(2.0, 1.9, 2.1), choice_s=(1.0, 0.9, 1.1), speedup=(2.0, 1.9, 2.1), required="above 1", processes=5, candidates=9,
    pruned=3, wrong=1,
)  # fmt: skip
PLANNED = folder.Planned(fingerprint="f", sources={"attention/fused": "1"}, goals=["one"], options={})


def entry(bt: int, **key: str) -> Entry:
    return Entry(key=msgspec.structs.replace(KEY, **key), choice={"bt": bt}, evidence=EVIDENCE)


def test_a_choice_takes_the_place_of_an_earlier_one_and_of_no_other(tmp_path: Path) -> None:
    book.add(tmp_path, entry(64))
    book.add(tmp_path, entry(32, length="≤4k"))
    path = book.add(tmp_path, entry(128))
    book.add(tmp_path, entry(16, architecture="sm_80"))
    assert path.name == "sm_90.json"
    assert {key.length: found.choice for key, found in _tuned.read(path).items()} == {"≤1k": {"bt": 128}, "≤4k": {"bt": 32}}
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["sm_80.json", "sm_90.json"]


def test_a_damaged_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "sm_90.json").write_text("{")
    with pytest.raises(TunedError, match=r"sm_90\.json: is damaged"):
        book.add(tmp_path, entry(64))
    assert (tmp_path / "sm_90.json").read_text() == "{"


def test_simulated_times_do_not_get_into_the_package() -> None:
    with pytest.raises(UsageError, match="must not be stored with the package: give --out DIR"):
        book.place(None, H100, simulated=True)


def test_the_folder_that_kernels_read_is_written_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_tuned.PLACE, str(tmp_path / "mine"))
    assert book.place(None, H100, simulated=False) == tmp_path / "mine"
    assert (tmp_path / "mine").is_dir()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        book.place(tmp_path / "file" / "inside", H100, simulated=False)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written: give --out DIR"):
        book.place(tmp_path, H100, simulated=False)


def test_a_tuning_goes_on_only_as_it_began(tmp_path: Path) -> None:
    begun = folder.TuneFolder(tmp_path / "tune")
    begun.begin(PLANNED, resumed=False)
    begun.begin(PLANNED, resumed=True)
    for change, sentence in (
        ({"fingerprint": "g"}, "the machine or its software is another"),
        ({"goals": ["one", "two"]}, "other shapes or kernels are asked for"),
        ({"sources": {"attention/fused": "2"}}, r"sources differ \(attention/fused: 1 before, 2 now\)"),
    ):
        with pytest.raises(MismatchError, match=sentence) as caught:
            begun.begin(msgspec.structs.replace(PLANNED, **change), resumed=True)
        assert caught.value.exit_code == 3
    with pytest.raises(RunFolderError, match="is not empty: give another folder, or --resume"):
        begun.begin(PLANNED, resumed=False)
    with pytest.raises(RunFolderError, match="holds no tuning"):
        folder.TuneFolder(tmp_path).planned()


def test_what_came_of_a_choice_is_read_again(tmp_path: Path) -> None:
    begun = folder.TuneFolder(tmp_path)
    where = begun.of(3, KEY)
    assert where.name == "03-f-sm_90-float16-head_dim-64-1k"
    assert folder.load(where, folder.CANDIDATES, folder.Left) is None
    left = folder.Left(kept=["a", "b"], left_out={"c": "spills"})
    folder.save(where, folder.CANDIDATES, left)
    assert folder.load(where, folder.CANDIDATES, folder.Left) == left
    (where / folder.CANDIDATES).write_text("[")
    with pytest.raises(CorruptRunError, match="damaged"):
        folder.load(where, folder.CANDIDATES, folder.Left)


def test_what_was_asked_is_read_again_without_paths(tmp_path: Path) -> None:
    run = Options(presets=("decode",), axes={"head_dim": [64]}, load=(tmp_path / "mine.py",), processes=7, protocol="default", energy="off")
    asked = goals.Asked(run, arch="sm_80")
    stored = msgspec.json.decode(msgspec.json.encode(records.options(asked)))
    assert str(tmp_path) not in str(stored)
    again = records.asked_again(stored, run.load, 60.0, None, tmp_path)
    assert again.arch == "sm_80"
    assert again.resumed
    assert (again.run.presets, again.run.axes, again.run.processes, again.run.budget_s) == (("decode",), {"head_dim": [64]}, 7, 60.0)
    assert again.run.energy == "off"


def test_intervals_without_ends_can_be_stored() -> None:
    found = records.rounded(Interval(1.23456789, math.nan, math.inf))
    assert found == (1.23457, 0.0, records.OPEN)
    assert b"null" not in msgspec.json.encode(found)
