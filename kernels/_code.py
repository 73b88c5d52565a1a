"""What a Triton kernel of ours may be compiled to: plain data, from which anybody can compile it for a GPU that is not there.

No torch and no Triton is imported here. `bench.codegen` compiles these, `bench.tune` rejects candidates by them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

TRITON_TYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""Triton's words for ours."""


@dataclass(frozen=True)
class Configuration:
    """One form of a device kernel: everything that its binary depends on, beside Triton itself."""

    function: str
    """Module within this package and name: "attention._prefill_triton:prefill_kernel"; or a file of its own: f"{__file__}:my_kernel"."""
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
    """Of a program; of one of its warp groups where they have roles of their own."""
    stages: int
    registers: int = 0
    """Of a thread at the launch, at most; 0: as the compiler has it."""
    specialized: bool = False
    """Whether warp groups have roles of their own: some load, each of the others goes through the main loop by itself."""
    tensor_cores: bool = True
    """Whether its products must run on tensor cores: not those of full float32, nor of kernels without products."""
    instruction: str = ""
    """Which of their instructions, where it is not the one that the card is known for: "HMMA" of tiles with fewer than 64 rows."""
    flattened: bool = False
    """Whether the main loop goes through the ends of tiles, too, which most rounds skip: then its instructions are not those of a round."""
    streams: bool = False
    """Whether what it loads is read once and comes from the device's memory, as the cache of a decode step does."""
    spills_allowed: int = 0
    """Instructions that put registers into local memory or fetch them, which this form may have: see the kernel's notes for why."""
    representative: bool = False
    """Whether it is one of the few that are compiled at every change."""

    @property
    def name(self) -> str:
        """Of the function alone: "prefill_kernel"."""
        return self.function.rpartition(":")[2]


def signature(
    arguments: str, constants: Collection[str], dtype: str, scalars: str = "", more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Triton's types of the arguments that are not fixed: pointers p_… to `dtype`, the `scalars` in float32, whole numbers, and `more`.

    `dtype` is one of ours: float32, bfloat16 or float16; `arguments` and `scalars` are names with spaces between them.
    """
    types = dict.fromkeys(scalars.split(), "fp32") | dict(more or {})
    left = [name for name in arguments.split() if name not in constants]
    return {name: types.get(name, f"*{TRITON_TYPES[dtype]}" if name.startswith("p_") else "i32") for name in left}
