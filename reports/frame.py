"""A run as tidy tables: one row per case, one row per sample, one row per contest. All of it derived from the journal.

Scaling to milliseconds or MiB happens where numbers are shown, not here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kerneldyno.bench import journal, stats

from .columns import COLUMNS
from .winners import winners

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kerneldyno.bench.journal import Run
    from kerneldyno.bench.records import Case, Ceilings, Measurement

__all__ = ["COLUMNS", "Frames", "load", "results", "rows", "samples", "winners", "write_tables"]

NAN = float("nan")
GATE_PHASES = ("check", "identify", "recheck")
ENDINGS = {
    "finished": "not measured, although the run finished: resume it",
    "interrupted": "not measured: the run was interrupted before it; resume it",
    "budget": "not measured: the time budget was spent before it; resume it",
}


@dataclass(frozen=True)
class Frames:
    """A run and the tables derived from it, each made when first asked for."""

    run: Run

    @cached_property
    def results(self) -> pd.DataFrame:
        return results(self.run)

    @cached_property
    def samples(self) -> pd.DataFrame:
        return samples(self.run)

    @cached_property
    def winners(self) -> pd.DataFrame:
        return winners(self.run)


def load(folder: Path | str) -> Frames:
    """The tables of a run folder. Raises what `journal.read` raises when the folder holds no readable run."""
    return Frames(journal.read(Path(folder)))


def results(run: Run) -> pd.DataFrame:
    """One row per case of the plan, measured or not; columns as in COLUMNS, then the fields of the problems.

    Only rows whose status is "ok" have numbers in the latency columns and in what follows from them.
    """
    baselines = {(case.group, case.kernel): case for case in run.cases}
    records = []
    for case in run.cases:
        measurement = run.measurements.get(case.id)
        record = dict.fromkeys(COLUMNS) | _planned(case, run) | _state(measurement, run)
        if measurement is not None:
            record |= _costs(case, measurement) | _quality(measurement)
            if measurement.status == "ok" and measurement.samples_s:
                record |= _latency(case, measurement) | _rates(case, measurement, run.ceilings)
                base = baselines.get((case.group, case.baseline))
                record |= _speedup(case, measurement, run.measurements.get(base.id) if base else None)
        records.append(record)
    problem_fields = dict.fromkeys(name for case in run.cases for name in case.problem if name not in COLUMNS)
    return _tidy({name: [record.get(name) for record in records] for name in (*COLUMNS, *problem_fields)})


def samples(run: Run) -> pd.DataFrame:
    """One row per latency sample, in the order in which they were taken (`position`), seconds per call.

    Samples in the other state of the cache have an order of their own: `cold_s` is not of the round that it stands beside.
    """
    parts: list[dict[str, Any]] = [
        {
            "case": case.id,
            "kernel": case.kernel,
            "operator": case.operator,
            "label": case.label,
            "device": case.device,
            "process": index,
            "round": process.rounds,
            "position": np.arange(len(process.samples_s)),
            "latency_s": process.samples_s,
            "host_s": process.host_samples_s or NAN,
            "warm_s": process.warm_samples_s or NAN,
            "cold_s": process.cold_samples_s or NAN,
        }
        for case in run.cases
        if (measurement := run.measurements.get(case.id)) is not None
        for index, process in enumerate(measurement.processes)
    ]
    columns = ["case", "kernel", "operator", "label", "device", "process", "round", "position", "latency_s", "host_s", "warm_s", "cold_s"]
    frames = [pd.DataFrame({name: _fitted(value, len(part["position"])) for name, value in part.items()}) for part in parts]
    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain dicts, with None for what is not there."""
    columns = [[None if gone else value for value, gone in zip(frame[name].tolist(), frame[name].isna(), strict=True)] for name in frame]
    return [dict(zip(frame.columns, values, strict=True)) for values in zip(*columns, strict=True)]


def write_tables(folder: Path | str) -> list[Path]:
    """Write results.csv, results.parquet and samples.parquet beside the journal, replacing what is there; their paths."""
    folder = Path(folder)
    frames = load(folder)
    writers: dict[str, Callable[[Path], None]] = {
        "results.csv": lambda path: frames.results.to_csv(path, index=False),
        "results.parquet": lambda path: frames.results.to_parquet(path, index=False),
        "samples.parquet": lambda path: frames.samples.to_parquet(path, index=False),
    }
    return [replacing(folder / name, write) for name, write in writers.items()]


