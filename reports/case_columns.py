"""The columns of the results: what the plan and the journal say of each case, as one list per column. Their meanings are in columns.py."""

from __future__ import annotations

from itertools import chain
from statistics import median
from typing import TYPE_CHECKING, Any

from kerneldyno.bench.stats import MIN_PROCESSES

from .timings import ITSELF

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kerneldyno.bench.journal import Run
    from kerneldyno.bench.records import Case, Measurement

    from .timings import Timing

Columns = dict[str, list[Any]]

GATE_PHASES = ("check", "identify", "recheck")
UNMEASURED = "not measured: the run has not ended, or was killed; resume it"
ENDINGS = {
    "finished": "not measured, although the run finished: resume it",
    "interrupted": "not measured: the run was interrupted before it; resume it",
    "budget": "not measured: the time budget was spent before it; resume it",
}
PLANNED = [
    "kernel", "family", "operator", "device", "approximate", "label", "batch", "seq_len", "tokens", "dtype", "direction", "flops",
    "min_bytes", "baseline", "seed", "group",
]  # fmt: skip
COSTS = ["build_s", "build_cache", "prepare_s", "prepare_bytes", "peak_bytes", "peak_source", "leak_bytes", "weight_bytes"]
ENERGY = ["energy_j", "net_energy_j", "power_w", "idle_w"]
ABOUT_ENERGY = ["valid", "updates", "spread", "edge_error", "readings_ratio", "source", "reason"]


def case_columns(run: Run, timed: Mapping[str, Timing]) -> Columns:
    """Every column, with a value or None for each case of the plan in order; `timed` as from `timings`, of the same run."""
    cases = run.cases
    measured = [run.measurements.get(case.id) for case in cases]
    times = [timed.get(case.id) for case in cases]
    return (
        _planned(cases, run)
        | _state(measured, run)
        | _costs(cases, measured)
        | _quality(measured)
        | _latency(times)
        | _sampling(cases, measured, times)
        | _rates(cases, times, run)
        | _speedup(cases, times)
    )


def _attributes(things: Iterable[object | None], names: Iterable[str], prefix: str = "") -> Columns:
    """Attributes of things some of which are not there."""
    listed = list(things)
    return {prefix + name: [getattr(thing, name, None) for thing in listed] for name in names}


def _planned(cases: Sequence[Case], run: Run) -> Columns:
    """What was known before anything was measured, the fields of the problems included."""
    fields = dict.fromkeys(chain.from_iterable(case.problem for case in cases))
    problems = {name: [case.problem.get(name) for case in cases] for name in fields}
    same = {"protocol": [run.manifest.settings.protocol.name] * len(cases), "run": [run.folder] * len(cases)}
    return problems | _attributes(cases, PLANNED) | {"case": [case.id for case in cases]} | same


def _state(measured: Sequence[Measurement | None], run: Run) -> Columns:
    missing = ENDINGS[run.ended.reason] if run.ended else UNMEASURED
    return {
        "status": [one.status if one else "missing" for one in measured],
        "reason": [one.reason if one else missing for one in measured],
        "identity": [one.identity if one else None for one in measured],
        "warnings": ["; ".join(f"{warn.code}: {warn.text}" for warn in one.warnings) or None if one else None for one in measured],
    }


def _costs(cases: Sequence[Case], measured: Sequence[Measurement | None]) -> Columns:
    """What it cost beside time: building, memory, energy; and the state of the device."""
    energies = [one.energy if one else None for one in measured]
    clocks = [one.clocks if one else None for one in measured]
    columns = _attributes(measured, COSTS) | _attributes(energies, ENERGY) | _attributes(energies, ABOUT_ENERGY, "energy_")
    columns["energy_windows"] = [len(energy.windows_j) or None if energy else None for energy in energies]
    columns["energy_per_token_j"] = [
        None if joules is None else joules / case.tokens for case, joules in zip(cases, columns["energy_j"], strict=True)
    ]
    before_and_after = _attributes(clocks, ["before_mhz", "after_mhz"], "clock_")
    return columns | before_and_after | _attributes(clocks, ["temperature_c", "dropped_rounds"])


