"""The whole gate: conduct, the right answer, the same again over poisoned memory, structured probes, awkward lengths."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from kerneldyno.kernels.registry import Device, Kernel, Probe, Problem, Setup

from ..records import Distance, Errors
from . import conduct
from .conduct import Conduct
from .errors import Misconduct, WrongOutput, worst_place
from .poison import LARGE, NAN, poison
from .state import DRAWN_IN_BUILDS, Instruments, Snapshot
from .truth import FLOPS, PROBE_FLOPS, Truth
from .verify import PROBE_SLACK, Standard, Verified, judged, still_judges

PATIENCE_S = 20.0
"""After so many seconds of calls the remaining probes are left out, and said to be."""
QUICK_BUILD_S = 0.3
"""A kernel that builds slower than this is not built anew for the awkward lengths; where all probes are wanted, at one problem."""
DISGUISE_SEED = 1_000_003


@dataclass
class Examined:
    """What the gate found of a kernel that passed."""

    errors: Errors
    distance: Distance | None = None
    probes: dict[str, float] = field(default_factory=dict)
    """Probe -> the error ratio that was reached in it."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Probe -> why it was not made."""
    standards: tuple[Standard, ...] = ()
    """What answers for the two variants of the inputs are held to: timed ones are, too."""
    call_s: float = 0.0


