"""Is the output right? Error ratios against float64, and the accidents that make a wrong kernel look fast.

The error ratio is the candidate's error divided by the error of the textbook formula in the same dtype, both against
float64: fixed tolerances pass broken attention over long contexts, where outputs are small.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from kerneldyno.kernels.registry import Gradients, Kernel, Problem, Run, Setup

from .records import Distance, Errors

# (largest error, rms error) relative to the textbook formula's own; from 150 random problems of correct kernels
LIMITS = {"float32": (8.0, 3.0), "bfloat16": (2.0, 1.5), "float16": (2.0, 1.5)}
# An approximate kernel may miss what it claims by a share of the distance between its claim and the exact result: where a
# value lies between two quantization steps, another order of summation decides, and a chain of quantized products passes
# that on. A layer of six int8 products was 0.19 of that distance away from its claim; one that computes the exact result
# in secret is 1.0 away, and the limit comes to 0.375.
CLAIM_SLACK_RMS = 0.25
CLAIM_SLACK_MAX = 0.5


class WrongOutput(Exception):
    """The output is not what the problem defines; the message says how it differs."""


@dataclass
class Verified:
    """What the check of one kernel on one set of inputs found."""

    errors: Errors
    distance: Distance | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass
class Truth:
    """The right answer for one set of inputs, and the yardstick: computed once, shared by the kernels of a group."""

    problem: Problem
    inputs: Any
    weights: Any
    _expected: dict[str, torch.Tensor] | None = None
    _yardstick: dict[str, tuple[float, float]] | None = None

    @property
    def expected(self) -> dict[str, torch.Tensor]:
        """Float64 output (and gradients), by name."""
        if self._expected is None:
            self._expected = self._compute(naive=False)
        return self._expected

    @property
    def yardstick(self) -> dict[str, tuple[float, float]]:
        """(largest, rms) error of the textbook formula, by name; at least half an ulp at the tensor's scale."""
        if self._yardstick is None:
            naive = self._compute(naive=True)
            # a gradient that is exactly 0 (one key: nothing to choose) has the others' scale for its rounding errors
            widest = max(float(right.abs().max()) for right in self.expected.values())
            self._yardstick = {name: self._naive_error(naive[name], right, widest) for name, right in self.expected.items()}
        return self._yardstick

    def _compute(self, *, naive: bool) -> dict[str, torch.Tensor]:
        if self.problem.direction == "backward":
            return named(self.problem.gradients(self.inputs, self.weights, naive=naive), self.problem, self.inputs)
        formula = self.problem.naive if naive else self.problem.reference
        return named(formula(self.inputs, self.weights), self.problem, self.inputs)

    def _naive_error(self, naive: torch.Tensor, right: torch.Tensor, widest: float) -> tuple[float, float]:
        half_ulp = 0.5 * torch.finfo(getattr(torch, self.problem.dtype)).eps
        error = naive.double() - right
        largest, rms = float(right.abs().max()), _rms(right)
        floors = (half_ulp * (largest or widest), half_ulp * (rms or widest), torch.finfo(torch.float64).tiny)
        return max(float(error.abs().max()), floors[0], floors[2]), max(_rms(error), floors[1], floors[2])


def named(output: Any, problem: Problem, inputs: Any) -> dict[str, torch.Tensor]:
    """The tensors of a kernel's answer by name ("output", "grad q", …), undefined rows left out."""
    if isinstance(output, Gradients):
        gradients = {f"grad {name}": tensor for name, tensor in output.by_name.items()}
        return {"output": problem.compared(output.output, inputs), **gradients}
    return {"output": problem.compared(output, inputs)}


def well_formed(output: Any, truth: Truth, device: torch.device) -> None:
    """Raise WrongOutput unless the answer has the right type, shape, dtype, device, and is finite."""
    problem = truth.problem
    tensors = [output.output, *output.by_name.values()] if isinstance(output, Gradients) else [output]
    if problem.direction == "backward" and not isinstance(output, Gradients):
        raise WrongOutput(f"returned {type(output).__name__}, not Gradients, in direction backward")
    for tensor in tensors:
        if not isinstance(tensor, torch.Tensor):
            raise WrongOutput(f"returned {type(tensor).__name__}, not a tensor")
        if tensor.device.type != device.type:
            raise WrongOutput(f"the output lies on {tensor.device}, not on {device}")
        if tensor.dtype != getattr(torch, problem.dtype):
            raise WrongOutput(f"the output is {str(tensor.dtype).removeprefix('torch.')}, not {problem.dtype}")
    got = named(output, problem, truth.inputs)
    for name, right in truth.expected.items():
        if name not in got:
            raise WrongOutput(f"{name} is missing")
        if got[name].shape != right.shape:
            raise WrongOutput(f"{name} has shape {tuple(got[name].shape)}, not {tuple(right.shape)}")
        if not bool(torch.isfinite(got[name]).all()):
            wrong = int((~torch.isfinite(got[name])).sum())
            raise WrongOutput(f"{name} holds {wrong} values that are NaN or infinite")


