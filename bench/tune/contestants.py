"""In the worker: candidates as kernels of their own, and the clock of a device that is simulated."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kerneldyno.kernels import _tuned, registry

from ..plan import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kerneldyno.kernels.registry import Kernel, Problem, Run, Setup, Trace

    from ..instruments.clock import Clock
    from ..messages import Trial


def entries(trial: Trial, kernels: Mapping[str, Kernel]) -> dict[str, Kernel]:
    """The kernel of each case by its name, built with the choice that is tried and with defaults for all others."""
    return {name: pinned(kernels[tried.kernel], name, msgspec.convert(tried.pin, _tuned.Pin)) for name, tried in trial.entries.items()}


def pinned(kernel: Kernel, name: str, pin: _tuned.Pin) -> Kernel:
    """A kernel under another name, always built with this choice, at whatever length a probe of the gate has."""

    def build(problem: Problem, setup: Setup) -> Run:
        with _tuned.pinned([pin]):
            return kernel.build_run(problem, setup)

    def identified(problem: Problem, setup: Setup, trace: Trace) -> str:
        assert kernel.identified is not None
        with _tuned.pinned([pin]):
            return kernel.identified(problem, setup, trace)

    return replace(kernel, name=name, build_run=build, identified=identified if kernel.identified else None)


def simulated_clock(trial: Trial) -> Clock | None:
    """What the file of --load named in the trial has as `clock`; None for a real device. Raises UsageError where it has none."""
    if not trial.simulated:
        return None
    module = sys.modules.get(f"{registry.PLUGIN_PREFIX}{Path(trial.simulated).stem}")
    clock: Any = getattr(module, "clock", None)
    if clock is None:
        raise UsageError(f"--simulated {trial.simulated}: no file of --load is called so and has a `clock`")
    found: Clock = clock
    return found
