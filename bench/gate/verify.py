"""Is one answer right? Error ratios against float64, the claim of an approximate kernel, and quick looks while timing.

The error ratio is the candidate's error divided by the error of the textbook formula in the same dtype, both against
float64: fixed tolerances pass broken attention over long contexts, where outputs are small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from kerneldyno.kernels.registry import Gradients, Kernel, Setup

from ..records import Distance, Errors
from .errors import WrongOutput, distance, measured, rms, worst_place
from .truth import Truth

# (largest error, rms error) relative to the textbook formula's own; from 150 random problems of correct kernels
LIMITS = MappingProxyType({"float32": (8.0, 3.0), "bfloat16": (2.0, 1.5), "float16": (2.0, 1.5)})
GRADIENT_SLACK = 2.0
"""Gradients may come to so many times these limits: they are chains of products, each of which may be rounded in between."""
PROBE_SLACK = 2.0
"""Probes may come to so many times these limits: where single keys decide, single roundings do. Mistakes show in the hundreds."""
# An approximate kernel may miss what it claims by a share of the distance between its claim and the exact result: where a
# value lies between two quantization steps, another order of summation decides, and a chain of quantized products passes
# that on. A layer of six int8 products was 0.19 of that distance away from its claim; one that computes the exact result
# in secret is 1.0 away, and the limit comes to 0.45. One step more or less is up to twice the largest rounding error, and
# among few numbers it weighs in the rms as well.
CLAIM_SLACK_RMS = 0.3
CLAIM_SLACK_RMS_OF_FEW = 4.0
CLAIM_SLACK_MAX = 1.0


@dataclass
class Verified:
    """What the check of one answer found."""

    errors: Errors
    distance: Distance | None = None

    @property
    def ratio(self) -> float:
        """The largest error ratio."""
        return self.errors.max_ratio


@dataclass(frozen=True)
class Standard:
    """What one kernel's answers for one set of inputs are held to: the truth, or what an approximate kernel claims."""

    truth: Truth
    expected: dict[str, torch.Tensor]
    yardstick: dict[str, tuple[float, float]]
    limits: tuple[float, float]
    against: str = "float64"

    @classmethod
    def of(cls, kernel: Kernel, setup: Setup, truth: Truth, slack: float = 1.0) -> Standard:
        """The truth itself for exact kernels; the claim, with slack for other orders of summation, for approximate ones."""
        own, coarse = LIMITS[truth.problem.dtype], LIMITS["bfloat16"]
        if not kernel.approximate:
            return cls(truth, truth.expected, truth.yardstick, (slack * own[0], slack * own[1]))
        assert kernel.claim is not None
        claimed = {name: tensor.double() for name, tensor in truth.named(kernel.claim(truth.problem, setup, truth.inputs)).items()}
        if silent := truth.expected.keys() - claimed.keys():
            raise WrongOutput(f"its claim says nothing of {', '.join(sorted(silent))}: let claim return Gradients in direction backward")
        scale = (own[0] / coarse[0], own[1] / coarse[1])
        yardstick = {name: _with_slack(truth.yardstick[name], scale, claimed[name], truth.expected[name]) for name in claimed}
        return cls(truth, claimed, yardstick, (slack * coarse[0], slack * coarse[1]), "what it claims to compute")


def parts(answer: Any) -> list[Any]:
    """The tensors of an answer."""
    return [answer.output, *answer.by_name.values()] if isinstance(answer, Gradients) else [answer]


def well_formed(output: Any, truth: Truth, device: torch.device) -> None:
    """Raise WrongOutput unless the answer has the right type, shape, dtype and device, and is finite."""
    problem, inputs = truth.problem, truth.inputs
    if problem.direction == "backward" and not isinstance(output, Gradients):
        raise WrongOutput(f"returned {type(output).__name__}, not Gradients, in direction backward")
    shapes = {"output": problem.output_shape(inputs)}
    tensors = {"output": output.output if isinstance(output, Gradients) else output}
    if isinstance(output, Gradients):
        weights = {} if truth.weights is None else truth.weights.differentiated
        shapes |= {f"grad {name}": tensor.shape for name, tensor in (inputs.differentiated | weights).items()}
        tensors |= {f"grad {name}": tensor for name, tensor in output.by_name.items()}
    for name, shape in shapes.items():
        if name not in tensors:
            raise WrongOutput(f"{name} is missing")
        _formed_like(name, tensors[name], shape, problem.dtype, device)
    tensors["output"] = problem.compared(tensors["output"], inputs)
    for name in shapes:
        if not bool(torch.isfinite(tensors[name]).all()):
            bad = ~torch.isfinite(tensors[name])
            place = worst_place(torch.where(bad, torch.nan, 0.0), torch.zeros((), dtype=torch.float64, device=bad.device).expand(bad.shape))
            raise WrongOutput(f"{name} holds {int(bad.sum())} values that are NaN or infinite, as at {place.partition(':')[0]}")


