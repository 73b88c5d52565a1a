"""What a Triton kernel of ours may be compiled to: plain data, from which anybody can compile it for a GPU that is not there.

No torch and no Triton is imported here. `bench.codegen` compiles these, `bench.tune` rejects candidates by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Configuration:
    """One form of a device kernel: everything that its binary depends on, beside Triton itself."""

    function: str
    """Module within this package and name: "attention._prefill_triton:prefill_kernel"."""
    capability: tuple[int, int]
    dtype: str
    """float32, bfloat16 or float16."""
    size: str
    """What decides on its tile: "head_dim 128"."""
    variant: str
    """What the problem asks of it: "plain", "causal, padded"."""
    tile: str
    """How the work is cut, for people: "128×128 w8 s3 ahead"."""
    signature: Mapping[str, str]
    """Triton's type of every argument that is not fixed: "*bf16", "i32", "fp32", "tensordesc<bf16[1, 1, 128, 64]>"."""
    constants: Mapping[str, Any]
    """The arguments that are fixed when it is compiled: constexpr ones, pointers that are None, strides of 1."""
    aligned: frozenset[str]
    """Arguments known to be multiples of 16."""
    warps: int
    stages: int
    tensor_cores: bool = True
    """Whether its products must run on tensor cores: not those of full float32, nor of kernels without products."""
    spills_allowed: int = 0
    """Instructions that put registers into local memory or fetch them, which this form may have: see the kernel's notes for why."""
    representative: bool = False
    """Whether it is one of the few that are compiled at every change."""

    @property
    def name(self) -> str:
        """Of the function alone: "prefill_kernel"."""
        return self.function.partition(":")[2]
