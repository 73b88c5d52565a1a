"""The whole gate: conduct, the right answer, the same again over poisoned memory, structured probes, awkward lengths."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from kerneldyno.kernels.registry import Kernel, Problem, Setup

from ..records import Distance, Errors
from . import conduct, forgetting
from .conduct import Conduct
from .errors import Misconduct, named
from .poison import LARGE, NAN, poison
from .probing import PATIENCE_S, Prober, built
from .state import DRAWN_IN_BUILDS, Instruments, Snapshot
from .truth import FLOPS, Truth
from .verify import Standard, Verified, judged, still_judges

DISGUISE_SEED = 1_000_003
COMMUTES = 1e-6
"""A claim whose answer for disguised inputs differs by more than this share, once it is turned back, does not keep the symmetry."""


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
    symmetric: bool = True
    """False for an approximation that disguised inputs change: its timed answers have no known right one."""


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
        rechecked: bool = False,
    ) -> None:
        """`known_awkward`: kinds (see `registry.kind_of`) that have been through the awkward lengths elsewhere.

        `rechecked`: after its timing somebody asks whether a kernel `forgets`; then it need not be asked before.
        """
        self.rechecked = rechecked
        self.problem = problem
        self.setup = complete(problem, setup, seed)
        self.seed = seed
        self.device = setup.device
        self.rows_seed = int.from_bytes(os.urandom(4), "little")  # nobody can know which rows will be compared
        drawn = [problem.inputs(seed + i, self.device) for i in range(2)]
        self.truths = [self._truth(inputs) for inputs in drawn]
        first = self.truths[0].inputs
        self.prober = Prober(problem, self.setup, first, thorough=thorough, known=known_awkward, patience_s=patience_s)
        shared = {what: getattr(self.setup, what) for what in ("weights", "calibration")}
        self._kept = {what: None if mine is None else mine.map(torch.clone) for what, mine in shared.items()}
        self.instruments = Instruments()

    @property
    def variants(self) -> list[Any]:
        """The two sets of inputs; backward, where only some rows are compared, the output's gradient is 0 in all others."""
        return [truth.inputs for truth in self.truths]

    @contextmanager
    def building(self) -> Iterator[list[str]]:
        """Around build and first call: what global state they changed is put back, and named in the list afterwards.

        Raises Misconduct when instruments were replaced.
        """
        before, changed, busy_s = Snapshot.now(), list[str](), conduct.busy_others_s(self.device)
        try:
            yield changed
        finally:
            changed += before.restore(silent=DRAWN_IN_BUILDS)
            replaced = self.instruments.restore()
        self._complain(replaced)
        self._own_things_unchanged()
        conduct.left_behind(busy_s, self.device)

    def untouched(self) -> None:
        """Raise Misconduct when what times and judges was replaced; it is put back in any case."""
        self._complain(self.instruments.restore())

    def _complain(self, replaced: list[str]) -> None:
        if replaced:
            raise Misconduct(f"replaces functions that time or judge it: {', '.join(replaced[:4])}")
        if not still_judges():
            raise Misconduct("changes what sums and comparisons of tensors give: a planted error is not seen any more")

    def examine(self, kernel: Kernel, call: Callable[[Any], Any], *, build_s: float = 0.0) -> Examined:
        """Put a built kernel through everything; `call` is it as a function of plain inputs.

        Raises WrongOutput or Misconduct, whose message says in which probe, where, and what was expected.
        """
        first, second = self.truths
        poison(first.problem, self.device, _numbers_in(first), NAN)
        seen = conduct.behaves(call, first.inputs, second.inputs, self.device, differ=self._answers_differ)
        if kernel.prepare:
            conduct.answered_in_advance(kernel.prepare(self.problem, self.setup, first.inputs), seen.first)
        standards = (Standard.of(kernel, self.setup, first), Standard.of(kernel, self.setup, second))
        verified = self._base(kernel, call, seen, standards)
        probed = self.prober.probe(kernel, call, build_s)
        if not self.rechecked:
            self.forgets(call, seen.call_s)
        self._own_things_unchanged()
        self.untouched()
        symmetric = not kernel.approximate or self._keeps_symmetry(kernel, standards[0])
        return Examined(verified.errors, verified.distance, probed.ratios, probed.left_out, standards, symmetric)

    def forgets(self, call: Callable[[Any], Any], call_s: float) -> None:
        """Raise Misconduct when results are remembered by value."""
        forgetting.forgets(call, self.problem, self.truths[0].inputs, self.device, call_s, self.seed + DISGUISE_SEED)

    def _own_things_unchanged(self) -> None:
        """Raise Misconduct when weights or calibration inputs, which all kernels share, were changed; they are put back."""
        changed = []
        for what, kept in self._kept.items():
            mine = getattr(self.setup, what)
            if kept is not None and any(not torch.equal(t, kept.tensors()[name]) for name, t in mine.tensors().items()):
                conduct.copy_into(mine, kept)
                changed.append(what)
        if changed:
            raise Misconduct(f"changes the {' and '.join(changed)} in place, which it shares with other kernels: let it copy them")

    def admit(self, kernel: Kernel) -> Examined:
        """Build a kernel and put it through everything. Raises WrongOutput or Misconduct, also for what its build changes."""
        started = time.perf_counter()
        with self.building() as changed:
            call = built(kernel, self.problem, self.setup)
            build_s = time.perf_counter() - started
            call(self.fresh_inputs())  # compilers do their work at the first call
        if changed:
            raise Misconduct(f"its build or first call changes global state: {', '.join(changed)}")
        return self.examine(kernel, call, build_s=build_s)

    def standard(self, kernel: Kernel, inputs: Any) -> Standard:
        """What answers for other inputs than the two variants are held to."""
        return Standard.of(kernel, self.setup, self._truth(inputs))

    def _truth(self, inputs: Any) -> Truth:
        return Truth.of(self.problem, inputs, self.setup.weights, flops=FLOPS[self.device.type], seed=self.rows_seed)

    def fresh_inputs(self) -> Any:
        """A copy of the first variant, for calls that nobody watches yet."""
        return self.variants[0].map(torch.clone)

    def _base(self, kernel: Kernel, call: Callable[[Any], Any], seen: Conduct, standards: tuple[Standard, Standard]) -> Verified:
        """Both answers, and the first question again over two kinds of poisoned memory: the worst of all."""
        first = self.truths[0]
        verified = [judged(seen.first, standards[0], self.setup, approximate=kernel.approximate)]
        with named("other values"):
            judged(seen.second, standards[1], self.setup, approximate=kernel.approximate)
        for rubbish, what in ((LARGE, "large numbers"), (NAN, "NaN")):
            poison(first.problem, self.device, _numbers_in(first), rubbish)
            before = first.inputs.map(torch.clone)
            again = call(first.inputs)
            conduct.inputs_unchanged(first.inputs, before)
            with named(f"called again, with {what} in free memory"):
                verified.append(judged(again, standards[0], self.setup, approximate=kernel.approximate))
        return max(verified, key=lambda one: one.ratio)

    def _answers_differ(self) -> bool:
        """Whether the right answers for the two variants do: a dead network gives its bias for both."""
        first, second = (truth.expected for truth in self.truths)
        return any(not torch.equal(first[name], second[name]) for name in first)

    def _keeps_symmetry(self, kernel: Kernel, standard: Standard) -> bool:
        """Whether what an approximate kernel claims for disguised inputs, turned back, is what it claims for the plain ones."""
        truth = self.truths[0]
        clothed, back = self.problem.disguised(truth.inputs, 1)
        assert kernel.claim is not None
        claimed = kernel.claim(self.problem, self.setup, clothed)
        plain = truth.named(back(claimed))["output"].double()
        scale = float(standard.expected["output"].abs().max()) or 1.0
        return float((plain - standard.expected["output"]).abs().max()) <= COMMUTES * scale


def examine(kernel: Kernel, problem: Problem, setup: Setup, *, seed: int = 0, thorough: bool = False) -> Examined:
    """Build one kernel and put it through the whole gate. Raises WrongOutput or Misconduct."""
    return Gate(problem, setup, seed=seed, thorough=thorough).admit(kernel)


def complete(problem: Problem, setup: Setup, seed: int) -> Setup:
    """The setup with weights and calibration inputs, drawn from seeds of their own where it has none."""
    weights = problem.weights(seed + 3, setup.device) if setup.weights is None else setup.weights
    calibration = problem.inputs(seed + 2, setup.device) if setup.calibration is None else setup.calibration
    return replace(setup, weights=weights, calibration=calibration, seed=seed)


def _numbers_in(truth: Truth) -> int:
    return truth.problem.output_shape(truth.inputs).numel()