def _quality(measured: Sequence[Measurement | None]) -> Columns:
    """How right the output is, against float64 and against the exact result."""
    errors = [one.errors if one else None for one in measured]
    distances = [one.distance if one else None for one in measured]
    gates = [[seconds for phase, seconds in one.phases_s.items() if phase in GATE_PHASES] if one else [] for one in measured]
    return {
        "probes": [len(one.probes) or None if one else None for one in measured],
        "probe_max_ratio": [max(one.probes.values(), default=None) if one else None for one in measured],
        "gate_s": [sum(seconds) if seconds else None for seconds in gates],
        **_attributes(errors, ["max_ratio", "rms_ratio", "max_abs", "relative_rms", "tensor"], "error_"),
        "distance_rms": [distance.relative_rms if distance else None for distance in distances],
        **_attributes(distances, ["cosine", "max_abs"], "distance_"),
    }


def _latency(times: Sequence[Timing | None]) -> Columns:
    return {
        "latency_s": [time.latency.estimate if time else None for time in times],
        "latency_low_s": [time.latency.low if time else None for time in times],
        "latency_high_s": [time.latency.high if time else None for time in times],
        "latency_p5_s": [time.p5_s if time else None for time in times],
        "latency_p95_s": [time.p95_s if time else None for time in times],
    }


def _sampling(cases: Sequence[Case], measured: Sequence[Measurement | None], times: Sequence[Timing | None]) -> Columns:
    """How the samples were taken, and those beside the ones that the latency comes from."""
    names = ["interval_kind", "host_latency_s", "cache", "warm_latency_s", "cold_latency_s", "samples", "processes", "calls_per_sample"]
    columns: Columns = {name: [None] * len(cases) for name in names}
    for place, (case, one, time) in enumerate(zip(cases, measured, times, strict=True)):
        if one is None or time is None:
            continue
        processes = [process for process in one.processes if process.samples_s]
        on_gpu = case.device.startswith("cuda")
        cache, besides = ("cold", "warm") if on_gpu else ("warm", "cold")
        other = [*chain(*((process.warm_samples_s if on_gpu else process.cold_samples_s) or () for process in processes))]
        host = [*chain(*(process.host_samples_s or () for process in processes))]
        columns["interval_kind"][place] = "over_processes" if len(processes) >= MIN_PROCESSES else "within_process"
        columns["host_latency_s"][place] = median(host) if host else None
        columns["cache"][place] = cache
        columns[f"{cache}_latency_s"][place] = time.latency.estimate
        columns[f"{besides}_latency_s"][place] = median(other) if other else None
        columns["samples"][place] = sum(len(process.samples_s) for process in processes)
        columns["processes"][place] = len(processes)
        columns["calls_per_sample"][place] = processes[0].calls_per_sample
    return columns


def _rates(cases: Sequence[Case], times: Sequence[Timing | None], run: Run) -> Columns:
    """What follows from the latency and the exact problem's size."""
    names = ("tflops", "limit_s", "share_of_limit")
    columns: Columns = {name: [None] * len(cases) for name in names}
    for place, (case, time) in enumerate(zip(cases, times, strict=True)):
        if time is not None:
            seconds = time.latency.estimate
            limit_s = run.ceilings.limit_s(case.flops, case.min_bytes, case.dtype) if run.ceilings else None
            columns["tflops"][place] = case.flops / seconds / 1e12
            columns["limit_s"][place] = limit_s
            columns["share_of_limit"][place] = None if limit_s is None else limit_s / seconds
    return columns


def _speedup(cases: Sequence[Case], times: Sequence[Timing | None]) -> Columns:
    pairs = list(zip(cases, times, strict=True))
    found = [ITSELF if time and case.kernel == case.baseline else time.speedup if time else None for case, time in pairs]
    return {
        "speedup": [ratio.estimate if ratio else None for ratio in found],
        "speedup_low": [ratio.low if ratio else None for ratio in found],
        "speedup_high": [ratio.high if ratio else None for ratio in found],
        "speedup_reason": [time.reason if time and ratio is None else None for time, ratio in zip(times, found, strict=True)],
    }