def verify(output: Any, kernel: Kernel, setup: Setup, truth: Truth) -> Verified:
    """Compare one answer with float64; raise WrongOutput when it is not right.

    An approximate kernel is compared with what it claims to compute; its distance from the exact result is returned.
    """
    well_formed(output, truth, setup.device)
    got = named(output, truth.problem, truth.inputs)
    expected = truth.expected
    yardstick = truth.yardstick
    distance = None
    limits = LIMITS[truth.problem.dtype]
    if kernel.approximate:
        assert kernel.claim is not None
        claimed = named(kernel.claim(truth.problem, setup, truth.inputs), truth.problem, truth.inputs)
        distance = _distance(got["output"], expected["output"])
        yardstick = {name: _claim_yardstick(yardstick[name], claimed[name], expected[name]) for name in claimed}
        expected = claimed
        limits = LIMITS["bfloat16"]
    errors = max((_errors(name, got[name], expected[name], yardstick[name]) for name in expected), key=lambda e: e.max_ratio / limits[0])
    beyond = max((_errors(name, got[name], expected[name], yardstick[name]) for name in expected), key=lambda e: e.rms_ratio)
    against = "what it claims to compute" if kernel.approximate else "float64"
    for worst, what, ratio, limit in ((errors, "largest", errors.max_ratio, limits[0]), (beyond, "rms", beyond.rms_ratio, limits[1])):
        if not ratio <= limit:
            raise WrongOutput(
                f"{worst.tensor} is off from {against}: {what} error is {ratio:.3g} times that of the plain formula "
                f"(limit {limit:g}), relative rms {worst.relative_rms:.2g}"
            )
    return Verified(errors=errors, distance=distance)


def behaves(run: Run, truth: Truth, other: Any) -> Any:
    """Run a kernel on two sets of inputs and return its first answer; raise WrongOutput for what benchmarks fall for.

    Caught here: inputs changed in place, an output that shares memory with an input or with the previous output,
    results memoized by data pointer, global state left changed.
    """
    inputs = truth.inputs
    before = inputs.map(torch.clone)
    state = _global_state()
    first = run(inputs)
    changed = [name for name, value in _global_state().items() if state[name] != value]
    if changed:
        raise WrongOutput(f"changes global state: {', '.join(changed)}")
    for name, tensor in inputs.tensors().items():
        if not torch.equal(tensor, before.tensors()[name]):
            raise WrongOutput(f"changes its input {name} in place")
    answers = _tensors(first)
    if not all(isinstance(answer, torch.Tensor) for answer in answers):
        return first  # what is wrong with it, `verify` says
    storages = {tensor.untyped_storage().data_ptr() for tensor in inputs.tensors().values() if tensor.numel()}
    if any(a.untyped_storage().data_ptr() in storages for a in answers):
        raise WrongOutput("returns memory of its inputs")
    kept = [answer.clone() for answer in answers]
    _copy_into(inputs, other)
    try:
        second = _tensors(run(inputs))
    finally:
        _copy_into(inputs, before)
    pairs = list(zip(answers, second, kept, strict=True))
    if any(a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() for a, b, _ in pairs):
        raise WrongOutput("returns the same buffer in two calls: the second overwrites the first result")
    if any(not torch.equal(a, c) and bool(torch.isfinite(c).all()) for a, _, c in pairs):
        raise WrongOutput("changes a result that it has returned before")
    if all(torch.equal(a, b) for a, b, _ in pairs) and pairs and bool(torch.isfinite(pairs[0][0]).all()):
        raise WrongOutput("returns the same result for other values at the same address: results are memoized, or inputs ignored")
    return first


def _tensors(answer: Any) -> list[Any]:
    return [answer.output, *answer.by_name.values()] if isinstance(answer, Gradients) else [answer]


def _copy_into(target: Any, source: Any) -> None:
    for name, tensor in target.tensors().items():
        tensor.copy_(source.tensors()[name])


def _global_state() -> dict[str, Any]:
    return {
        "the default dtype": torch.get_default_dtype(),
        "the thread count": torch.get_num_threads(),
        "gradient mode": torch.is_grad_enabled(),
        "the float32 matmul precision": torch.get_float32_matmul_precision(),
        "deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "the random state": torch.get_rng_state().numpy().tobytes(),
    }


def _errors(name: str, got: torch.Tensor, right: torch.Tensor, yardstick: tuple[float, float]) -> Errors:
    error = got.double() - right
    largest, rms = float(error.abs().max()), _rms(error)
    scale = _rms(right)
    return Errors(
        max_ratio=largest / yardstick[0],
        rms_ratio=rms / yardstick[1],
        max_abs=largest,
        relative_rms=rms / scale if scale else 0.0,
        tensor=name,
    )


def _claim_yardstick(naive: tuple[float, float], claimed: torch.Tensor, exact: torch.Tensor) -> tuple[float, float]:
    gap = claimed - exact
    return naive[0] + CLAIM_SLACK_MAX * float(gap.abs().max()), naive[1] + CLAIM_SLACK_RMS * _rms(gap)


def _distance(got: torch.Tensor, exact: torch.Tensor) -> Distance:
    """How far an approximate output is from the exact one: relative rms, cosine and the largest error."""
    approximate = got.double()
    error = approximate - exact
    scale = _rms(exact)
    norms = float(approximate.norm() * exact.norm())
    return Distance(
        relative_rms=_rms(error) / scale if scale else 0.0,
        cosine=float((approximate * exact).sum()) / norms if norms else 0.0,
        max_abs=float(error.abs().max()),
    )


def _rms(tensor: torch.Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())