class Gate:
    """Examines kernels at one problem; right answers are computed once, for all of them."""

    def __init__(
        self,
        problem: Problem,
        setup: Setup,
        *,
        seed: int = 0,
        thorough: bool = False,
        known_awkward: Collection[str] = (),
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`known_awkward` names kernels that have been through the awkward lengths elsewhere."""
        self.problem = problem
        self.setup = complete(problem, setup, seed)
        self.seed = seed
        self.thorough = thorough
        self.known_awkward = known_awkward
        self.patience_s = patience_s
        self.device = setup.device
        self.variants = [problem.inputs(seed + i, self.device) for i in range(2)]
        """Two sets of inputs; those of `truths` differ from them where only some rows are compared backward."""
        self.truths = [self._truth(problem, inputs, FLOPS) for inputs in self.variants]
        self.instruments = Instruments()

    @cached_property
    def probes(self) -> list[tuple[Probe, Truth, Setup]]:
        """Every probe with its right answer, which is computed when it is first needed."""
        found = []
        for probe in self.problem.probes(self.truths[0].inputs, self.seed):
            problem = probe.problem or self.problem
            setup = replace(self.setup, calibration=problem.inputs(self.seed + 2, self.device)) if probe.problem else self.setup
            inputs = probe.inputs if probe.problem is None else probe.inputs.map(lambda tensor: tensor.to(self.device))
            found.append((probe, self._truth(problem, inputs, PROBE_FLOPS), setup))
        return found

    @contextmanager
    def building(self) -> Iterator[list[str]]:
        """Around build and first call: what global state they changed is put back, and named in the list afterwards.

        Raises Misconduct when instruments were replaced.
        """
        before, changed = Snapshot.now(), list[str]()
        try:
            yield changed
        finally:
            changed += before.restore(silent=DRAWN_IN_BUILDS)
            self.untouched()

    def untouched(self) -> None:
        """Raise Misconduct when what times and judges was replaced; it is put back in any case."""
        if replaced := self.instruments.restore():
            raise Misconduct(f"replaces functions that time or judge it: {', '.join(replaced[:4])}")
        if not still_judges():
            raise Misconduct("changes what sums and comparisons of tensors give: a planted error is not seen any more")

    def examine(self, kernel: Kernel, call: Callable[[Any], Any], *, build_s: float = 0.0) -> Examined:
        """Put a built kernel through everything; `call` is it as a function of plain inputs.

        Raises WrongOutput or Misconduct, whose message says in which probe, where, and what was expected.
        """
        first, second = self.truths
        poison(self.device, _bytes_of(first), NAN)
        seen = conduct.behaves(call, first.inputs, second.inputs, self.device)
        if kernel.prepare:
            conduct.answered_in_advance(kernel.prepare(self.problem, self.setup, first.inputs), seen.first)
        standards = (Standard.of(kernel, self.setup, first), Standard.of(kernel, self.setup, second))
        verified = self._base(kernel, call, seen, standards)
        found = Examined(verified.errors, verified.distance, standards=standards, call_s=seen.call_s)
        self._probe(kernel, call, found, build_s)
        conduct.forgets(call, self.problem, first.inputs, self.device, seen.call_s, self.seed + DISGUISE_SEED)
        self.untouched()
        return found

    def admit(self, kernel: Kernel) -> Examined:
        """Build a kernel and put it through everything. Raises WrongOutput or Misconduct."""
        started = time.perf_counter()
        with self.building() as changed:
            call = _built(kernel, self.problem, self.setup)
            call(self.variants[0])  # compilers do their work at the first call
        if changed:
            raise Misconduct(f"its build or first call changes global state: {', '.join(changed)}")
        return self.examine(kernel, call, build_s=time.perf_counter() - started)

    def _base(self, kernel: Kernel, call: Callable[[Any], Any], seen: Conduct, standards: tuple[Standard, Standard]) -> Verified:
        """Both answers, and the first question again over two kinds of poisoned memory: the worst of all."""
        first = self.truths[0]
        verified = [judged(seen.first, standards[0], self.setup, approximate=kernel.approximate)]
        self._named("other values", lambda: judged(seen.second, standards[1], self.setup, approximate=kernel.approximate))
        for rubbish, what in ((LARGE, "large numbers"), (NAN, "NaN")):
            poison(self.device, _bytes_of(first), rubbish)
            again = call(first.inputs)
            name = f"called again, with {what} in free memory"
            verified.append(self._named(name, lambda again=again: judged(again, standards[0], self.setup, approximate=kernel.approximate)))
        return max(verified, key=lambda one: one.ratio)

    def _probe(self, kernel: Kernel, call: Callable[[Any], Any], found: Examined, build_s: float) -> None:
        started = time.perf_counter()
        for probe, truth, setup in self.probes:
            if not self.thorough and time.perf_counter() - started > self.patience_s:
                found.left_out[probe.name] = f"the gate had taken {self.patience_s:g} s by then: kerneldyno check makes every probe"
            elif reason := self._left_out(kernel, probe, build_s):
                found.left_out[probe.name] = reason
            elif (ratio := self._one(kernel, call, probe, truth, setup)) is None:
                found.left_out[probe.name] = "the kernel refuses such inputs"
            else:
                found.probes[probe.name] = ratio

    def _left_out(self, kernel: Kernel, probe: Probe, build_s: float) -> str | None:
        """Why a probe is not made with this kernel; None when it is."""
        if probe.problem is None:
            return None
        slow = build_s > QUICK_BUILD_S
        if kernel.name in self.known_awkward and (slow or not self.thorough):
            return "made at another problem of this run"
        if slow and not self.thorough:
            return f"another build takes {build_s:.1f} s: kerneldyno check makes it"
        return kernel.why_not(probe.problem, _described(self.device))

    def _one(self, kernel: Kernel, call: Callable[[Any], Any], probe: Probe, truth: Truth, setup: Setup) -> float | None:
        """The error ratio of one probe; None when the kernel refuses inputs that it may refuse."""
        try:
            answer = (call if probe.problem is None else _built(kernel, probe.problem, setup))(truth.inputs)
        except Exception as error:
            if probe.optional:
                return None
            text = str(error).splitlines() or ["no message"]
            raise WrongOutput(f"{probe.name}: raises {type(error).__name__}: {text[0][:200]}") from error
        standard = Standard.of(kernel, setup, truth, PROBE_SLACK * probe.slack)
        verified = self._named(probe.name, lambda: judged(answer, standard, setup, approximate=kernel.approximate))
        if probe.zeros is not None:
            self._named(probe.name, lambda: _exactly_zero(conduct.parts(answer)[0], probe.zeros))
        return verified.ratio

    def _truth(self, problem: Problem, inputs: Any, flops: dict[str, float]) -> Truth:
        return Truth.of(problem, inputs, self.setup.weights, flops=flops[self.device.type], seed=self.seed)

    def _named(self, name: str, check: Callable[[], Any]) -> Any:
        """What `check` returns; its complaint begins with the name of the probe."""
        try:
            return check()
        except WrongOutput as error:
            raise WrongOutput(f"{name}: {error}") from None


def examine(kernel: Kernel, problem: Problem, setup: Setup, *, seed: int = 0, thorough: bool = False) -> Examined:
    """Build one kernel and put it through the whole gate. Raises WrongOutput or Misconduct."""
    return Gate(problem, setup, seed=seed, thorough=thorough).admit(kernel)


def complete(problem: Problem, setup: Setup, seed: int) -> Setup:
    """The setup with weights and calibration inputs, drawn from seeds of their own where it has none."""
    weights = problem.weights(seed + 3, setup.device) if setup.weights is None else setup.weights
    calibration = problem.inputs(seed + 2, setup.device) if setup.calibration is None else setup.calibration
    return replace(setup, weights=weights, calibration=calibration, seed=seed)


def _built(kernel: Kernel, problem: Problem, setup: Setup) -> Callable[[Any], Any]:
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


def _bytes_of(truth: Truth) -> int:
    shape = truth.problem.output_shape(truth.inputs)
    return shape.numel() * getattr(torch, truth.problem.dtype).itemsize
