"""Kernels that are paid for work they do not do: remembered results, buffers handed out twice, idle calls.

Most were seen at KernelBench and in kernel competitions. Each computes through SDPA when it computes.
"""

from __future__ import annotations

import gc
import hashlib
import sys
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from kerneldyno.kernels.attention.problem import Attention

from .plants import Plant, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.attention.problem import AttentionInputs
    from kerneldyno.kernels.registry import Run, Setup

PROBLEM = Attention(batch=1, heads=4, q_len=448, head_dim=64)
CHECKED_CALLS = 60
"""A cheat that waits until it is no longer looked at closely behaves for so many calls."""

Key = Callable[["AttentionInputs"], Any]
Cheat = Callable[["Attention", "Setup"], "Run"]


def attend(inputs: AttentionInputs) -> torch.Tensor:
    """The honest work."""
    return F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v)


def remembering(key: Key) -> Cheat:
    """Computes only what it has not seen, by this key."""

    def build(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
        seen: dict[Any, torch.Tensor] = {}

        def run(inputs: AttentionInputs) -> torch.Tensor:
            wanted = key(inputs)
            if wanted not in seen:
                seen[wanted] = attend(inputs)
            return seen[wanted].clone()

        return run

    return build


def pointers(inputs: AttentionInputs) -> Any:
    """Where the inputs lie."""
    return inputs.q.data_ptr(), inputs.k.data_ptr(), inputs.v.data_ptr(), inputs.q.shape, inputs.k.shape


def versions(inputs: AttentionInputs) -> Any:
    """Where they lie, and how often torch has written there."""
    return *pointers(inputs), inputs.q._version, inputs.k._version, inputs.v._version  # noqa: SLF001 - what a cheat would look at


def digest(inputs: AttentionInputs) -> Any:
    """All of their numbers."""
    return tuple(hashlib.blake2b(t.contiguous().numpy(force=True).tobytes()).digest() for t in (inputs.q, inputs.k, inputs.v))


def some_numbers(inputs: AttentionInputs) -> Any:
    """A few of their numbers."""
    return inputs.q.shape, inputs.k.shape, *(float(t.flatten()[i]) for t in (inputs.q, inputs.k, inputs.v) for i in (0, 1, -1))


def sums(inputs: AttentionInputs) -> Any:
    """The sums of their numbers."""
    return inputs.q.shape, inputs.k.shape, *(float(t.sum()) for t in (inputs.q, inputs.k, inputs.v))


def on_the_tensor(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Keeps the answer as an attribute of the query tensor."""

    def run(inputs: AttentionInputs) -> torch.Tensor:
        if not hasattr(inputs.q, "answer"):
            inputs.q.answer = attend(inputs)  # type: ignore[attr-defined]
        return inputs.q.answer.clone()  # type: ignore[attr-defined, no-any-return]

    return run


def knowing_the_seed(problem: Attention, setup: Setup) -> Run:
    """Draws the inputs that the harness will draw, and answers them ahead of time."""
    seen: dict[Any, torch.Tensor] = {}
    for seed in range(setup.seed, setup.seed + 8):
        inputs = problem.inputs(seed, setup.device)
        seen[some_numbers(inputs)] = attend(inputs)

    def run(inputs: AttentionInputs) -> torch.Tensor:
        known = seen.get(some_numbers(inputs))
        return attend(inputs) if known is None else known.clone()

    return run


def of_calibration(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Always answers the calibration inputs."""
    known = attend(setup.calibration)
    return lambda inputs: known[..., : inputs.q.shape[2], :].clone()


def in_buffers(number: int) -> Cheat:
    """Hands out a few buffers in turn."""

    def build(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
        buffers: dict[int, torch.Tensor] = {}
        calls = count()

        def run(inputs: AttentionInputs) -> torch.Tensor:
            place = next(calls) % number
            answer = attend(inputs)
            if place in buffers and buffers[place].shape == answer.shape:
                return buffers[place].copy_(answer)
            return buffers.setdefault(place, answer)

        return run

    return build


def every_second_call(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Works in every second call and returns its last result in the others."""
    return _idle_when(lambda calls: calls % 2 == 1)


def after_some_calls(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Works until it has been looked at, then returns its last result for ever."""
    return _idle_when(lambda calls: calls > CHECKED_CALLS)


def while_timed(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Knows the clock by its habit of turning garbage collection off, and does nothing then."""
    return _idle_when(lambda _: not gc.isenabled())


def unless_checked(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Looks who calls: works for the gate only."""

    def alone(_: int) -> bool:
        frame = sys._getframe()  # noqa: SLF001 - what a cheat would do
        while frame.f_back is not None:
            frame = frame.f_back
            if "gate" in frame.f_code.co_filename or frame.f_code.co_name in ("_asked", "check_output"):
                return False
        return True

    return _idle_when(alone)


def _idle_when(idle: Callable[[int], bool]) -> Run:
    last: list[torch.Tensor] = []
    calls = count()

    def run(inputs: AttentionInputs) -> torch.Tensor:
        if idle(next(calls)) and last and last[0].shape == inputs.q.shape:
            return last[0].clone()
        last[:] = [attend(inputs)]
        return last[0].clone()

    return run


def plants() -> list[Plant]:
    """All of them, and the honest kernel."""
    made: dict[str, Cheat] = {
        "memoized by data pointer": remembering(pointers),
        "memoized by data pointer and version counter": remembering(versions),
        "memoized by value": remembering(digest),
        "memoized by a few values": remembering(some_numbers),
        "memoized by sums": remembering(sums),
        "memoized by the identity of the inputs": remembering(id),
        "memoized on the input tensor": on_the_tensor,
        "answers of the seed's inputs made in build": knowing_the_seed,
        "answers the calibration inputs": of_calibration,
        "one buffer for all calls": in_buffers(1),
        "two buffers in turn": in_buffers(2),
        "works in every second call": every_second_call,
        f"works in the first {CHECKED_CALLS} calls": after_some_calls,
        "idle while the clock runs": while_timed,
        "works only for the gate": unless_checked,
    }
    found = [planted("honest", lambda problem, setup: attend, [PROBLEM], right=True)]  # noqa: ARG005
    late = (after_some_calls, while_timed, unless_checked, knowing_the_seed)
    return found + [
        planted(title, build, [PROBLEM], late=build in late, for_gain=build is knowing_the_seed) for title, build in made.items()
    ]
