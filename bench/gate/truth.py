"""The right answer for one set of inputs and the yardstick beside it, for all rows or, of large problems, for some."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kerneldyno.kernels.registry import Gradients, Problem

from .errors import rms

FLOPS = {"cpu": 1e10, "cuda": 2e12}
"""Work in float64 that the right answer for one set of inputs may take: about a second."""
PROBE_FLOPS = {"cpu": 1e9, "cuda": 2e11}
"""The same for one probe."""
FEW = 8.0
"""Among few numbers the textbook formula's errors may happen to be small: a half ulp counts (1 + FEW / √numbers) times."""
RUNNING = 0.06
"""Numbers that are summed up one after the other in float32 are off by about so many ulps times the root of their count: torch's own
attention of a single query on a CPU is. The textbook formula's matrix product sums in blocks, which happens to be more exact."""
SAMPLED_SHARE = 0.5
"""A row that is picked costs more than its part of the whole: causal ones see half of the keys, but are multiplied with all."""
FEWEST_ROWS = 48
TILES = (16, 64, 128, 256)
"""Kernels work in tiles of such lengths: rows on both sides of their edges are looked at first."""


@dataclass
class Truth:
    """The right answer for one set of inputs, and the yardstick: computed once, shared by the kernels of a group."""

    problem: Problem
    """With the rows chosen that are compared: `problem.rows`, or all."""
    inputs: Any
    weights: Any
    """None for an operator without weights."""
    _expected: dict[str, torch.Tensor] | None = None
    _yardstick: dict[str, tuple[float, float]] | None = None

    @classmethod
    def of(cls, problem: Problem, inputs: Any, weights: Any, *, flops: float, seed: int = 0) -> Truth:
        """The truth for as many rows as `flops` of float64 work allow.

        In direction "backward" the gradient of the output is then set to 0 in all other rows: so gradients of keys, values
        and weights, to which every row contributes, stay exact.
        """
        device = next(iter(inputs.tensors().values())).device
        rows = choose_rows(problem, flops, seed, device)
        if rows is not None and getattr(inputs, "grad", None) is not None:
            grad = torch.zeros_like(inputs.grad)
            grad[..., rows, :] = inputs.grad[..., rows, :]
            inputs = inputs.replace(grad=grad)
        problem = problem.at(rows)
        return cls(problem, problem.decided(inputs, weights) if problem.direction == "backward" else inputs, weights)

    @property
    def rows(self) -> torch.Tensor | None:
        """The rows that are compared; None: all."""
        return self.problem.rows

    @property
    def expected(self) -> dict[str, torch.Tensor]:
        """Float64 output (and gradients), by name, in the chosen rows."""
        if self._expected is None:
            self._expected = self._compute(naive=False)
        return self._expected

    @property
    def yardstick(self) -> dict[str, tuple[float, float]]:
        """(largest, rms) error of the textbook formula, by name; at least half an ulp at the tensor's scale, more of few numbers."""
        if self._yardstick is None:
            naive = self._compute(naive=True)
            # a gradient that is exactly 0 (one key: nothing to choose) has the others' scale for its rounding errors
            widest = max(float(right.abs().max()) for right in self.expected.values())
            self._yardstick = {name: self._naive_error(naive[name], right, widest) for name, right in self.expected.items()}
        return self._yardstick

    def named(self, answer: Any) -> dict[str, torch.Tensor]:
        """The tensors of an answer by name ("output", "grad q", …), in the chosen rows, undefined ones cleared."""
        output = answer.output if isinstance(answer, Gradients) else answer
        found = {"output": self._chosen(self.problem.compared(output, self.inputs), self.problem.output_shape(self.inputs))}
        if isinstance(answer, Gradients):
            first = self.inputs.differentiable[0]
            for name, tensor in answer.by_name.items():
                found[f"grad {name}"] = self._chosen(tensor, getattr(self.inputs, name).shape) if name == first else tensor
        return found

    def by_row(self, name: str) -> bool:
        """Whether the tensor of that name has a row for each of `rows`; the others are whole."""
        return name in ("output", *(f"grad {first}" for first in self.inputs.differentiable[:1]))

    def _chosen(self, tensor: torch.Tensor, whole: torch.Size) -> torch.Tensor:
        """The chosen rows of a tensor that has all; one that has only them stays as it is."""
        return tensor if self.rows is None or tensor.shape != whole else tensor[..., self.rows, :]

    def _compute(self, *, naive: bool) -> dict[str, torch.Tensor]:
        if self.problem.direction == "backward":
            return self.named(self.problem.gradients(self.inputs, self.weights, naive=naive))
        formula = self.problem.naive if naive else self.problem.reference
        return self.named(formula(self.inputs, self.weights))

    def _naive_error(self, naive: torch.Tensor, right: torch.Tensor, widest: float) -> tuple[float, float]:
        half_ulp = 0.5 * torch.finfo(getattr(torch, self.problem.dtype)).eps
        error = naive.double() - right
        largest, square = float(right.abs().max()), rms(right)
        half_ulp *= 1 + FEW / math.sqrt(right.numel())
        if self.problem.direction == "forward":
            half_ulp = max(half_ulp, RUNNING * math.sqrt(self.problem.summands) * torch.finfo(torch.float32).eps)
        floors = (half_ulp * (largest or widest), half_ulp * (square or widest), torch.finfo(torch.float64).tiny)
        return max(float(error.abs().max()), floors[0], floors[2]), max(rms(error), floors[1], floors[2])


def choose_rows(problem: Problem, flops: float, seed: int, device: torch.device) -> torch.Tensor | None:
    """Ascending positions on the sequence axis, as many as `flops` of work allow; None when all fit.

    The first and last rows, both sides of edges of tiles, then random ones: a mistake sits at an edge or everywhere.
    """
    total = problem.row_count
    share = flops / max(problem.flops(), 1)
    count = max(FEWEST_ROWS, int(total * share * SAMPLED_SHARE))
    if share >= 1 or count >= total:
        return None
    rng = np.random.default_rng([seed, total])
    chosen = {0, 1, total - 2, total - 1}
    for tile in TILES:
        edges = rng.permutation(np.arange(tile, total, tile))[: count // 12]
        last = (total - 1) // tile * tile
        chosen |= {int(row) for edge in (*edges, last) for row in (edge - 1, edge) if 0 <= row < total}
    others = [int(row) for row in rng.permutation(total) if int(row) not in chosen]
    chosen |= set(others[: max(count - len(chosen), 0)])
    return torch.tensor(sorted(chosen), device=device)
