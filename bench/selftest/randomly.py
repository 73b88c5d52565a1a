"""Random problems, biased to awkward ones, for kernels that are right: none of them may be refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .examining import SHIPPED, Job, examined
from .findings import Control, Found

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kerneldyno.kernels.registry import Kernel, Problem

    from .context import Context

SECTION = "right kernels"
PROBLEMS, FEW_PROBLEMS = 200, 6
"""Of each operator."""
MOST_KERNELS = 3
"""At each problem so many of the quick kernels take part, drawn anew."""
SLOW_FAMILIES = ("compiled", "flex")
"""They take seconds to build: they see some of the problems only."""
SLOW_PROBLEMS, FEW_SLOW_PROBLEMS = 3, 0
AWKWARD = (1, 2, 3, 15, 17, 63, 64, 65, 100, 127, 128, 129, 200, 255, 257, 333)
HEAD_DIMS = (16, 32, 48, 64, 80, 96, 128)
DIMS = (32, 64, 96, 128, 200)


def problems(operator: str, count: int, seed: int) -> list[Problem]:
    """Random problems; the first ones are the same for a larger count, and for equal seeds."""
    from kerneldyno.kernels import registry

    types = {kernel.operator: kernel.problem for kernel in registry.load().values()}
    number = sorted(types).index(operator)
    rng = np.random.default_rng([seed, number])
    draw = {"attention": _attention, "feedforward": _feedforward, "layer": _layer}[operator]
    return [types[operator](**draw(rng)) for _ in range(count)]


def findings(context: Context) -> Iterator[Found]:
    """Every kernel that runs here at every random problem that it takes."""
    from kerneldyno.kernels import registry

    kernels = registry.load()
    count = FEW_PROBLEMS if context.short else PROBLEMS
    slow = FEW_SLOW_PROBLEMS if context.short else SLOW_PROBLEMS
    for operator in sorted({kernel.operator for kernel in kernels.values()}):
        context.say(f"{count} random problems of {operator} drawn from seed {context.seed}")
        jobs = list(_jobs(operator, kernels.values(), problems(operator, count, context.seed), slow, context))  # type: ignore[arg-type]
        for job, answer in examined(jobs, parallel=context.parallel, stop=context.stop):
            context.say(f"{answer.kernel}, {job.problem.label}")
            if answer.outcome == "unable":
                continue
            alarm = answer.outcome != "passed"
            yield Control(section=SECTION, what=answer.kernel, where=_told(job.problem, context), alarm=alarm, said=answer.said)


def _told(problem: Problem, context: Context) -> str:
    return f"{problem.label} (seed {context.seed})"


def _jobs(operator: str, kernels: Sequence[Kernel], drawn: Sequence[Problem], slow: int, context: Context) -> Iterator[Job]:
    rng = np.random.default_rng([context.seed, len(drawn)])
    for number, problem in enumerate(drawn):
        able = [kernel for kernel in kernels if kernel.operator == operator and kernel.why_not(problem, context.device) is None]
        quick = [kernel for kernel in able if kernel.family not in SLOW_FAMILIES]
        chosen = [quick[i] for i in rng.permutation(len(quick))[:MOST_KERNELS]]
        chosen += [kernel for kernel in able if kernel.family in SLOW_FAMILIES and number < slow]
        if chosen:
            names = tuple((SHIPPED, kernel.name) for kernel in chosen)
            yield Job(problem, names, context.device, context.seed + number, context.look)


def _any(rng: np.random.Generator, *values: Any) -> Any:
    """One of them, as a plain Python value."""
    return values[int(rng.integers(len(values)))]


def _chance(rng: np.random.Generator, share: float) -> bool:
    return bool(rng.random() < share)


def _dtype(rng: np.random.Generator) -> str:
    return str(_any(rng, "float32", "bfloat16", "float16"))


def _attention(rng: np.random.Generator) -> dict[str, Any]:
    kv_heads = _any(rng, 1, 2, 3)
    q_len = _any(rng, *AWKWARD)
    kv_len = _any(rng, *AWKWARD, 1000) if _chance(rng, 0.4) else q_len
    ragged, backward = q_len <= kv_len and _chance(rng, 0.2), _chance(rng, 0.25)
    return {
        "batch": _any(rng, 1, 2, 3),
        "kv_heads": kv_heads,
        "heads": kv_heads * _any(rng, 1, 1, 2, 4),
        "q_len": q_len,
        "kv_len": kv_len,
        "head_dim": _any(rng, *HEAD_DIMS),
        "causal": _chance(rng, 0.5),
        "padding": not ragged and _chance(rng, 0.3),
        "bias": _any(rng, "none", "none", "additive", "boolean"),
        "window": _any(rng, 0, 0, 0, 1, 40),
        "softcap": _any(rng, 0.0, 0.0, 0.0, 2.0, 50.0),
        "ragged": ragged,
        "page_size": 0 if backward else _any(rng, 0, 0, 0, 1, 16, 100),
        "dtype": _dtype(rng),
        "direction": "backward" if backward else "forward",
        "structured": _chance(rng, 0.2),
    }


def _feedforward(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "batch": _any(rng, 1, 2, 3),
        "seq_len": _any(rng, *AWKWARD),
        "dim": _any(rng, *DIMS),
        "hidden_dim": _any(rng, *DIMS, 333),
        "activation": _any(rng, "relu", "gelu", "gelu_tanh", "silu"),
        "norm": _any(rng, "none", "layernorm", "rmsnorm"),
        "gated": _chance(rng, 0.4),
        "bias": _chance(rng, 0.6),
        "residual": _chance(rng, 0.5),
        "dtype": _dtype(rng),
    }


def _layer(rng: np.random.Generator) -> dict[str, Any]:
    heads = _any(rng, 1, 2, 4)
    return {
        "batch": _any(rng, 1, 2, 3),
        "seq_len": _any(rng, *AWKWARD),
        "dim": heads * _any(rng, 16, 32, 48, 64),
        "heads": heads,
        "hidden_dim": _any(rng, *DIMS),
        "mask": _any(rng, "none", "causal", "boolean"),
        "padding": _chance(rng, 0.4),
        "dtype": _dtype(rng),
    }
