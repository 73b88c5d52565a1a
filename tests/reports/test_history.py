"""Many runs in one frame: order, copies, gaps with reasons, conditions kept apart, sentences for what cannot be read."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from kerneldyno.bench.comparison import Comparison, Side
from kerneldyno.bench.entries import Measured, Session, SessionEnd
from kerneldyno.bench.journal import Journal, RunFolderError, read
from kerneldyno.bench.manifest import PROTOCOLS, Manifest
from kerneldyno.bench.records import Case, Measurement
from kerneldyno.reports import history
from kerneldyno.reports.history import NOT_PLANNED

Write = Callable[..., Path]


@pytest.fixture
def cases(made: SimpleNamespace) -> list[Case]:
    return [made.case("attention", name, made.attention[0]) for name in ("sdpa", "eager")]


@pytest.fixture
def write(tmp_path: Path, rich_folder: Path, made: SimpleNamespace, cases: list[Case]) -> Write:
    """Writes the run of one day; `relative` is the second kernel's time, `odd` replaces its measurement."""
    pattern = read(rich_folder).manifest

    def written(day: int, relative: float = 2.9, odd: Measurement | None = None, folder: Path | None = None, **changed: Any) -> Path:
        environment = msgspec.structs.replace(pattern.environment, **({"commit": f"c{day:02}"} | changed.pop("environment", {})))
        fields = {"created": f"2026-11-{day:02}T08:00:00+00:00", "cases": cases, "environment": environment} | changed
        manifest: Manifest = msgspec.structs.replace(pattern, **fields)
        noise = np.random.default_rng(day).standard_normal(2)
        place = folder or tmp_path / "runs" / f"night-{day:02}"
        with Journal.create(place, manifest) as journal:
            journal.append(Session(started=manifest.created))
            for number, (case, own) in enumerate(zip(cases, (1.0, relative), strict=True)):
                measurement = odd if odd and number else made.measured(case, own * math.exp(0.01 * noise[number]), number)
                if case in manifest.cases:
                    journal.append(Measured(measurement))
            journal.append(SessionEnd(reason="finished", wall_s=1.0))
        return place

    return written


def test_runs_come_in_the_order_of_their_creation_however_they_are_given(write: Write) -> None:
    folders = [write(day) for day in (3, 1, 2)]
    frame = history.load(folders)
    assert frame["run"].tolist() == ["night-01"] * 2 + ["night-02"] * 2 + ["night-03"] * 2
    assert frame["commit"].unique().tolist() == ["c01", "c02", "c03"]
    assert frame.columns[:5].tolist() == ["created", "commit", "run", "fingerprint", "conditions"]
    assert {"kernel", "label", "status", "latency_s", "latency_low_s", "latency_high_s", "peak_bytes", "error_max_ratio", "speedup"} <= {
        *frame
    }
    assert (frame["latency_s"] > 0).all()
    assert str(frame["peak_bytes"].dtype) == "int64"


def test_a_folder_stands_for_all_runs_inside_and_each_run_counts_once(write: Write, tmp_path: Path) -> None:
    folders = [write(day) for day in (1, 2)]
    found = history.read([tmp_path, folders[0], tmp_path / "runs"])
    assert [run.folder for run in found.runs] == ["night-01", "night-02"]
    assert found.left_out == []
    shutil.copytree(folders[0], tmp_path / "zz-copy")
    found = history.read([tmp_path])
    assert len(found.runs) == 2
    assert [folder.said for folder in found.left_out] == [
        "zz-copy is a copy of the run night-01 of 2026-11-01T08:00:00+00:00: it counts once"
    ]


def test_two_runs_of_one_moment_are_two(write: Write, tmp_path: Path) -> None:
    write(1)
    write(1, relative=3.0, folder=tmp_path / "other")
    assert len(history.read([tmp_path]).runs) == 2


