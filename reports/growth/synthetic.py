"""Made-up run folders of any size: plausible cases, samples and failures, in the very records and lines that a run writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, cycle, islice, product, repeat
from pathlib import Path
from typing import Any

import numpy as np

from kerneldyno.bench.entries import Attempt, CeilingsFound, GroupDone, Measured, Record, Session, SessionEnd
from kerneldyno.bench.journal import JOURNAL, Journal, encoded
from kerneldyno.bench.manifest import PROTOCOLS, Environment, Manifest, Settings
from kerneldyno.bench.records import Case, Ceilings, Clocks, Distance, Energy, Errors, Measurement, Phase, Process, Warn

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
BATCHES = (1, 4, 16, 64)
DTYPES = ("float32", "bfloat16", "float16")
DIRECTIONS = ("forward", "backward")
HEADS = ((12, 12, 64), (32, 8, 64), (32, 8, 128), (16, 16, 64), (8, 1, 256), (64, 8, 128))
MASKS = ({"causal": False}, {"causal": True}, {"causal": True, "decode": True}, {"causal": False, "padding": True})
WIDTHS = ((768, 3072), (1024, 4096), (2048, 8192), (4096, 14336))
ACTIVATIONS = ("gelu", "relu", "swiglu")
# kernel -> its time next to the baseline's, which stands first
KERNELS = {
    "attention": {
        "sdpa": 1.0, "eager": 2.9, "sdpa_math": 2.2, "compiled": 1.7, "flex": 1.3, "fused": 0.97, "onnxrt": 1.1, "int8": 0.82,
        "pruned": 0.51,
    },
    "feedforward": {"compiled": 1.0, "eager": 1.12, "fused": 0.96, "onnxrt": 0.93, "int8": 0.41, "pruned": 0.53},
    "layer": {"compiled": 1.0, "eager": 1.5, "sdpa": 1.2, "torch": 1.04, "fused": 0.99, "onnxrt": 1.01, "int8": 0.5, "pruned": 0.6},
}  # fmt: skip
APPROXIMATE = ("int8", "pruned")
CEILINGS = Ceilings(
    matmul_flops_per_s={"float32": 1.5e11, "bfloat16": 2.9e11, "float16": 0.9e11}, copy_bytes_per_s=2.2e10,
    last_level_cache_bytes=32 * 2**20, device="cpu",
)  # fmt: skip
PHASES: tuple[Phase, ...] = ("build", "check", "memory", "warmup", "timing", "energy", "recheck")
# what may become of a case: how often, its status and a reason; the rest is ok
FATES = (
    (0.12, "skipped", "runs on cuda only, not on cpu"),
    (0.01, "wrong", "error ratio 5.2 (at most 2) in output"),
    (0.005, "failed", "RuntimeError: could not create a primitive"),
    (0.003, "timeout", "one call took longer than 30 s"),
    (0.003, "invalid", "1.4 × the machine's matmul rate: the measurement cannot be right"),
    (0.009, "missing", None),
)


@dataclass(frozen=True)
class Group:
    """The cases of one problem."""

    cases: list[Case]
    least_s: float
    """Seconds that the baseline takes."""


def write(folder: Path, size: int, seed: int = 0) -> Path:
    """Write a run of `size` cases into a new folder and return it; the same seed writes the same bytes.

    The lines are those that a run writes, but nothing waits for the disk after each. Raises RunFolderError when the
    folder holds anything.
    """
    groups = list(_groups(size))
    manifest = Manifest(
        version="0", created="2026-01-01T00:00:00+00:00", settings=Settings(protocol=PROTOCOLS["default"], command="made up"),
        environment=ENVIRONMENT, cases=[case for group in groups for case in group.cases],
    )  # fmt: skip
    Journal.create(folder, manifest).close()
    with (folder / JOURNAL).open("wb") as file:
        file.writelines(map(encoded, _records(groups, np.random.default_rng(seed))))
    return folder


ENVIRONMENT = Environment(
    device="cpu", device_name="made up", os="Linux", python="3.12.0", versions={"torch": "2.13.0", "onnxruntime": "1.30.0"},
    cpu_name="made up", cpu_cores=2, cpu_features=("avx2",), memory_bytes=2**34, threads=2,
)  # fmt: skip


def _groups(size: int) -> Iterator[Group]:
    """The problems of all operators in turn, lengths first, until there are `size` cases."""
    problems = {operator: _problems(operator) for operator in KERNELS}
    left = size
    for operator in cycle(KERNELS):
        seed, problem = next(problems[operator])
        cases = list(islice((_case(operator, name, problem, seed) for name in KERNELS[operator]), left))
        if not cases:
            return
        yield Group(cases, 1.6 * (CEILINGS.limit_s(cases[0].flops, cases[0].min_bytes, cases[0].dtype) or 0) + 2e-5)
        left -= len(cases)


def _problems(operator: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Seed and problem without end: with another seed it is another case."""
    return ((seed, shape) for seed in count() for shape in _shapes(operator))


