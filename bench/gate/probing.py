"""The structured probes of one problem: their inputs are made anew for every kernel, their right answers computed once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from kerneldyno.kernels.registry import Device, Kernel, Probe, Problem, Setup, kind_of

from ..privacy import scrub
from . import conduct
from .errors import Misconduct, WrongOutput, named, worst_place
from .state import DRAWN_IN_BUILDS, Snapshot
from .truth import PROBE_FLOPS, Truth
from .verify import PROBE_SLACK, Standard, judged, parts

PATIENCE_S = 20.0
"""After so many seconds of calls the remaining probes are left out, and said to be."""
QUICK_BUILD_S = 0.3
"""A kernel that builds slower than this is not built anew for the awkward lengths, unless asked for thoroughness."""
ONE_OF_THEM = "129"
"""The awkward length at which a slow kernel is built for every kind of problem; the others it sees once."""
FATAL: tuple[type[BaseException], ...] = (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)
"""These are no refusals and no wrong answers: they end the case as what they are."""


@dataclass
class Probed:
    """What came of the probes of one kernel."""

    ratios: dict[str, float] = field(default_factory=dict)
    """Probe -> the error ratio that was reached in it."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Probe -> why it was not made."""


class Prober:
    """Puts kernels through the probes of one problem."""

    def __init__(self, problem: Problem, setup: Setup, inputs: Any, *, thorough: bool, known: Collection[str], patience_s: float) -> None:
        self.problem = problem
        self.setup = setup
        self.inputs = inputs
        self.thorough = thorough
        self.known = known
        """`kind_of` kernels and problems that went through the awkward lengths already."""
        self.patience_s = patience_s
        self.rows_seed = int.from_bytes(os.urandom(4), "little")
        self._answers: dict[str, tuple[dict[str, torch.Tensor], dict[str, tuple[float, float]]]] = {}

    def forget(self) -> None:
        """Let go of the right answers: nobody is to be probed any more."""
        self._answers = {}

    def probe(self, kernel: Kernel, call: Callable[[Any], Any], build_s: float) -> Probed:
        """Make every probe that is due. Raises WrongOutput or Misconduct, which name it."""
        found, spent_s = Probed(), 0.0
        for probe in self.problem.probes(self.inputs, self.setup.seed):
            if not self.thorough and spent_s > self.patience_s:
                found.left_out[probe.name] = f"calls had taken {self.patience_s:g} s by then: kerneldyno check makes every probe"
            elif reason := self._why_not(kernel, probe, build_s):
                found.left_out[probe.name] = reason
            else:
                truth = self._truth(probe)
                started = time.perf_counter()
                with named(probe.name):
                    answer = self._answer(kernel, call, probe, truth)
                    spent_s += time.perf_counter() - started
                    if answer is None:
                        found.left_out[probe.name] = "the kernel refuses such inputs"
                    else:
                        found.ratios[probe.name] = self._judged(kernel, probe, truth, answer)
        return found

    def _why_not(self, kernel: Kernel, probe: Probe, build_s: float) -> str | None:
        """Why a probe is not made with this kernel; None when it is."""
        if probe.problem is None:
            return None
        if kind_of(kernel.name, self.problem.fields()) in self.known:
            return "made at another problem of this kind"
        if build_s > QUICK_BUILD_S:
            if not self.thorough:
                return f"another build takes {build_s:.1f} s: kerneldyno check makes it"
            if any(kind.startswith(f"{kernel.name} ") for kind in self.known) and ONE_OF_THEM not in probe.name:
                return f"another build takes {build_s:.1f} s: made at another problem"
        return kernel.why_not(probe.problem, _described(self.setup.device))

    def _truth(self, probe: Probe) -> Truth:
        """The right answer, computed when it is first asked for; inputs are those of now."""
        problem = probe.problem or self.problem
        inputs = probe.inputs.map(lambda tensor: tensor.to(self.setup.device)) if probe.problem else probe.inputs
        truth = Truth.of(problem, inputs, self.setup.weights, flops=PROBE_FLOPS[self.setup.device.type], seed=self.rows_seed)
        if probe.name not in self._answers:
            self._answers[probe.name] = (truth.expected, truth.yardstick)
        return Truth(truth.problem, truth.inputs, truth.weights, *self._answers[probe.name])

    def _setup(self, probe: Probe) -> Setup:
        if probe.problem is None:
            return self.setup
        return replace(self.setup, calibration=probe.problem.inputs(self.setup.seed + 2, self.setup.device))

    def _answer(self, kernel: Kernel, call: Callable[[Any], Any], probe: Probe, truth: Truth) -> Any:
        """What the kernel says; None when it refuses inputs that it may refuse."""
        before, state = truth.inputs.map(torch.clone), Snapshot.now()
        try:
            answer = (call if probe.problem is None else built(kernel, probe.problem, self._setup(probe)))(truth.inputs)
            conduct.synchronize(self.setup.device)
        except FATAL:
            raise
        except Exception as error:
            if probe.optional:
                return None
            text = str(error).splitlines() or ["no message"]
            raise WrongOutput(f"raises {type(error).__name__}: {scrub(text[0])[:200]}") from error
        finally:
            changed = state.restore(silent=DRAWN_IN_BUILDS)
        if changed and probe.problem is None:  # what a build changes was said when the kernel was built first
            raise Misconduct(f"changes global state: {', '.join(changed)}")
        conduct.inputs_unchanged(truth.inputs, before)
        return answer

    def _judged(self, kernel: Kernel, probe: Probe, truth: Truth, answer: Any) -> float:
        standard = Standard.of(kernel, self._setup(probe), truth, PROBE_SLACK * probe.slack)
        verified = judged(answer, standard, self.setup, approximate=kernel.approximate)
        if probe.zeros is not None:
            _exactly_zero(parts(answer)[0], probe.zeros)
        return verified.ratio


def built(kernel: Kernel, problem: Problem, setup: Setup) -> Callable[[Any], Any]:
    """The kernel as a function of plain inputs."""
    run = kernel.build(problem, setup)
    return lambda inputs: run(kernel.prepare(problem, setup, inputs) if kernel.prepare else inputs)


def _exactly_zero(output: torch.Tensor, zeros: torch.Tensor) -> None:
    touched = (output != 0) & zeros
    if bool(touched.any()):
        place = worst_place(
            torch.where(touched, output, 0), torch.zeros((), dtype=torch.float64, device=output.device).expand(output.shape)
        )
        raise WrongOutput(f"the output must be exactly 0 at {place}")


def _described(device: torch.device) -> Device:
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return Device(device.type, device.index or 0, capability=capability)
