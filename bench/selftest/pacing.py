"""A plugin for real workers: kernels whose time is known, and kernels that are slower than another by a known share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import kernel

if TYPE_CHECKING:
    from kerneldyno.kernels.attention.problem import AttentionInputs
    from kerneldyno.kernels.registry import Run, Setup

KNOWN_S = {"takes_200_us": 200e-6, "takes_1_ms": 1e-3, "takes_5_ms": 5e-3}
SLOWER = {"slower_by_2_percent": 0.02, "slower_by_5_percent": 0.05, "slower_by_10_percent": 0.10}
REPEATS = 32
COPIES = ("base", "copy_1", "copy_2", "copy_3", "copy_4")
"""The same function under several names."""


def attend(inputs: AttentionInputs) -> torch.Tensor:
    """The right answer."""
    return F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v)


def work(inputs: AttentionInputs) -> torch.Tensor:
    """A fraction of a millisecond on one thread: what a second thread finds on a busy machine would blur a known share."""
    for _ in range(REPEATS - 1):
        attend(inputs)
    return attend(inputs)


def until(moment_ns: int) -> None:
    """Stay busy until then."""
    while time.perf_counter_ns() < moment_ns:
        pass


def lasting(seconds: float) -> Any:
    """A call that returns so long after it began, its answer computed meanwhile."""

    def build(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
        span_ns = round(seconds * 1e9)

        def run(inputs: AttentionInputs) -> torch.Tensor:
            end = time.perf_counter_ns() + span_ns
            answer = attend(inputs)
            until(end)
            return answer

        return run

    return build


def slowed(share: float) -> Any:
    """The work, and then this share of the time that the very same call has taken so far."""

    def build(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
        def run(inputs: AttentionInputs) -> torch.Tensor:
            began = time.perf_counter_ns()
            answer = work(inputs)
            now = time.perf_counter_ns()
            until(now + round((now - began) * share))
            return answer

        return run

    return build


def exact_copy(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """The work alone."""
    return lambda inputs: work(inputs)  # noqa: PLW0108 - a call as deep as the others'


def declared(name: str, build: Any) -> Any:
    """As a kernel for the CPU: a GPU's time is not the host's."""
    return kernel(Attention, name=name, family="selftest", devices=("cpu",))(build)


globals().update({name: declared(name, lasting(seconds)) for name, seconds in KNOWN_S.items()})
globals().update({name: declared(name, slowed(share)) for name, share in SLOWER.items()})
globals().update({name: declared(name, exact_copy) for name in COPIES})
