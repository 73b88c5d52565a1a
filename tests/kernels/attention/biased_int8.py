"""8-bit attention in the interpreter over keys with a bias of each feature; prints JSON lines with its distance from the exact result:
without the bias, with it, and with it when the mean is left in.

A script of its own: the interpreter is chosen by TRITON_INTERPRET before Triton is imported, and for good.
"""

from __future__ import annotations

import json

import torch

from kerneldyno.kernels._cards import H100
from kerneldyno.kernels.attention import _int8_launch, int8
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs


class NoSums:
    """In the place of the kernel that adds up keys: it finds that they add up to nothing."""

    def __getitem__(self, grid: tuple[int, ...]) -> NoSums:
        return self

    def __call__(self, k: torch.Tensor, sums: torch.Tensor, *arguments: object, **constants: object) -> None:
        sums.zero_()


def distance(problem: Attention, inputs: AttentionInputs) -> float:
    exact = problem.reference(inputs)
    error = int8.launched(problem, H100)(inputs).double() - exact
    return float(error.square().mean().sqrt() / exact.square().mean().sqrt())


if __name__ == "__main__":
    torch.set_num_threads(1)
    problem = Attention(heads=2, q_len=130, head_dim=32)
    inputs = problem.inputs(0)
    biased = inputs.replace(k=inputs.k + 20 * torch.randn(1, 2, 1, 32, generator=torch.Generator().manual_seed(0)))
    print(json.dumps({"distance": distance(problem, inputs)}))
    print(json.dumps({"distance": distance(problem, biased)}))
    _int8_launch.int8_sums_kernel = NoSums()
    print(json.dumps({"distance": distance(problem, biased)}), flush=True)
