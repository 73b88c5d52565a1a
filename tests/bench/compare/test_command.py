"""Whole comparisons with real workers, as a user starts them: files, exit codes, sentences."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from kerneldyno.bench.__main__ import main
from kerneldyno.bench.compare import command
from kerneldyno.bench.journal import JournalError, read
from kerneldyno.bench.plan import UsageError

PLUGIN = Path(__file__).with_name("contestants.py")
SHAPE = ("--batch", "1", "--seq-len", "32", "--set", "heads=1", "--set", "head_dim=32")
TINY = (*SHAPE, "--device", "cpu", "--threads", "1", "--load", str(PLUGIN))
FILES = {"verdict.json", "junit.xml", "summary.md", "comparison.html", "manifest.json", "journal.jsonl"}


def cli(*words, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-P", "-m", "kerneldyno.bench", "compare", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", **environment},
    )


def pair(candidate, out, *more, **environment):
    return cli("--kernels", "attention/cmp_old", f"attention/cmp_{candidate}", *TINY, "--processes", 4, "--out", out, *more, **environment)


def verdicts(folder):
    return json.loads((folder / "verdict.json").read_text())


# ------------------------------------------------------------------ what is measured


def test_a_slower_kernel_exits_1_and_every_file_says_so(tmp_path):
    summary = tmp_path / "step-summary.md"
    done = pair("slow", tmp_path / "run", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 1, done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    found = verdicts(tmp_path / "run")
    (one,) = found["verdicts"]
    assert (one["word"], one["fails"], one["kernel"], one["base_kernel"]) == ("REGRESSED", True, "attention/cmp_slow", "attention/cmp_old")
    assert one["latency"]["processes"] >= 4
    assert one["latency"]["ratio"] > 1.2
    assert one["changes"]["memory"]["word"] == "REGRESSED"
    assert one["changes"]["memory"]["candidate"] - one["changes"]["memory"]["base"] > 3 * 2**20
    assert found["exit_code"] == 1
    assert len(found["canaries"]) == 3
    assert len(ET.parse(tmp_path / "run" / "junit.xml").getroot().findall(".//failure")) == 1
    assert "REGRESSED" in (tmp_path / "run" / "summary.md").read_text()
    assert "REGRESSED" in (tmp_path / "run" / "comparison.html").read_text()
    assert "REGRESSED" in summary.read_text()
    assert "REGRESSED" in done.stdout
    assert done.stdout.count("::error") == 1
    again = subprocess.run(
        [sys.executable, "-m", "kerneldyno.bench", "report", str(tmp_path / "run")], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert verdicts(tmp_path / "run") == found


def test_a_wrong_kernel_exits_5(tmp_path):
    done = pair("bad", tmp_path / "run")
    assert done.returncode == 5, done.stdout + done.stderr
    (one,) = verdicts(tmp_path / "run")["verdicts"]
    assert one["word"] == "FAILED"
    assert "wrong" in one["reason"]
    run = read(tmp_path / "run")
    sides = {case.side: len(run.measurements[case.id].processes) for case in run.manifest.cases if case.kernel == "attention/cmp_bad"}
    assert sides == {"candidate": 0}


def test_a_crash_in_a_later_process_costs_the_cell(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    done = pair("crashing", tmp_path / "run", KERNELDYNO_TEST_MARKS=str(marks))
    assert done.returncode == 5, done.stdout + done.stderr
    (one,) = verdicts(tmp_path / "run")["verdicts"]
    assert one["word"] == "FAILED"
    assert "in process 3" in one["reason"]
    assert "SIGSEGV" in one["reason"]


def test_interrupted_keeps_and_writes_what_there_is(tmp_path):
    words = ["--kernels", "attention/cmp_old", "attention/cmp_new", *TINY, "--processes", "50", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "kerneldyno.bench", "compare", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while time.monotonic() < until and not _processes(tmp_path / "run"):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, out + error
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert verdicts(tmp_path / "run")["exit_code"] == 130


def _processes(folder):
    """Whether every case of the run has come to its second process."""
    try:
        run = read(folder)
    except JournalError:  # not there yet, or just being written
        return False
    found = [len(run.measurements[case.id].processes) for case in run.manifest.cases if case.id in run.measurements]
    return len(found) == len(run.manifest.cases) and min(found) >= 2


def test_a_budget_leaves_out_what_does_not_fit(tmp_path):
    done = cli(
        "--kernels", "attention/cmp_old", "attention/cmp_new", *TINY, "--set", "head_dim=16,32,64", "--budget", 3, "--out", tmp_path / "run"
    )
    assert done.returncode in (0, 4), done.stdout + done.stderr
    found = verdicts(tmp_path / "run")
    assert found["left_out"]
    assert len(found["left_out"]) + len(found["verdicts"]) == 3


# ------------------------------------------------------------------ what cannot be asked


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ((), 2, "compare needs --base REV, --kernels BASE CANDIDATE"),
        (("--kernels", "attention/sdpa"), 2, "name exactly two kernels"),
        (("--kernels", "attention/sdpa", "attention/sdpa"), 2, "both are attention/sdpa"),
        (("--kernels", "attention/sdpa", "feedforward/eager"), 2, "do different things"),
        (("--kernels", "attention/sdpa*", "attention/eager"), 2, "name exactly one kernel for each side"),
        (("--kernels", "attention/sdpa", "attention/nothing"), 2, "matches no kernel"),
        (("--kernels", "attention/sdpa", "attention/eager", "--processes", "2"), 2, "--processes 2 is impossible"),
        (("--kernels", "attention/sdpa", "attention/eager", "--gate", "speed"), 2, "--gate 'speed' is unknown"),
        (("--kernels", "attention/sdpa", "attention/eager", "--strict"), 2, "--strict is for two stored runs"),
        (("--base", "no-such-revision"), 2, "revision 'no-such-revision' is unknown"),
        (("--base", "HEAD", "attention/eager"), 2, "one argument too many"),
        (("runs/nothing", "runs/neither"), 2, "nothing"),
        (("runs/nothing", "runs/neither", "--budget", "5"), 2, "--budget does not go with two stored runs"),
        (("--kernels", "attention/sdpa", "attention/eager", "--all"), 2, "--all does not go with two kernels"),
        (("--kernels", "attention/fused", "attention/sdpa_cudnn", "--device", "cpu"), 2, "attention/sdpa_cudnn runs on cuda only"),
    ],
)
def test_mistakes_end_in_one_sentence(words, code, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["kerneldyno", "compare", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    errors = capsys.readouterr().err
    assert sentence in errors
    assert errors.count("\n") == 1


def test_stored_runs_through_the_command_line(tmp_path, manifesting, measuring, casing):
    from kerneldyno.bench.entries import Measured, Session, SessionEnd
    from kerneldyno.bench.journal import Journal

    for name, ratio in (("old", 1.0), ("new", 1.5)):
        case = casing("attention/one")
        manifest = manifesting([case])
        with Journal.create(tmp_path / name, manifest) as journal:
            journal.append(Session(manifest.created))
            journal.append(Measured(measuring(case, ratio, seed=len(name) + int(10 * ratio))))
            journal.append(SessionEnd(reason="finished", wall_s=1.0))
    done = cli("old", "new", "--out", "advice", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "REGRESSED" in done.stdout
    assert verdicts(tmp_path / "advice")["advisory"]
    assert cli("old", "new", "--strict", "--out", "strict", cwd=tmp_path).returncode == 1


def test_two_equal_commits_compare_nothing_and_take_no_time(tmp_path):
    done = cli("--base", "HEAD", "--candidate", "HEAD", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts(tmp_path / "run")["verdicts"] == []
    assert "No kernel was compared" in done.stdout


def test_terms_follow_the_processes_asked_for():
    found = command.terms(command.Asked(processes=10))
    assert (found.processes, found.more_processes, found.second_look) == (10, 15, 10)
    with pytest.raises(UsageError, match="--processes 3"):
        command.terms(command.Asked(processes=3))