def _shapes(operator: str) -> Iterator[dict[str, Any]]:
    """The problems of an operator, as plain values."""
    own: list[dict[str, Any]]
    if operator == "attention":
        names = ("heads", "kv_heads", "head_dim")
        own = [dict(zip(names, heads, strict=True)) | mask for heads in HEADS for mask in MASKS]
    else:
        own = [{"dim": d, "hidden_dim": h, "activation": name, "gated": name == "swiglu"} for d, h in WIDTHS for name in ACTIVATIONS]
    for fields, direction, batch, dtype, length in product(own, DIRECTIONS, BATCHES, DTYPES, LENGTHS):
        shape = {name: value for name, value in fields.items() if name != "decode"} | {
            "dtype": dtype,
            "direction": direction,
            "batch": batch,
        }
        if operator == "attention":
            yield shape | {"q_len": 1 if "decode" in fields else length, "kv_len": length, "bias": "none"}
        else:
            yield shape | {"seq_len": length}


def _case(operator: str, name: str, problem: dict[str, Any], seed: int) -> Case:
    batch, length = problem["batch"], problem.get("seq_len") or problem["kv_len"]
    tokens = batch * problem.get("q_len", length)
    size = 4 if problem["dtype"] == "float32" else 2
    if operator == "attention":
        width = problem["heads"] * problem["head_dim"]
        flops, moved = 4 * tokens * length * width, size * batch * width * (2 * length + 2 * problem["q_len"])
        label = f"{batch}×{problem['heads']}×{length}×{problem['head_dim']}{' causal' * problem['causal']} {problem['dtype']}"
    else:
        flops, moved = 4 * tokens * problem["dim"] * problem["hidden_dim"], size * 2 * problem["dim"] * (tokens + problem["hidden_dim"])
        label = f"{batch}×{length} {problem['dim']}→{problem['hidden_dim']} {problem['activation']} {problem['dtype']}"
    return Case(
        kernel=f"{operator}/{name}", family="sdpa" if name.startswith("sdpa") else name, operator=operator, problem=problem, label=label,
        batch=batch, seq_len=length, tokens=tokens, dtype=problem["dtype"], direction=problem["direction"], device="cpu", seed=seed,
        flops=flops, min_bytes=moved, approximate=name in APPROXIMATE, baseline=f"{operator}/{next(iter(KERNELS[operator]))}",
    )  # fmt: skip


def _records(groups: list[Group], rng: np.random.Generator) -> Iterator[Record]:
    """What happened to the run, in order."""
    yield Session("2026-01-01T00:00:00+00:00")
    yield CeilingsFound(CEILINGS)
    for worker, group in enumerate(groups):
        drift = np.cumsum(0.01 * rng.standard_normal(80))  # of the machine, round by round: all kernels of the group feel it
        for case in group.cases:
            if measurement := _measurement(case, group.least_s, worker, drift, rng):
                if measurement.status != "skipped":
                    yield from map(Attempt, repeat(measurement.case), PHASES)
                yield Measured(measurement)
        yield GroupDone(group=group.cases[0].group, wall_s=27.8, phases_s={"start": 0.1, "build": 3.0, "timing": 24.7})
    yield SessionEnd(reason="finished", wall_s=27.8 * len(groups))


def _measurement(case: Case, least_s: float, worker: int, drift: np.ndarray[Any, Any], rng: np.random.Generator) -> Measurement | None:
    """What became of a case; None when nothing did."""
    luck = rng.random()
    for share, status, reason in FATES:
        if luck < share:
            return None if status == "missing" else Measurement(case=case.id, status=status, reason=reason)  # type: ignore[arg-type]
        luck -= share
    short = case.kernel.partition("/")[2]
    relative = KERNELS[case.operator][short] * (1 + (0.5 if short == "compiled" else 0.1) / (1 + case.tokens / 300))
    error = (3e-7 if case.dtype == "float32" else 4e-3) * float(1 + rng.random())
    return Measurement(
        case=case.id, status="ok", build_s=float(rng.random()), build_cache="cold", weight_bytes=0, leak_bytes=0,
        processes=[_process(relative * least_s, worker, drift, rng)],
        peak_bytes=case.tokens * 2048 + (case.flops // 64 if short in {"eager", "sdpa_math"} else 0), peak_source="memray",
        energy=Energy(reason="not measured: this machine exposes no energy counter (RAPL)"), clocks=Clocks(),
        identity="1 compiled region, no graph break" if short == "compiled" else None,
        probes=dict.fromkeys(PROBES, 1.0),
        errors=Errors(max_ratio=0.6, rms_ratio=0.4, max_abs=error * 3, relative_rms=error),
        distance=Distance(relative_rms=0.013, cosine=0.9999, max_abs=0.1) if case.approximate else None,
        warnings=[Warn("unstable", "the warm-up windows did not settle: run longer")] if rng.random() < 0.05 else [],
        phases_s=dict.fromkeys(PHASES, 0.5),
    )  # fmt: skip


PROBES = ("the last visible key decides", "weights sum to 1 (values of 1)", "scores that overflow without their maximum taken off")


def _process(seconds: float, worker: int, drift: np.ndarray[Any, Any], rng: np.random.Generator) -> Process:
    """Samples of one worker: in rounds that the group shares, several a round when calls are quick, some far too slow."""
    samples = int(rng.integers(20, 61))
    per_round = 5 if seconds < 0.01 else 1
    rounds = np.arange(samples) // per_round
    noise = 0.01 * rng.standard_normal(samples) + 0.2 * (rng.random(samples) < 0.02)
    cold = seconds * (1.2 + 0.05 * rng.random(10))
    return Process(
        worker=worker, samples_s=(seconds * np.exp(drift[rounds] + noise)).tolist(), rounds=rounds.tolist(), cold_samples_s=cold.tolist(),
        calls_per_sample=3, warmup_calls=20, warmup_s=0.2,
    )  # fmt: skip
