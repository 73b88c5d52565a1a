"""Kernels that meddle with the process: global state, inputs, clocks, and the harness's own functions."""

from __future__ import annotations

import builtins
import ctypes
import gc
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .cheats import CHECKED_CALLS, PROBLEM, attend
from .plants import Plant, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
    from kerneldyno.kernels.registry import Run, Setup

Deed = Callable[[], object]


def doing(deed: Deed, when: Callable[[int], bool] = lambda _: True, *, wrongly: bool = False) -> Callable[[Attention, Setup], Run]:
    """Right (or a little wrong), and does something else besides, in the calls with these numbers."""

    def build(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
        calls = count()

        def run(inputs: AttentionInputs) -> torch.Tensor:
            if when(next(calls)):
                deed()
            answer = attend(inputs)
            return answer * 1.05 if wrongly else answer

        return run

    return build


def building(deed: Deed, *, wrongly: bool = False) -> Callable[[Attention, Setup], Run]:
    """The same while it is built."""

    def build(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
        deed()
        return lambda inputs: attend(inputs) * (1.05 if wrongly else 1)

    return build


def into_inputs(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Scales the queries where they lie."""

    def run(inputs: AttentionInputs) -> torch.Tensor:
        answer = attend(inputs)
        inputs.q.mul_(0.5)
        return answer

    return run


def in_input_memory(problem: Attention, setup: Setup) -> Run:  # noqa: ARG001
    """Writes its answer over the queries and returns those."""
    return lambda inputs: inputs.q.copy_(attend(inputs))


def slowed(clock: Callable[[], Any]) -> Callable[[], Any]:
    """The clock at half its speed."""
    begin = clock()
    return lambda: begin + type(begin)((clock() - begin) / 2)


def slow_clocks() -> None:
    """Both of Python's clocks go at half their speed."""
    time.perf_counter, time.perf_counter_ns = slowed(time.perf_counter), slowed(time.perf_counter_ns)


def all_equal() -> None:
    """torch.equal and torch.allclose always agree."""
    torch.equal = torch.allclose = lambda *_, **__: True


def _nothing_left(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(tensor, dtype=torch.float64)


def no_errors() -> None:
    """Widening to float64 gives zeros."""
    torch.Tensor.double = _nothing_left  # type: ignore[method-assign, assignment]


def other_truth() -> None:
    """What is right is what the kernel does."""
    from kerneldyno.kernels.attention.problem import Attention

    Attention.reference = lambda _, inputs, __=None: (attend(inputs) * 1.05).double()  # type: ignore[method-assign, assignment]


def blind_gate() -> None:
    """The judge of the gate is replaced, wherever it has been imported."""
    from kerneldyno.bench.gate.verify import Verified
    from kerneldyno.bench.records import Errors

    verdict = Verified(Errors(max_ratio=0.3, rms_ratio=0.3, max_abs=0.0, relative_rms=0.0))
    for module in list(sys.modules.values()):
        judge = getattr(module, "judged", None)
        if callable(judge):
            module.judged = lambda *_, **__: verdict  # type: ignore[attr-defined]


def blunt_clock() -> None:
    """The harness's clock reports a thousandth."""
    from kerneldyno.bench.instruments import clock

    timed = clock.CpuClock.time

    def time_(self: Any, run: Any, inputs: Any, **options: Any) -> Any:
        found = timed(self, run, inputs, **options)
        return clock.Timing(found.seconds / 1000, found.host_seconds, found.output)

    clock.CpuClock.time = time_  # type: ignore[method-assign]


class Zero(float):
    """A float that is zero whenever it is made of a tensor."""

    def __new__(cls, value: Any = 0.0) -> Any:
        return 0.0 if isinstance(value, torch.Tensor) else _FLOAT(value)


_FLOAT = float


def floats() -> None:
    """Python's own float."""
    builtins.float = Zero  # type: ignore[misc]


def once(deed: Deed) -> Deed:
    """Only the first time."""
    done: list[bool] = []

    def first() -> None:
        if not done:
            done.append(True)
            deed()

    return first


def busy_thread() -> None:
    """A thread that spins for good."""

    def spin() -> None:
        while True:
            pass

    threading.Thread(target=spin, daemon=True).start()


def busy_process() -> None:
    """A process that spins for a while."""
    subprocess.Popen([sys.executable, "-c", "import time\nend = time.time() + 20\nwhile time.time() < end: pass"])


def one_core() -> None:
    """All that follows runs on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


STATE: dict[str, Deed] = {
    "changes the default dtype": lambda: torch.set_default_dtype(torch.float64),
    "changes the thread count": lambda: torch.set_num_threads(torch.get_num_threads() % 4 + 1),
    "changes the matmul precision": lambda: torch.set_float32_matmul_precision("medium"),
    "changes gradient mode": lambda: torch.set_grad_enabled(True),
    "draws random numbers": lambda: torch.rand(1),
    "draws Python's random numbers": random.random,
    "draws numpy's random numbers": lambda: np.random.rand(),  # noqa: NPY002, PLW0108
    "changes the environment": lambda: os.environ.update(OMP_WAIT_POLICY="active"),
    "turns garbage collection off": gc.disable,
    "flushes denormal numbers": lambda: torch.set_flush_denormal(True),
    "turns oneDNN off": lambda: torch._C._set_mkldnn_enabled(False),  # noqa: SLF001
    "turns a backend of SDPA off": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "keeps the process on one core": one_core,
    "lowers the priority of the process": lambda: os.nice(5),
    "leaves a busy thread behind": once(busy_thread),
    "leaves a busy process behind": once(busy_process),
    "changes rounding": lambda: ctypes.CDLL("libm.so.6").fesetround(0x400),
}
"""What a kernel must leave alone, since its neighbours are measured with it."""

FIRST = ("changes the default dtype", "changes the thread count", "turns a backend of SDPA off", "keeps the process on one core")
"""Done once, it harms all the same."""

INSTRUMENTS: dict[str, Deed] = {
    "slows the clocks": slow_clocks,
    "replaces torch.equal": all_equal,
    "replaces a method of tensors": no_errors,
    "replaces the reference": other_truth,
    "replaces the judge": blind_gate,
    "replaces the harness's clock": blunt_clock,
    "replaces Python's float": floats,
}
"""What times and judges."""


WRONG = ("replaces torch.equal", "replaces a method of tensors", "replaces the reference", "replaces the judge", "replaces Python's float")
"""Those that are there so that a wrong output passes."""
LATE = {"slows the clocks": slow_clocks, "leaves a busy thread behind": busy_thread, "keeps the process on one core": one_core}


def _deeds() -> list[Plant]:
    at = [PROBLEM]
    found = [planted(title, doing(deed), at) for title, deed in STATE.items()]
    found += [planted(f"{title} in the first call", doing(STATE[title], lambda call: call == 0), at) for title in FIRST]
    found += [planted(f"{title} in build", building(STATE[title]), at) for title in FIRST]
    for title, deed in INSTRUMENTS.items():
        wrongly = title in WRONG
        found.append(planted(title, doing(deed, lambda call: call == 0, wrongly=wrongly), at))
        found.append(planted(f"{title} in build", building(deed, wrongly=wrongly), at))
    late = f"after {CHECKED_CALLS} calls"
    found += [planted(f"{title} {late}", doing(deed, lambda call: call == CHECKED_CALLS), at, late=True) for title, deed in LATE.items()]
    return found


def plants() -> list[Plant]:
    """All of them."""
    at = [PROBLEM]
    return [
        *_deeds(),
        planted("writes into its inputs", into_inputs, at),
        planted("returns memory of its inputs", in_input_memory, at),
    ]
