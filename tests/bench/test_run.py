"""Whole runs with real workers: crashes cost one case, stopping keeps what was measured, resuming measures the rest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from kerneldyno.bench import launch
from kerneldyno.bench.entries import Attempt, Session
from kerneldyno.bench.journal import Journal, read
from kerneldyno.bench.plan import UsageError

PLUGIN = Path(__file__).with_name("broken_kernels.py")
KINDS = ("good", "segfaults", "hangs", "raises", "exits", "returns_nan", "returns_list")
TINY = {"batch": [1], "seq_len": [32], "heads": [2], "head_dim": [16]}


class Silent:
    """Hears the progress and keeps it."""

    def __init__(self):
        self.heard = []

    def __getattr__(self, name):
        return lambda *args, **_: self.heard.append((name, args))


def options(tmp_path, **changes):
    plain = {"operators": ("attention",), "axes": TINY, "device": "cpu", "protocol": "smoke", "out": tmp_path / "run", "energy": "off"}
    return launch.Options(**{**plain, **changes})


def cli(*words, **popen):
    return subprocess.Popen(
        [sys.executable, "-m", "kerneldyno.bench", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen
    )


def by_kernel(run):
    cases = {case.id: case for case in run.manifest.cases}
    return {cases[key].kernel: measurement for key, measurement in run.measurements.items()}


def test_each_way_to_fail_costs_one_case(tmp_path):
    chosen = options(tmp_path, load=(PLUGIN,), kernels=KINDS, build_timeout_s=6.0)
    progress = Silent()
    folder, ended = launch.launch(chosen, progress)
    assert ended == "finished"
    found = by_kernel(read(folder))
    assert {name.partition("/")[2]: m.status for name, m in found.items()} == {
        "good": "ok",
        "segfaults": "failed",
        "hangs": "timeout",
        "raises": "failed",
        "exits": "failed",
        "returns_nan": "wrong",
        "returns_list": "wrong",
    }
    assert "SystemExit: adieu" in found["attention/exits"].reason
    assert "returned list" in found["attention/returns_list"].reason
    assert "SIGSEGV" in found["attention/segfaults"].reason
    assert "within 6 s" in found["attention/hangs"].reason
    assert "sharp edge" in found["attention/raises"].reason
    assert "NaN" in found["attention/returns_nan"].reason
    assert len(found["attention/good"].samples_s) >= 10
    assert found["attention/good"].errors.max_ratio < 8
    assert {name for name, _ in progress.heard} >= {"begin", "group", "doing", "done", "end"}
    text = (folder / "journal.jsonl").read_text()
    assert str(Path.cwd()) not in text


def test_more_processes_add_samples_to_the_same_case(tmp_path):
    folder, _ = launch.launch(options(tmp_path, kernels=("attention/sdpa", "attention/eager"), processes=3), Silent())
    found = by_kernel(read(folder))
    assert [len(m.processes) for m in found.values()] == [3, 3]
    workers = [[process.worker for process in m.processes] for m in found.values()]
    assert workers[0] == workers[1]
    assert len(set(workers[0])) == 3


def test_kill_nine_and_resume_measures_only_what_is_missing(tmp_path):
    """The parent is killed while it measures; nothing measured is lost, nothing is measured twice."""
    folder = tmp_path / "run"
    words = ["run", "--operator", "attention", "--kernels", "eager,sdpa", "--seq-len", "32,48,64", "--set", "heads=2", "--device", "cpu"]
    child = cli(*words, "--protocol", "smoke", "--out", str(folder))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (folder.exists() and _measured(folder) >= 2):
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    before = {case: m for case, m in read(folder).measurements.items() if m.status == "ok"}
    assert 2 <= len(before) < 6
    again = cli("run", "--resume", str(folder))
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, out + err
    after = read(folder)
    assert {m.status for m in after.measurements.values()} == {"ok"}
    assert len(after.measurements) == 6
    for case, measurement in before.items():
        assert after.measurements[case].processes == measurement.processes
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    measured = Counter(
        line["record"]["measurement"]["case"] for line in lines if "measurement" in json.dumps(line) and "measurement" in line["record"]
    )
    assert set(measured.values()) == {1}
    assert (folder / "report.html").exists()


def _measured(folder):
    journal = folder / "journal.jsonl"
    return journal.read_text().count('"measurement"') if journal.exists() else 0


def test_interrupting_keeps_what_was_measured_and_writes_the_report(tmp_path):
    folder = tmp_path / "run"
    words = ["--operator", "attention", "--kernels", "eager,sdpa", "--seq-len", "32,48,64,80", "--device", "cpu", "--out", str(folder)]
    child = cli("run", *words, "--protocol", "smoke")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (folder.exists() and _measured(folder) >= 2):
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, out + err
    stored = read(folder)
    assert stored.ended.reason == "interrupted"
    assert 2 <= len(stored.measurements) < 8
    assert (folder / "results.csv").exists()
    assert (folder / "report.html").exists()


@pytest.mark.alone
def test_a_budget_stops_in_time_and_resuming_finishes(tmp_path):
    many = {**TINY, "seq_len": list(range(16, 16 * 7, 16))}
    began = time.monotonic()
    folder, ended = launch.launch(options(tmp_path, kernels=("eager",), axes=many, budget_s=9.0), Silent())
    assert ended == "budget"
    assert time.monotonic() - began < 40  # generous: the machine may be busy with other things
    measured = len(read(folder).measurements)
    assert 0 < measured < 6
    _, ended = launch.resume(folder, (), None, Silent())
    assert ended == "finished"
    assert len(read(folder).measurements) == 6


def test_a_case_during_which_the_harness_died_twice_is_not_tried_again(tmp_path):
    folder, ended = launch.launch(options(tmp_path, kernels=("eager", "sdpa"), budget_s=1e-6), Silent())
    assert ended == "budget"
    stored = read(folder).manifest
    killer = next(case for case in stored.cases if case.kernel == "attention/sdpa")
    for _ in range(2):  # two sessions that end in the middle of this case
        with Journal.resume(folder, stored) as journal:
            journal.append(Session("now"))
            journal.append(Attempt(case=killer.id, phase="build"))
    _, ended = launch.resume(folder, (), None, Silent())
    assert ended == "finished"
    found = by_kernel(read(folder))
    assert found["attention/eager"].status == "ok"
    assert found["attention/sdpa"].status == "failed"
    assert "died 2 times" in found["attention/sdpa"].reason


def test_a_second_run_on_the_same_device_is_refused(tmp_path):
    from kerneldyno.bench.environment import choose

    with launch.only_one(choose("cpu")), pytest.raises(UsageError, match="another kerneldyno run"):
        launch.launch(options(tmp_path, kernels=("eager",)), Silent())


def test_workers_die_with_their_parent(tmp_path):
    child = cli(
        "run",
        "--operator",
        "attention",
        "--kernels",
        "hangs",
        "--load",
        str(PLUGIN),
        "--seq-len",
        "32",
        "--out",
        str(tmp_path / "run"),
        "--device",
        "cpu",
    )
    deadline = time.monotonic() + 60
    workers = []
    while time.monotonic() < deadline and not workers:
        time.sleep(0.2)
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        running = (tmp_path / "run" / "journal.jsonl").exists() and '"build"' in (tmp_path / "run" / "journal.jsonl").read_text()
        workers = children if running else []
    assert workers
    child.kill()
    child.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(_alive(int(pid)) for pid in workers):
        time.sleep(0.05)
    assert not any(_alive(int(pid)) for pid in workers)


def _alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return False
