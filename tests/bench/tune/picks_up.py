"""Build our kernel in Triton's interpreter and call it: prints as JSON which tile was launched, what its identity says, and its error."""

from __future__ import annotations

import json
from typing import Any

import torch

from kerneldyno.kernels._cards import H100
from kerneldyno.kernels.attention import _prefill_launch, fused
from kerneldyno.kernels.attention.problem import Attention

launched: list[dict[str, Any]] = []
interpreted = _prefill_launch.prefill_kernel


class Watched:
    """The kernel, and what it is launched with."""

    def __getitem__(self, grid: Any) -> Any:
        def launch(*arguments: Any, **constants: Any) -> Any:
            launched.append({name: constants[name] for name in ("BT", "BS", "num_warps", "num_stages")})
            return interpreted[grid](*arguments, **constants)

        return launch


_prefill_launch.prefill_kernel = Watched()
found = []
for causal in (False, True):
    problem = Attention(batch=1, heads=1, q_len=70, head_dim=16, dtype="float16", causal=causal)
    inputs = problem.inputs(1)
    output = fused.launched(problem, H100)(inputs)
    error = float((output.double() - problem.reference(inputs)).abs().max())
    naive = float((problem.naive(inputs).double() - problem.reference(inputs)).abs().max())
    found.append({"form": fused.form(problem, H100), "launched": launched[-1], "ratio": error / naive})
assert torch.is_tensor(output)
print(json.dumps(found))
