"""Results as CSV and JSON: everything that the table holds, in a form that does not change by itself."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.comparison import Comparison, Side
from kerneldyno.bench.journal import Journal, Run
from kerneldyno.reports import downloads, frame

VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(st.characters(exclude_categories=["Cs"]))


def export(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "kerneldyno.bench", "export", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@given(st.lists(st.dictionaries(st.text("abc_", min_size=1), VALUES)))
def test_json_reads_back_what_was_written_and_null_for_what_is_no_number(rows: list[dict[str, Any]]) -> None:
    text = downloads.as_json(rows)
    assert json.loads(text) == [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()} for row in rows
    ]
    assert text == downloads.as_json(rows)


def test_json_has_one_line_for_each_case_and_the_columns_in_their_order(rich: Run) -> None:
    results = frame.results(rich)
    first, *lines, last = downloads.as_json(frame.rows(results)).splitlines()
    assert (first, last, len(lines)) == ("[", "]", len(rich.manifest.cases))
    found = [json.loads(line.removesuffix(",")) for line in lines]
    assert all(list(one) == list(results.columns) for one in found)
    by_case = {one["case"]: one for one in found}
    for case in rich.manifest.cases:
        one = by_case[case.id]
        assert (one["kernel"], one["flops"], one["baseline"]) == (case.kernel, case.flops, case.baseline)
        assert (one["latency_s"] is None) == (one["status"] != "ok")
    skipped = next(one for one in found if one["status"] == "skipped")
    assert skipped["reason"]
    assert skipped["peak_bytes"] is None


def test_the_command_writes_both_beside_the_run_or_elsewhere(rich_copy: Path, tmp_path: Path) -> None:
    results = frame.load(rich_copy).results
    done = export("--format", "json", rich_copy)
    assert (done.returncode, done.stdout) == (0, f"export: {rich_copy / 'results.json'}\n")
    assert json.loads((rich_copy / "results.json").read_text(encoding="utf-8")) == json.loads(downloads.as_json(frame.rows(results)))
    done = export("--format", "csv", rich_copy, "--out", tmp_path / "table.csv")
    assert done.returncode == 0, done.stderr
    frame.write_tables(rich_copy)
    assert (tmp_path / "table.csv").read_bytes() == (rich_copy / "results.csv").read_bytes()
    assert pd.read_csv(tmp_path / "table.csv")["latency_s"].tolist() == pytest.approx(results["latency_s"].tolist(), nan_ok=True)


def test_mistakes_end_in_a_sentence(rich_copy: Path, tmp_path: Path) -> None:
    missing = tmp_path / "no" / "results.json"
    compared = Comparison(form="kernels", base=Side(label="a"), candidate=Side(label="b"), cells=[])
    manifest = msgspec.structs.replace(frame.load(rich_copy).run.manifest, comparison=compared)
    Journal.create(tmp_path / "compared", manifest).close()
    for words, sentence in (
        (("--format", "xml", rich_copy), "--format 'xml' is unknown: choose from csv, json, pytest-benchmark"),
        (("--format", "json", rich_copy, "--out", missing), f"--out {missing}: cannot be written (No such file or directory)"),
        (("--format", "csv", tmp_path / "compared"), "is a comparison, whose result is verdict.json"),
        (("--format", "csv", tmp_path / "nothing"), "nothing holds no run"),
    ):
        done = export(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
