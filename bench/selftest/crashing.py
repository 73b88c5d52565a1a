"""A plugin for real workers: kernels that fail in every way that a kernel can, and one that is right."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import kernel

if TYPE_CHECKING:
    from types import FrameType

    from kerneldyno.kernels.attention.problem import AttentionInputs
    from kerneldyno.kernels.registry import Run, Setup

HUGE = 2**52
"""More bytes than a process can address: refused at once, nothing is touched."""


def attend(inputs: AttentionInputs) -> torch.Tensor:
    """The honest work."""
    return F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v)


def hang() -> None:
    """Never come back."""
    while True:
        time.sleep(1)


def hang_deaf() -> None:
    """Never come back, and hear no request to stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang()


def raise_error() -> None:
    """An ordinary error."""
    raise RuntimeError("this kernel has a sharp edge")


def exhaust() -> None:
    """Ask for more memory than there can be, in Python."""
    bytearray(HUGE)


def exhaust_torch() -> None:
    """The same through torch's allocator."""
    torch.empty(HUGE, dtype=torch.uint8)


def exhaust_limited() -> None:
    """Run into a limit on address space, as a container's would be: the machine itself never suffers."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**30, before[1]))
    try:
        torch.empty(2**30, dtype=torch.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def recurse() -> None:
    """Without end."""
    recurse()


def garbage_answer() -> None:
    """Write nonsense where the worker's answers go."""
    os.write(int(sys.argv[1]), b"nonsense\n")


def forged_answer() -> None:
    """Say in the worker's name that a splendid measurement is done."""
    from kerneldyno.bench.messages import Channel

    channels = [item for item in _alive() if isinstance(item, Channel)]
    case = next(item for item in _alive() if type(item).__name__ == "Case" and item.kernel.endswith("forges_its_measurement"))
    for channel in channels:
        channel.say(_splendid(case.id))


def _alive() -> list[Any]:
    """Everything in the process that a kernel can lay its hands on."""
    import gc

    found = list(gc.get_objects())
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - what a cheat would do
    while frame is not None:
        for value in frame.f_locals.values():
            found += [value, *(vars(value).values() if hasattr(value, "__dict__") else ()), *(value if isinstance(value, list) else ())]
        frame = frame.f_back
    return found


def _splendid(case: str) -> Any:
    from kerneldyno.bench.messages import Done
    from kerneldyno.bench.records import Measurement, Process

    samples = [1e-9] * 30
    return Done(Measurement(case=case, status="ok", processes=[Process(worker=1, samples_s=samples, rounds=list(range(30)))]))


def closed_files() -> None:
    """Close every file of the process but the standard ones."""
    os.closerange(3, 256)


TIMED_CALL = 200
"""Long after all checks."""
DEEDS: dict[str, tuple[Callable[[], Any], int, str]] = {
    "hangs": (hang, 1, "timeout"),
    "hangs_while_it_is_timed": (hang, TIMED_CALL, "timeout"),
    "hangs_and_hears_nothing": (hang_deaf, 1, "timeout"),
    "reads_address_0": (lambda: ctypes.string_at(0), 3, "failed"),
    "reads_address_0_while_it_is_timed": (lambda: ctypes.string_at(0), TIMED_CALL, "failed"),
    "aborts": (os.abort, 3, "failed"),
    "exits": (lambda: sys.exit("adieu"), 3, "failed"),
    "ends_the_process_with_success": (lambda: os._exit(0), 3, "failed"),
    "is_killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), 3, "failed"),
    "raises": (raise_error, 3, "failed"),
    "raises_while_it_is_timed": (raise_error, TIMED_CALL, "failed"),
    "runs_out_of_memory": (exhaust, 3, "failed"),
    "runs_out_of_memory_in_torch": (exhaust_torch, 3, "failed"),
    "runs_into_a_memory_limit": (exhaust_limited, 3, "failed"),
    "recurses_without_end": (recurse, 3, "failed"),
    "writes_garbage_into_the_answers": (garbage_answer, 3, "invalid"),
    "forges_its_measurement": (forged_answer, 3, "invalid"),
    "closes_the_files_of_the_process": (closed_files, 3, "failed"),
}
"""What each does, in which of its calls, and the status it deserves."""
MEDDLERS = ("hangs_and_hears_nothing", "writes_garbage_into_the_answers", "forges_its_measurement", "closes_the_files_of_the_process")
"""Those that may bring the parent down: each gets a run of its own."""
SHORT = ("hangs", "reads_address_0", "raises", "runs_out_of_memory_in_torch")
"""Those of a short self-test."""


def failing(name: str, deed: Callable[[], Any], at: int) -> Any:
    """A kernel that is right, and does that in one of its calls."""

    def build(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
        calls: list[int] = []

        def run(inputs: AttentionInputs) -> torch.Tensor:
            calls.append(1)
            if len(calls) == at:
                deed()
            return attend(inputs)

        return run

    build.__doc__ = f"Right at first, then {name.replace('_', ' ')}."
    return kernel(Attention, name=name, family="selftest")(build)


@kernel(Attention, family="selftest")
def bystander(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Right: what the others do must not cost it anything."""
    return attend


globals().update({name: failing(name, deed, at) for name, (deed, at, _) in DEEDS.items()})
