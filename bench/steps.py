"""The steps of one contender outside the rounds: build, check, count memory, warm up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from .contender import Contender
from .gate import identity
from .gate.examine import Gate
from .gate.state import Snapshot
from .gate.truth import Truth
from .instruments.clock import Clock
from .instruments.memory import count
from .pool import Pool
from .records import Warn

WARMUP_WINDOW_S = 0.03


def build(contender: Contender, gate: Gate, clock: Clock, cache: Literal["cold", "warm"]) -> None:
    """Build and call once: compilers do their work at the first call."""
    contender.breaks_before = identity.graph_breaks()
    measurement, weights = contender.measurement, contender.setup.weights
    with gate.building() as changed:
        started = time.perf_counter()
        contender.run = contender.kernel.build(contender.problem, contender.setup)
        built = time.perf_counter()
        contender.build_alone_s = built - started
        inputs = contender.prepared(gate.fresh_inputs())
        prepared = time.perf_counter()
        contender.run(inputs)
        clock.synchronize()
        measurement.build_s = time.perf_counter() - prepared + built - started
    measurement.build_cache = cache
    if changed:
        text = f"its build or first call changed {', '.join(changed)}, for the kernels beside it too: that was put back"
        measurement.warnings.append(Warn("global-state", text))
    if contender.kernel.prepare:
        measurement.prepare_s = prepared - built
        measurement.prepare_bytes = getattr(inputs, "nbytes", None)
    measurement.weight_bytes = int(getattr(contender.run, "weight_bytes", weights.nbytes if weights is not None else 0))


def check_output(contender: Contender, gate: Gate) -> None:
    """Raise WrongOutput unless the kernel is right, and Misconduct unless it behaves."""
    measurement = contender.measurement
    found = gate.examine(contender.kernel, contender.whole, build_s=contender.build_alone_s)
    measurement.errors, measurement.distance = found.errors, found.distance
    measurement.probes, measurement.left_out = found.probes, found.left_out
    contender.standards, contender.symmetric = found.standards, found.symmetric


def identify(contender: Contender, truth: Truth) -> None:
    """Note what was seen to run; raise NotAsNamed when that is not what the kernel's name says."""
    assert contender.run is not None
    given = contender.kernel, contender.problem, contender.setup, contender.run, contender.prepared(truth.inputs)
    contender.measurement.identity = identity.identify(*given, breaks_before=contender.breaks_before)


def count_memory(contender: Contender, truth: Truth) -> None:
    """Peak bytes of one call, and what every call leaves behind; a runtime with an allocator of its own is built again without it."""
    inputs, run, setup = contender.prepared(truth.inputs), contender.run, contender.setup
    assert run is not None
    foreign = setup.device.type in contender.kernel.own_allocator
    if foreign:
        before = Snapshot.now()
        run = contender.kernel.build(contender.problem, replace(setup, arena=False))
        before.restore()  # what a build changes was said when it was built the first time
        if setup.device.type == "cpu":
            run(inputs)  # one-time caches do not count; a CUDA arena keeps what it took, so there the first call is counted
    counted, measurement = count(lambda: run(inputs), setup.device, foreign=foreign), contender.measurement
    measurement.peak_bytes, measurement.peak_source = counted.peak.bytes, counted.peak.source
    measurement.leak_bytes = counted.growth_bytes
    if counted.growth_bytes:
        stays = f"{counted.growth_bytes} bytes of every call stay allocated: a long run ends out of memory"
        measurement.warnings.append(Warn("leak", f"{stays}; look for outputs that are kept, lists that grow, memory never freed"))


def warm_up(contender: Contender, pool: Pool, clock: Clock, stop: Callable[[], bool]) -> None:
    """Keep it busy until it is warm and its windows agree, or its patience is at an end."""
    assert contender.run is not None
    first = contender.slots(pool, pool.take(1))
    contender.call_s = min(clock.time(contender.run, first, cold=False).seconds for _ in range(2))
    window = max(clock.calls_for(contender.call_s), int(WARMUP_WINDOW_S / max(contender.call_s, 1e-9)), 1)
    while not contender.warm.is_finished and not stop():
        inputs = contender.slots(pool, pool.take(window))
        contender.call_s = clock.time(contender.run, inputs, cold=False).seconds
        contender.warm.add(contender.call_s, contender.call_s * window)
        contender.warmup_calls += window
    contender.calls = clock.calls_for(contender.call_s)