def _formed_like(name: str, tensor: Any, shape: torch.Size, dtype: str, device: torch.device) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise WrongOutput(f"returned {type(tensor).__name__} for the {name}, not a tensor")
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise WrongOutput(f"returned {type(tensor).__name__} for the {name}, a kind of tensor that may compute when it is looked at")
    if tensor.device.type != device.type:
        raise WrongOutput(f"the {name} lies on {tensor.device}, not on {device}")
    if tensor.dtype != getattr(torch, dtype):
        raise WrongOutput(f"the {name} is {str(tensor.dtype).removeprefix('torch.')}, not {dtype}")
    if tensor.shape != shape:
        raise WrongOutput(f"the {name} has shape {tuple(tensor.shape)}, not {tuple(shape)}")


def verify(output: Any, kernel: Kernel, setup: Setup, truth: Truth) -> Verified:
    """Compare one answer with float64; raise WrongOutput when it is not right.

    An approximate kernel is compared with what it claims to compute; its distance from the exact result is returned.
    """
    return judged(output, Standard.of(kernel, setup, truth), setup, approximate=kernel.approximate)


def judged(output: Any, standard: Standard, setup: Setup, *, approximate: bool) -> Verified:
    """Compare one answer with its standard; raise WrongOutput, which says where it is worst, when it does not hold."""
    truth, limits = standard.truth, standard.limits
    well_formed(output, truth, setup.device)
    got = truth.named(output)
    found = [measured(name, got[name], right, standard.yardstick[name]) for name, right in standard.expected.items()]
    largest = max(found, key=lambda errors: errors.max_ratio)
    for errors, what, ratio, limit in _against(limits, found):
        if not ratio <= limit:
            rows = truth.rows if truth.by_row(errors.tensor) else None
            place = worst_place(got[errors.tensor], standard.expected[errors.tensor], rows)
            raise WrongOutput(
                f"the {errors.tensor} is off from {standard.against} at {place}; {what} error is {ratio:.3g} times that of the plain "
                f"formula (limit {limit:g}), relative rms {errors.relative_rms:.2g}"
            )
    return Verified(largest, distance(got["output"], truth.expected["output"]) if approximate else None)


def _against(limits: tuple[float, float], found: Sequence[Errors]) -> Iterator[tuple[Errors, str, float, float]]:
    """(errors, "largest" or "rms", ratio, limit) of every tensor, the largest errors first."""
    for at, what in enumerate(("largest", "rms")):
        for errors in found:
            slack = 1.0 if errors.tensor == "output" else GRADIENT_SLACK
            yield errors, what, (errors.max_ratio, errors.rms_ratio)[at], slack * limits[at]


def glanced_at(output: Any, standard: Standard, rng: np.random.Generator, rows: int = 32) -> None:
    """Look at some random rows of a timed answer; raise WrongOutput when one is beyond the limit. Cheap enough for every leg."""
    for tensor in parts(output):
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            raise WrongOutput(f"a timed call returned {type(tensor).__name__}, not a plain tensor: it may compute when it is looked at")
    got = standard.truth.named(output)
    for name, right in standard.expected.items():
        if name == "output" or got[name].shape == right.shape:
            axis = max(right.dim() - 2, 0)
            chosen = torch.from_numpy(rng.permutation(right.shape[axis])[:rows]).to(right.device)
            mine, wanted = got[name].index_select(axis, chosen), right.index_select(axis, chosen)
            ratio = float((mine.double() - wanted).abs().max()) / standard.yardstick[name][0]
            limit = standard.limits[0] * (1.0 if name == "output" else GRADIENT_SLACK)
            if not ratio <= limit:
                known = standard.truth.rows if standard.truth.by_row(name) else None
                numbers = chosen if known is None else known[chosen]
                raise WrongOutput(
                    f"the {name} of a timed call is off at {worst_place(mine, wanted, numbers)}; largest error is {ratio:.3g} "
                    f"times that of the plain formula (limit {limit:g})"
                )


def still_judges() -> bool:
    """Whether a planted error of known size comes out as that size: what judges may have been tampered with underneath."""
    right = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]]], dtype=torch.float64)
    wrong = right.float()
    wrong[0, 0, 1, 0] = 3.5
    seen = measured("output", wrong, right, (0.25, 0.125))
    return (
        (seen.max_ratio, seen.max_abs, seen.rms_ratio) == (2.0, 0.5, 2.0)
        and worst_place(wrong, right).startswith("batch 0, head 0, row 1, feature 0: expected 3")
        and not bool(torch.isfinite(torch.tensor([math.nan, 1.0])).all())
        and not torch.equal(wrong, right.float())
    )


def _with_slack(naive: tuple[float, float], scale: tuple[float, float], claimed: torch.Tensor, exact: torch.Tensor) -> tuple[float, float]:
    """The naive error, scaled so that the limits of 16 bit mean those of its dtype, and a share of the claim's own distance."""
    gap = claimed - exact
    square = CLAIM_SLACK_RMS + CLAIM_SLACK_RMS_OF_FEW / math.sqrt(gap.numel())
    return scale[0] * naive[0] + CLAIM_SLACK_MAX * float(gap.abs().max()), scale[1] * naive[1] + square * rms(gap)
