"""How it was measured, on what, and with which ceilings: facts of a run in words, each with its unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import units

if TYPE_CHECKING:
    from kerneldyno.bench.journal import Run

Row = Mapping[str, Any]


def described(run: Run, results: Sequence[Row]) -> list[tuple[str, str]]:
    """(what, how) of the measuring itself."""
    settings = run.manifest.settings
    protocol = settings.protocol
    gpu = run.manifest.environment.device != "cpu"
    timer = "CUDA events: device time" if gpu else "the host's monotonic clock (perf_counter) around the calls: wall-clock time"
    cache = "the L2 cache is flushed before each sample (cold); warm samples are a column of their own" if gpu else (
        "warm: two sets of inputs take turns, and small ones stay in the processor's caches between calls"
    )  # fmt: skip
    sources = sorted({row["peak_source"] for row in results if row["peak_source"] and row["peak_bytes"] is not None})
    return [
        ("timer", timer),
        ("cache", cache),
        (
            "order",
            "the kernels of one shape are sampled side by side in one worker process, in rounds of random order: drift hits all alike",
        ),
        (
            "stopping rule",
            f"protocol {protocol.name}: at least {protocol.min_samples} samples and {protocol.min_total_s:g} s, until the median's 95 % "
            f"interval is within ± {protocol.target:.1%}; at most {protocol.cap_s:g} s. "
            f"Warm-up: at least {protocol.warmup_s:g} s, at most {protocol.warmup_cap_s:g} s",
        ),
        (
            "processes",
            f"{units.count(settings.processes, 'worker process', 'worker processes')} per shape; from 3 on, intervals are over processes",
        ),
        (
            "speedup",
            "time of the baseline over time of the kernel, paired round by round; ≈, too close to call, when the interval touches ± 2 %",
        ),
        *_checked(),
        (
            "peak memory",
            "peak bytes allocated on the device during one call above what was alive before it, output included" + _from(sources),
        ),
        (
            "energy",
            "joules per call, gross, while running back to back: a hardware counter from one of its movements to another, in four windows "
            "of at least 5 s (RAPL: 0.5 s), in random order among the kernels of a shape, begun at temperatures within 2 °C; net: less the "
            "idle power before and after. Not valid with fewer than 20 movements in a window, windows more than 5 % apart, over 1 % of the "
            "time throttled, or power readings that come to something else by 10 %. By default windows are taken of the two fastest exact "
            "kernels and the fastest approximate one, at the first shape of each operator, prefill and decode apart; all others have "
            "power only, which is indicative",
        ),
        (
            "limit",
            "the larger of FLOPs / matmul rate and minimum bytes / copy rate, with the rates below, measured at the start of this run",
        ),
        *_ceilings(run),
        *([("command", settings.command)] if settings.command else []),
    ]


def _checked() -> list[tuple[str, str]]:
    """What every kernel went through before it was timed, and after."""
    return [
        (
            "right or wrong",
            "every output is compared with a float64 reference before and after timing (of large problems some rows, of all heads), and in "
            "probes: inputs on which particular mistakes show plainly, lengths that fit no tile, poisoned memory. Error ratio: its error "
            "over the error of the naive formula in the same data type. A kernel that fails is wrong and has no latency",
        ),
        (
            "conduct",
            "inputs are new numbers in every round, and a part of a timed answer is looked at in every leg. What remembers results, works "
            "on after returning, or changes inputs, global state or instruments is invalid; so is a kernel that is not what its name says "
            "(SDPA's backend, ONNX Runtime's nodes, integer products, graph breaks)",
        ),
        (
            "approximate kernels",
            "are checked against what they claim to compute; their distance from the exact result is shown, and they are ranked apart",
        ),
    ]


def machine(run: Run) -> list[tuple[str, str]]:
    """(name, value) of the environment."""
    environment = run.manifest.environment
    facts = [
        ("device", f"{environment.device_name} ({environment.device})"),
        (
            "processor",
            f"{environment.cpu_name}, {units.count(environment.cpu_cores, 'core')}, {units.count(environment.threads, 'thread')} used",
        ),
        ("instruction sets", ", ".join(environment.cpu_features)),
        ("memory", units.quantity(environment.memory_bytes, "B")),
        ("system", environment.os),
        ("Python", environment.python),
        ("packages", ", ".join(f"{name} {version}" for name, version in sorted(environment.versions.items()))),
        ("GPU", ", ".join(f"{name} {value}" for name, value in (environment.gpu or {}).items())),
        ("worker settings", ", ".join(f"{name}={value}" for name, value in environment.worker_settings.items())),
        ("kerneldyno", run.manifest.version + (f", commit {environment.commit}" if environment.commit else "")),
        ("run", f"{run.folder}, created {run.manifest.created}, {units.count(run.sessions, 'session')}, seed {run.manifest.settings.seed}"),
        ("fingerprint", environment.fingerprint),
    ]
    return [(name, value) for name, value in facts if value]


def _ceilings(run: Run) -> list[tuple[str, str]]:
    if run.ceilings is None:
        return [("ceilings", "not measured in this run")]
    rates = [f"matmul {dtype} {units.quantity(rate, 'FLOP/s')}" for dtype, rate in run.ceilings.matmul_flops_per_s.items()]
    said = [*rates, f"copy {units.quantity(run.ceilings.copy_bytes_per_s, 'B/s')} (read plus written)"]
    if run.ceilings.last_level_cache_bytes:
        said.append(f"last-level cache {units.quantity(run.ceilings.last_level_cache_bytes, 'B')}")
    return [("ceilings", ", ".join(said))]


def _from(sources: Sequence[str]) -> str:
    return f"; counted by {units.listed(sources)}" if sources else ""
