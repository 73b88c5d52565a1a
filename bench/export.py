"""Writes a stored run in formats that other tools read: the JSON of pytest-benchmark. No torch, no kernels."""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from . import pytest_json
from ._journal_lines import replace_file
from .journal import read
from .plan import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .journal import Run
    from .manifest import Manifest
    from .records import Case, Measurement

FORMATS = ("pytest-benchmark",)
FORMAT_VERSION = "5.3.1"
"""Of pytest-benchmark: the one whose JSON this is. Older and newer ones read it."""
LEFT_OUT_TOLD = 5


@dataclass(frozen=True)
class Exported:
    """What was written, and what was not."""

    path: Path
    cases: int
    left_out: tuple[str, ...]
    """Each case without samples, and why it has none."""

    @property
    def notice(self) -> str | None:
        """What a reader of the file has to know, in a sentence; None when every case is in it."""
        if not self.left_out:
            return None
        more = f", and {len(self.left_out) - LEFT_OUT_TOLD} more" if len(self.left_out) > LEFT_OUT_TOLD else ""
        one = len(self.left_out) == 1
        return (
            f"{len(self.left_out)} of {self.cases + len(self.left_out)} cases {'has' if one else 'have'} no samples and "
            f"{'is' if one else 'are'} left out: {', '.join(self.left_out[:LEFT_OUT_TOLD])}{more}"
        )


def export(folder: Path, out: Path | None = None, form: str = "pytest-benchmark") -> Exported:
    """Write a run as a file that other tools read; by default `pytest-benchmark.json` in its folder.

    Raises UsageError for a format that does not exist, for a run without any samples, and for a file that cannot be
    written; RunFolderError and CorruptRunError as `journal.read` does.
    """
    if form not in FORMATS:
        raise UsageError(f"--format {form!r} is unknown: choose from {', '.join(FORMATS)}")
    run = read(folder)
    content, left_out = pytest_benchmark(run)
    written = len(content["benchmarks"])
    if not written:
        raise UsageError(f"{folder} has nothing to export: none of its {len(left_out)} cases has samples ({'; '.join(left_out[:1])}, …)")
    path = folder / f"{form}.json" if out is None else out
    try:
        replace_file(path, msgspec.json.format(msgspec.json.encode(content), indent=4) + b"\n")
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be written ({error.strerror}): give another file") from error
    return Exported(path, written, tuple(left_out))


def pytest_benchmark(run: Run) -> tuple[dict[str, Any], list[str]]:
    """A run as pytest-benchmark would have stored it, and the cases that are not in it, each with its status."""
    manifest = run.manifest
    machine_info: dict[str, Any] = {}
    pytest_json.complete(machine_info, [manifest.environment])
    names = Counter(_name(case) for case in run.cases)
    benchmarks, left_out = [], []
    for case in run.cases:
        measurement = run.measurements.get(case.id)
        if measurement is None or measurement.status != "ok" or not measurement.samples_s:
            left_out.append(f"{case.entry} {case.label} ({measurement.status if measurement else 'not measured yet'})")
        else:
            name = _name(case) if names[_name(case)] == 1 else f"{_name(case)} {case.id}"
            benchmarks.append(_benchmark(name, case, measurement, manifest))
    content = {
        "machine_info": machine_info,
        "commit_info": _commit_info(manifest.environment.commit),
        "benchmarks": benchmarks,
        "datetime": manifest.created,
        "version": FORMAT_VERSION,
    }
    return content, left_out


def statistics_of(samples: Sequence[float]) -> dict[str, Any]:
    """What pytest-benchmark derives from samples, in seconds, by its own definitions; the quartiles are Tukey's hinges.

    Source: pytest_benchmark/stats.py. Raises ValueError when there are no samples.
    """
    if not samples:
        raise ValueError("no samples: there is nothing to say about them")
    ordered = sorted(samples)
    total, mean = sum(samples), statistics.mean(samples)
    stddev = statistics.stdev(samples) if len(samples) > 1 else 0
    q1, q3 = _quartiles(ordered)
    iqr = q3 - q1
    low, high = q1 - 1.5 * iqr, q3 + 1.5 * iqr
    far = sum(1 for value in samples if not mean - stddev <= value <= mean + stddev)
    outside = sum(1 for value in samples if not low <= value <= high)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": stddev,
        "rounds": len(samples),
        "median": statistics.median(samples),
        "iqr": iqr,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outside,
        "stddev_outliers": far,
        "outliers": f"{far};{outside}",
        "ld15iqr": ordered[bisect_left(ordered, low)],
        "hd15iqr": ordered[bisect_right(ordered, high) - 1],
        "ops": len(samples) / total if total else 0,
        "total": total,
        "data": list(samples),
    }


def _quartiles(ordered: Sequence[float]) -> tuple[float, float]:
    count = len(ordered)
    n, rest = divmod(count, 4)
    if count == 1:
        return ordered[0], ordered[0]
    if rest == 1:
        return 0.25 * ordered[n - 1] + 0.75 * ordered[n], 0.75 * ordered[3 * n] + 0.25 * ordered[3 * n + 1]
    if rest == 3:
        return 0.75 * ordered[n] + 0.25 * ordered[n + 1], 0.25 * ordered[3 * n + 1] + 0.75 * ordered[3 * n + 2]
    return statistics.median(ordered[: count // 2]), statistics.median(ordered[count // 2 :])


def _name(case: Case) -> str:
    """As the test of a kernel at a problem would be called."""
    return f"{case.entry}[{case.label}]"


def _benchmark(name: str, case: Case, measurement: Measurement, manifest: Manifest) -> dict[str, Any]:
    calls = {process.calls_per_sample for process in measurement.processes if process.samples_s}
    protocol = manifest.settings.protocol
    return {
        "group": pytest_json.group(case),
        "name": name,
        "fullname": f"kerneldyno::{name}",
        "params": {"kernel": case.entry, **case.problem},
        "param": case.label,
        "extra_info": pytest_json.extra_info(case, measurement, manifest),
        "options": {
            "disable_gc": False,
            "timer": "kerneldyno.samples",
            "min_rounds": protocol.min_samples,
            "max_time": protocol.cap_s,
            "min_time": protocol.min_total_s,
            "precision": None,
            "confidence": None,
            "warmup": True,
        },
        "stats": {**statistics_of(measurement.samples_s), "iterations": min(calls)},
    }


def _commit_info(commit: str | None) -> dict[str, Any]:
    """What is known of the checkout that measured; when the commit was made is not recorded."""
    return {
        "id": commit.removesuffix("-dirty") if commit else "unversioned",
        "time": None,
        "author_time": None,
        "dirty": bool(commit and commit.endswith("-dirty")),
        "project": "kerneldyno",
        "branch": "(unknown)",
    }
