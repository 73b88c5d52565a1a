"""kerneldyno selftest as a whole: exit status, document, what the terminal shows. Sections are real or made of findings."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time

import msgspec
import pytest
from rich.console import Console

from kerneldyno.bench.plan import UsageError
from kerneldyno.bench.selftest import command, sections
from kerneldyno.bench.selftest.findings import Control, Finding

GOOD = Finding(section="one", plant="a hole", where="here", caught=True, said="seen")
MISS = Finding(section="one", plant="a deep hole", where="there", caught=False)
FINE = Control(section="two", what="a kernel", where="here", alarm=False)
ALARM = Control(section="two", what="another kernel", where="here", alarm=True, said="AssertionError")


def run(tmp_path, every, **options):
    console = Console(file=io.StringIO(), width=200)
    path = tmp_path / "deep" / "found.json"
    code = command.selftest(console, device="cpu", out=path, every=every, **options)
    return code, console.file.getvalue(), sections.read(path)


def made(*found):
    """Sections that yield these."""
    by_section = {}
    for item in found:
        by_section.setdefault(item.section, []).append(item)
    return {name: lambda _, items=items: iter(items) for name, items in by_section.items()}


def test_all_caught_exits_with_0(tmp_path):
    code, text, document = run(tmp_path, made(GOOD, FINE))
    assert code == 0
    assert "everything that must be caught was caught" in text
    assert document.complete
    assert document.findings == [GOOD]
    assert document.controls == [FINE]


def test_a_miss_exits_with_5_and_is_told(tmp_path):
    code, text, document = run(tmp_path, made(GOOD, MISS, FINE))
    assert code == 5
    assert "missed one · a deep hole · there" in text
    assert "failed: one" in text
    assert [one.missed for one in document.tallies] == [1, 0]
    assert document.detection["one"].count == 1
    assert document.detection["one"].of == 2


def test_a_false_alarm_exits_with_5_and_is_told(tmp_path):
    code, text, _ = run(tmp_path, made(GOOD, ALARM))
    assert code == 5
    assert "false alarm two · another kernel · here: AssertionError" in text


def test_the_table_has_counts_and_exact_intervals(tmp_path):
    _, text, _ = run(tmp_path, made(GOOD, MISS, FINE))
    rows = {line.split()[0]: line.split() for line in text.splitlines() if "/" in line}
    assert rows["one"][1:3] == ["1/2", "1.3–98.7"]
    assert rows["two"][4:6] == ["0/1", "0.0–97.5"]


def test_only_the_sections_asked_for_run(tmp_path):
    code, _, document = run(tmp_path, made(MISS, FINE), only=["two"])
    assert code == 0
    assert [one.section for one in document.tallies] == ["two"]


def test_an_unknown_section_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"'three' is no section: choose from one, two"):
        run(tmp_path, made(MISS, FINE), only=["three"])


def test_stopping_keeps_what_was_found_and_exits_with_130(tmp_path):
    asked = []

    def section(_):
        yield GOOD
        asked.append(1)
        yield MISS
        raise AssertionError("it goes on although it was stopped")

    code, _, document = run(tmp_path, {"one": section}, stop=lambda: bool(asked))
    assert code == 130
    assert document.findings == [GOOD, MISS]
    assert not document.complete


def test_the_document_is_versioned(tmp_path):
    _, _, document = run(tmp_path, made(GOOD))
    assert document.schema == sections.SCHEMA_VERSION
    path = tmp_path / "later.json"
    path.write_bytes(msgspec.json.encode({**msgspec.to_builtins(document), "schema": 99}))
    with pytest.raises(ValueError, match="schema 99"):
        sections.read(path)


def test_a_gate_that_is_switched_off_fails_the_self_test(tmp_path):
    """The real sections through real processes, with nothing examined: every plant must be missed."""
    code, text, document = run(tmp_path, sections.SECTIONS, only=["feedforward"], short=True, blind=True)
    assert code == 5
    (counted,) = document.tallies
    assert counted.caught == 0
    assert counted.missed == counted.planted >= 8
    assert counted.alarms == 0
    assert "failed: feedforward" in text


def test_the_gate_catches_what_is_planted_in_networks(tmp_path):
    code, text, document = run(tmp_path, sections.SECTIONS, only=["feedforward"], short=True)
    (counted,) = document.tallies
    assert counted.missed == 0, text
    assert counted.alarms == 0, text
    assert counted.caught >= 30
    assert code == 0


def test_the_command_line(tmp_path):
    words = [sys.executable, "-P", "-m", "kerneldyno.bench", "selftest", "--device", "cpu"]
    done = subprocess.run([*words, "--only", "nonsense"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "'nonsense' is no section: choose from attention" in done.stderr
    done = subprocess.run([*words, "--short", "--only", "layer"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "runs").iterdir()
    assert sections.read(path).tallies[0].section == "layer"
    assert path.name in done.stdout


def test_what_needs_no_gate_is_not_run_without_it(tmp_path):
    with pytest.raises(UsageError, match="'slowdowns' is no section"):
        run(tmp_path, sections.SECTIONS, only=["slowdowns"], blind=True)


def test_ctrl_c_keeps_what_was_found(tmp_path):
    words = [sys.executable, "-P", "-u", "-m", "kerneldyno.bench", "selftest", "--device", "cpu", "--short", "--only", "attention"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "attention"
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, out + err
    (path,) = (tmp_path / "runs").iterdir()
    assert not sections.read(path).complete
