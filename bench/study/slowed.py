"""A plugin for real workers: shipped kernels, each of them twice under two names, and four times slower by a known share."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kerneldyno.bench.study.subjects import SLOWER, SUBJECTS, VARIANTS, planted
from kerneldyno.kernels import registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from kerneldyno.kernels.registry import Device, Kernel, Problem, Run, Setup


def slowed(run: Run, share: float, clock: Callable[[], int] = time.perf_counter_ns) -> Run:
    """`run`, and then this share of the time that the very same call has taken so far, spent busy."""

    @functools.wraps(run)
    def slower(inputs: Any) -> Any:
        began = clock()
        answer = run(inputs)
        now = clock()
        until = now + round((now - began) * share)
        while clock() < until:
            pass
        return answer

    return slower


def variant_of(kernel: Kernel, variant: str, seq_len: int) -> Kernel:
    """A shipped kernel under another name, with everything that it declares, for the problem of the study alone."""

    def build(problem: Problem, setup: Setup) -> Run:
        run = kernel.build_run(problem, setup)
        return slowed(run, SLOWER[variant]) if variant in SLOWER else run

    def refuses(problem: Problem, device: Device) -> str | None:
        if device.kind != "cpu":
            return "the study is for the CPU: a host that waits does not make a GPU slower"
        if problem.shape != (1, seq_len):
            return f"is part of the study with batch 1 and sequence length {seq_len} only"
        return kernel.refuses(problem, device) if kernel.refuses else None

    return replace(kernel, name=planted(kernel.name, variant), family="study", build_run=build, refuses=refuses, source=__file__)


def every_variant() -> dict[str, Kernel]:
    """The variants of all subjects by name."""
    shipped = registry.load()
    found = [variant_of(shipped[name], variant, seq_len) for name, seq_len in SUBJECTS.items() for variant in VARIANTS]
    return {kernel.name: kernel for kernel in found}


globals().update(every_variant())