def replacing(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a file beside `path`, then move it there: a reader sees the old file or the new one, never half."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _planned(case: Case, run: Run) -> dict[str, Any]:
    """What was known before anything was measured."""
    names = "kernel family operator device approximate label batch seq_len tokens dtype direction flops min_bytes baseline seed group"
    own = {name: getattr(case, name) for name in names.split()}
    return dict(case.problem) | own | {"case": case.id, "protocol": run.manifest.settings.protocol.name, "run": run.folder}


def _state(measurement: Measurement | None, run: Run) -> dict[str, Any]:
    if measurement is None:
        ending = run.ended.reason if run.ended else None
        return {"status": "missing", "reason": ENDINGS.get(ending or "", "not measured: the run has not ended, or was killed; resume it")}
    return {
        "status": measurement.status,
        "reason": measurement.reason,
        "identity": measurement.identity,
        "warnings": "; ".join(f"{warning.code}: {warning.text}" for warning in measurement.warnings) or None,
    }


def _costs(case: Case, measurement: Measurement) -> dict[str, Any]:
    """What it cost beside time: building, memory, energy; and the state of the device."""
    names = "build_s build_cache prepare_s prepare_bytes peak_bytes peak_source leak_bytes weight_bytes"
    costs = {name: getattr(measurement, name) for name in names.split()}
    if (energy := measurement.energy) is not None:
        costs |= {"energy_j": energy.energy_j, "net_energy_j": energy.net_energy_j, "power_w": energy.power_w}
        costs |= {"energy_per_token_j": None if energy.energy_j is None else energy.energy_j / case.tokens, "idle_w": energy.idle_w}
        costs |= {"energy_valid": energy.valid, "energy_windows": len(energy.windows_j) or None, "energy_updates": energy.updates}
        costs |= {f"energy_{name}": getattr(energy, name) for name in ("spread", "edge_error", "readings_ratio", "source", "reason")}
    if (clocks := measurement.clocks) is not None:
        costs |= {"clock_before_mhz": clocks.before_mhz, "clock_after_mhz": clocks.after_mhz}
        costs |= {"temperature_c": clocks.temperature_c, "dropped_rounds": clocks.dropped_rounds}
    return costs


def _quality(measurement: Measurement) -> dict[str, Any]:
    """How right the output is, against float64 and against the exact result."""
    quality: dict[str, Any] = {"probes": len(measurement.probes) or None, "probe_max_ratio": max(measurement.probes.values(), default=None)}
    spent = [seconds for phase, seconds in measurement.phases_s.items() if phase in GATE_PHASES]
    quality["gate_s"] = sum(spent) if spent else None
    if (errors := measurement.errors) is not None:
        quality |= {"error_max_ratio": errors.max_ratio, "error_rms_ratio": errors.rms_ratio, "error_max_abs": errors.max_abs}
        quality |= {"error_relative_rms": errors.relative_rms, "error_tensor": errors.tensor}
    if (distance := measurement.distance) is not None:
        quality |= {"distance_rms": distance.relative_rms, "distance_cosine": distance.cosine, "distance_max_abs": distance.max_abs}
    return quality


def _latency(case: Case, measurement: Measurement) -> dict[str, Any]:
    processes = [process for process in measurement.processes if process.samples_s]
    interval = stats.latency(processes)
    taken = measurement.samples_s
    host = [sample for process in processes for sample in process.host_samples_s or ()]
    cache, besides = ("cold", "warm") if case.device.startswith("cuda") else ("warm", "cold")
    other = [sample for process in processes for sample in getattr(process, f"{besides}_samples_s") or ()]
    return {
        "latency_s": interval.estimate,
        "latency_low_s": interval.low,
        "latency_high_s": interval.high,
        "latency_p5_s": stats.percentile(taken, 5),
        "latency_p95_s": stats.percentile(taken, 95),
        "interval_kind": "over_processes" if len(processes) >= 3 else "within_process",
        "host_latency_s": float(np.median(host)) if host else NAN,
        "cache": cache,
        f"{cache}_latency_s": interval.estimate,
        f"{besides}_latency_s": float(np.median(other)) if other else NAN,
        "samples": len(taken),
        "processes": len(processes),
        "calls_per_sample": processes[0].calls_per_sample,
    }


def _rates(case: Case, measurement: Measurement, ceilings: Ceilings | None) -> dict[str, Any]:
    """What follows from the latency and the exact problem's size."""
    seconds = stats.latency(measurement.processes).estimate
    limit_s = ceilings.limit_s(case.flops, case.min_bytes, case.dtype) if ceilings else None
    return {
        "tflops": case.flops / seconds / 1e12,
        "limit_s": limit_s,
        "share_of_limit": None if limit_s is None else limit_s / seconds,
    }


def _speedup(case: Case, measurement: Measurement, base: Measurement | None) -> dict[str, Any]:
    if case.kernel == case.baseline:
        return {"speedup": 1.0, "speedup_low": 1.0, "speedup_high": 1.0}
    if base is None or base.status != "ok":
        state = "was not measured" if base is None else f"is {base.status}"
        return {"speedup_reason": f"the baseline {case.baseline} {state}"}
    try:
        ratio = stats.paired_speedup(measurement.processes, base.processes)
    except ValueError as error:
        return {"speedup_reason": f"not paired with the baseline {case.baseline}: {error}"}
    return {"speedup": ratio.estimate, "speedup_low": ratio.low, "speedup_high": ratio.high}


def _fitted(value: Any, length: int) -> Any:
    """A column of `length` values: host and warm samples may be fewer than the cold ones beside them."""
    if not isinstance(value, list):
        return value
    return pd.Series(value, dtype=None if len(value) == length else "float64").reindex(range(length)).to_numpy()


def _tidy(columns: Mapping[str, list[Any]]) -> pd.DataFrame:
    """Each column in one type that CSV, Parquet and pandas agree on; missing stays missing, and a count is no float for it."""
    return pd.DataFrame({name: _typed(values) for name, values in columns.items()})


def _typed(values: Iterable[Any]) -> pd.Series[Any]:
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    plain = [None if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)) else value for value in values]
    kinds = {type(value) for value in plain if value is not None}
    if kinds <= {float, int} and kinds != {int}:
        return pd.Series([NAN if value is None else float(value) for value in plain], dtype="float64")
    if kinds == {int}:
        whole: Mapping[bool, Any] = {True: "Int64", False: "int64"}
        return pd.Series(plain, dtype=whole[None in plain])
    if kinds == {bool}:
        return pd.Series(plain, dtype="boolean" if None in plain else "bool")
    return pd.Series([None if value is None else str(value) for value in plain], dtype="string")
