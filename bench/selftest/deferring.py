"""Kernels that work where the clock does not look: after the return, when looked at, in `prepare`, on another stream."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .cheats import PROBLEM, attend
from .plants import Plant, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
    from kerneldyno.kernels.registry import Run, Setup


def in_a_thread(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Returns at once; a thread fills the result in."""

    def run(inputs: AttentionInputs) -> torch.Tensor:
        output = torch.empty_like(inputs.q)
        threading.Thread(target=lambda: output.copy_(attend(inputs)), daemon=True).start()
        return output

    return run


class Lazy(torch.Tensor):
    """Computes when somebody looks."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def real(value: Any) -> Any:
            if isinstance(value, Lazy):
                if (work := value.__dict__.pop("work", None)) is not None:
                    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - as torch's own subclasses do
                        value.copy_(work())
                return value.as_subclass(torch.Tensor) if func is not torch.Tensor.as_subclass else value
            return value

        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001
            return func(*[real(value) for value in args], **{name: real(value) for name, value in (kwargs or {}).items()})


def when_looked_at(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Returns a tensor that does the work at its first use."""

    def run(inputs: AttentionInputs) -> torch.Tensor:
        output = torch.empty_like(inputs.q).as_subclass(Lazy)
        output.__dict__["work"] = lambda: attend(inputs)
        return output

    return run


class Interception(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Stays active after the call and answers other people's operations."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.sub.Tensor and all(isinstance(arg, torch.Tensor) for arg in args):
            return torch.zeros_like(torch.broadcast_tensors(*args)[0])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def intercepting(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Leaves a dispatch mode behind, in which all differences are zero."""
    entered: list[Interception] = []

    def run(inputs: AttentionInputs) -> torch.Tensor:
        if not entered:
            entered.append(Interception())  # type: ignore[no-untyped-call]
            entered[0].__enter__()  # type: ignore[no-untyped-call]
        return torch.ones_like(inputs.q) * inputs.q.mean()

    return run


def ahead_of_time(problem: Attention, setup: Setup, inputs: AttentionInputs) -> Any:  # noqa: ARG001
    """Everything happens in `prepare`, which is not timed."""
    return inputs.replace(grad=attend(inputs))


def on_another_stream(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """CUDA only: launches where the events of the clock do not look."""
    stream = torch.cuda.Stream(setup.device) if setup.device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def run(inputs: AttentionInputs) -> torch.Tensor:
        with torch.cuda.stream(stream):
            return attend(inputs)

    return run


def plants() -> list[Plant]:
    """All of them."""
    at = [PROBLEM]
    return [
        planted("computes in a thread after returning", in_a_thread, at),
        planted("computes when looked at", when_looked_at, at),
        planted("leaves a dispatch mode behind", intercepting, at),
        planted("does the work in prepare", lambda *_: lambda given: given.grad.clone(), at, prepare=ahead_of_time),
        planted("works on another stream", on_another_stream, at, only_on="cuda", devices=("cuda",)),
    ]
