"""Does the memory column tell what was allocated, and does it see what leaks? Known amounts, planted in right kernels."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import chain

import torch

from kerneldyno.bench import plan, steps
from kerneldyno.bench.contender import Contender
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.manifest import PROTOCOLS
from kerneldyno.bench.records import Measurement
from kerneldyno.bench.stopping import StoppingRule, WarmUp
from kerneldyno.kernels import registry
from kerneldyno.kernels.registry import Device, Kernel, Problem, Setup

from . import allocating
from .allocating import PROBLEM, Known, spelled
from .findings import Control, Finding, Found
from .library import NoLibrary

SECTION = "memory"
TOLERANCE = 0.02
TOLERANCE_BYTES = 64 * 2**10
"""A counted and a planted peak may differ by this or by `TOLERANCE`, whichever is larger …"""
TOLERANCE_LEAK_BYTES = 256
"""… and what stays per call by this, since what SDPA itself takes does not stay."""
SHIPPED = (
    "attention/sdpa",
    "attention/eager",
    "attention/onnxrt",
    "attention/compiled",
    "attention/int8",
    "attention/pruned",
    "attention/fused",
)


def findings(short: bool) -> Iterator[Found]:
    """Every known allocation and leak on every device here; in short, one of each kind, on the CPU and the first GPU alike."""
    gc.collect()
    gc.freeze()  # as in a worker: collections need not look at what is alive now
    for device in (torch.device("cpu"), *([torch.device("cuda:0")] if torch.cuda.is_available() else [])):
        for known in known_on(device):
            if known.short or not short:
                yield from _tried(known, device)
        for name in SHIPPED[: 2 if short else None]:
            yield from _shipped(name, device)


def known_on(device: torch.device) -> Iterator[Known]:
    """What can be planted on a device."""
    everywhere = chain(allocating.in_torch(), allocating.in_onnxruntime(device))
    only = allocating.outside_torch() if device.type == "cuda" else chain(allocating.in_numpy(), allocating.in_a_library())
    return chain(everywhere, only)


def counted(kernel: Kernel, device: torch.device, problem: Problem = PROBLEM) -> Measurement:
    """What the harness's own step counts for a kernel, built and called once before. Raises what the kernel raises."""
    (group,) = plan.make([kernel], [problem], Device(device.type), seed=0).groups
    weights = problem.weights(3, device)
    setup = Setup(device, weights, problem.inputs(2, device))
    contender = Contender(
        index=0,
        case=group.cases[0],
        kernel=kernel,
        problem=problem,
        setup=setup,
        measurement=Measurement(case=group.cases[0].id, status="ok"),
        rule=StoppingRule(PROTOCOLS["smoke"]),
        warm=WarmUp(PROTOCOLS["smoke"]),
    )
    truth = Truth(problem, problem.inputs(0, device), weights)
    contender.run = kernel.build(problem, setup)
    contender.whole(truth.inputs)  # one-time caches do not count
    steps.count_memory(contender, truth)
    return contender.measurement


def agrees(found: int | None, planted: int, slack_bytes: int = TOLERANCE_BYTES) -> bool:
    """Whether a count is what was planted."""
    return found is not None and abs(found - planted) <= max(TOLERANCE * planted, slack_bytes)


def _tried(known: Known, device: torch.device) -> Iterator[Found]:
    """The count of a known peak, and of what stays: a leak that must be seen, or a control that must not be called one."""
    measured, why = None, known.kernel.why_not(PROBLEM, Device(device.type))
    try:
        known.needs()
        if why is None:
            with torch.no_grad():
                measured = counted(known.kernel, device)
            why = measured.peak_source
    except (NoLibrary, MemoryError, OSError) as error:
        why = str(error)
    if measured is None or measured.peak_bytes is None:
        yield Finding(section=SECTION, plant=known.plant, where=str(device), caught=None, must=known.must, said=why or "")
        return
    said = f"counted {spelled_or_none(measured.peak_bytes)} at the peak by {measured.peak_source}"
    peak = agrees(measured.peak_bytes, known.peak_bytes)
    yield Finding(section=SECTION, plant=known.plant, where=str(device), caught=peak, must=known.must, said=said)
    stays = f"counted {spelled_or_none(measured.leak_bytes)} per call that stay"
    if known.leak_bytes:
        seen = agrees(measured.leak_bytes, known.leak_bytes, TOLERANCE_LEAK_BYTES)
        yield Finding(section=SECTION, plant=f"leak: {known.plant}", where=str(device), caught=seen, must=known.must, said=stays)
    else:
        alarm = None if measured.leak_bytes is None else measured.leak_bytes > 0
        yield Control(section=SECTION, what=f"no leak: {known.plant}", where=str(device), alarm=alarm, said=stays)


def _shipped(name: str, device: torch.device) -> Iterator[Control]:
    """A kernel of the project's, which must not be called leaking."""
    kernel = registry.load()[name]
    refused = kernel.why_not(PROBLEM, Device(device.type))
    if refused:
        yield Control(section=SECTION, what=f"no leak: {name}", where=str(device), alarm=None, said=refused)
        return
    with torch.no_grad():
        leak = counted(kernel, device).leak_bytes
    said = f"counted {spelled_or_none(leak)} per call that stay"
    yield Control(section=SECTION, what=f"no leak: {name}", where=str(device), alarm=None if leak is None else leak > 0, said=said)


def spelled_or_none(size: int | None) -> str:
    """Bytes for people; None was not measured."""
    return "nothing (not measured)" if size is None else spelled(size)