def test_of_a_run_and_its_unfinished_copy_the_fuller_counts(write: Write, tmp_path: Path) -> None:
    whole = write(1)
    torn = Path(shutil.copytree(whole, tmp_path / "copy"))
    lines = (torn / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (torn / "journal.jsonl").write_bytes(b"".join(lines[:2]))
    for given in ([torn, whole], [whole, torn]):
        (run,) = history.read(given).runs
        assert len(run.measurements) == 2


def test_a_case_that_failed_or_was_not_planned_is_a_gap_with_its_reason(write: Write, cases: list[Case]) -> None:
    wrong = Measurement(case=cases[1].id, status="wrong", reason="error ratio 5.2 (limit 8) in output")
    found = history.read([write(1), write(2, odd=wrong), write(3, cases=cases[:1]), write(4)])
    (eager,) = [series for series in found.series if series.case["kernel"] == "attention/eager"]
    assert [row["run"] for row in eager.measured] == ["night-01", "night-04"]
    assert [(row["status"], row["reason"]) for row in eager.gaps] == [("wrong", wrong.reason), ("missing", NOT_PLANNED)]
    frame = found.frame
    gaps = frame[frame["status"] != "ok"]
    assert len(frame) == 8
    assert gaps["latency_s"].isna().all()
    assert gaps["peak_bytes"].isna().all()
    assert gaps["label"].tolist() == [cases[1].label] * 2
    assert gaps["run"].tolist() == ["night-02", "night-03"]


def test_other_conditions_are_never_joined_and_named_by_what_differs(write: Write) -> None:
    newer = {"versions": {"torch": "2.14.0", "onnxruntime": "1.30.0"}}
    days = [write(1), write(2, environment=newer), write(3)]
    found = history.read(days)
    assert [*found.conditions.values()] == ["torch 2.13.0", "torch 2.14.0"]
    assert sorted(len(series.rows) for series in found.series) == [1, 1, 2, 2]
    assert {row["run"]: row["conditions"] for row in found.rows} == {
        "night-01": "torch 2.13.0",
        "night-02": "torch 2.14.0",
        "night-03": "torch 2.13.0",
    }
    assert [*history.read(days[:1]).conditions.values()] == [""]


def test_another_commit_python_patch_or_system_is_the_same_condition(write: Write) -> None:
    other = {"python": "3.11.9", "os": "Linux 6.9", "commit": None}
    assert len(history.read([write(1), write(2, environment=other)]).conditions) == 1


def test_another_protocol_has_series_of_its_own(write: Write, rich_folder: Path) -> None:
    smoke = msgspec.structs.replace(read(rich_folder).manifest.settings, protocol=PROTOCOLS["smoke"])
    found = history.read([write(1), write(2, settings=smoke)])
    assert [*found.conditions.values()] == ["default protocol", "smoke protocol"]


def test_a_step_is_laid_between_the_right_runs_over_gaps(write: Write, cases: list[Case]) -> None:
    failed = Measurement(case=cases[1].id, status="failed", reason="RuntimeError: no")
    folders = [write(day, relative=2.9 if day < 11 else 3.25, odd=failed if day in (10, 11) else None) for day in range(1, 21)]
    found = history.read(folders)
    ((series, change),) = found.changes
    assert series.case["kernel"] == "attention/eager"
    assert (change.before["run"], change.after["run"]) == ("night-09", "night-12")
    assert (change.runs_before, change.runs_after) == (9, 9)
    assert change.point.change == pytest.approx(3.25 / 2.9 - 1, abs=0.02)
    assert found.series[0] is series


def test_what_cannot_be_read_is_told_and_the_rest_goes_on(write: Write, tmp_path: Path) -> None:
    good = write(1)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    found = history.read([good, tmp_path / "broken", tmp_path / "nowhere"])
    assert len(found.runs) == 1
    broken, nowhere = found.left_out
    assert broken.sentence.startswith(f"manifest.json in {tmp_path / 'broken'} is damaged")
    assert nowhere.sentence == f"{tmp_path / 'nowhere'} does not exist: give run folders, or a folder that holds some"
    assert str(tmp_path) not in broken.said + nowhere.said


def test_a_comparison_is_not_followed(write: Write) -> None:
    sides = Comparison(form="kernels", base=Side(label="attention/sdpa"), candidate=Side(label="attention/eager"), cells=[])
    found = history.read([write(1), write(2, comparison=sides), write(3, cases=[])])
    assert [run.folder for run in found.runs] == ["night-01"]
    assert "night-02 is a comparison" in found.left_out[0].said
    assert "night-03 plans no case" in found.left_out[1].said


def test_nothing_left_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no run") as raised:
        history.read([tmp_path])
    assert raised.value.exit_code == 2
    with pytest.raises(RunFolderError, match="no run was given"):
        history.read([])


def test_a_time_that_is_none_does_not_stop_it(write: Write) -> None:
    runs = history.read([write(1), write(2, created="yesterday"), write(3, created="2026-11-02T09:00:00")]).runs
    assert [run.folder for run in runs] == ["night-02", "night-01", "night-03"]
